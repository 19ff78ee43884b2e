package app

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"

	"github.com/prefork-exporter/prefork_exporter/multiproc"
)

// target is what is watched as one: a master or none, and the metric directories and
// listeners of its application.
type target struct {
	name        string
	place       string // where it was named, for errors
	labels      map[string]string
	directories []placed
	master      Master
	listen      []string // addresses whose accept queues are measured
	own         bool     // that of the flags
	started     bool     // its master is started beside
}

// placed is a directory and where it was named.
type placed struct {
	Directory
	place string
}

// errNoDirectory says that there is nothing to merge.
var errNoDirectory = errors.New("no metric directory is known: " +
	"give the flag, set PROMETHEUS_MULTIPROC_DIR, name a master (--master.pidfile), or list targets in --config.file")

// homeDirectory is where earlier exporters let workers write, below the home.
const homeDirectory = ".gunicorn_prometheus"

// targets returns what is to be watched. The directories and the master of the flags make
// one target, beside those of the config file; only when neither names any, directories
// are looked for: in the application's environment, then at home.
func (o Options) targets(c config) ([]target, error) {
	var all []target
	switch {
	case len(o.Directories) > 0:
		all = append(all, flagTarget("--"+directoryFlag, o.Directories...))
	case o.Master.given() && o.AmbientDirectory != "":
		all = append(all, flagTarget(ambientPlace, Directory{Path: o.AmbientDirectory}))
	case o.Master.given():
		all = append(all, flagTarget("--"+masterFlag+o.Master.option()))
	}
	all = append(all, c.targets...)
	if len(all) == 0 {
		found, ok := o.discover()
		if !ok {
			return nil, &OptionError{Flag: directoryFlag, Err: errNoDirectory}
		}
		all = append(all, found)
	}
	for i := range all {
		if all[i].own {
			all[i].master = o.Master
		}
	}
	return all, checkTargets(all)
}

const (
	ambientPlace = "PROMETHEUS_MULTIPROC_DIR"
	masterFlag   = "master."
)

// discover looks for a directory that nobody has named. A master that is watched may name
// one, too: that has its place between these two, see [search].
func (o Options) discover() (target, bool) {
	if o.AmbientDirectory != "" {
		return flagTarget(ambientPlace, Directory{Path: o.AmbientDirectory}), true
	}
	dir, ok := o.homeDirectory()
	return flagTarget("the home directory", Directory{Path: dir}), ok
}

// homeDirectory returns the directory at home, if there is one.
func (o Options) homeDirectory() (dir string, ok bool) {
	if o.Home == "" {
		return "", false
	}
	dir = filepath.Join(o.Home, homeDirectory)
	info, err := os.Stat(dir)
	return dir, err == nil && info.IsDir()
}

func flagTarget(place string, dirs ...Directory) target {
	t := target{name: place, place: place, own: true}
	for _, d := range dirs {
		t.directories = append(t.directories, placed{d, place})
	}
	return t
}

// checkTargets refuses targets that nobody could tell apart, and directories
// that would count twice.
func checkTargets(targets []target) error {
	owners, labelled := map[string]placed{}, map[string]target{}
	for _, t := range targets {
		for _, d := range t.directories {
			at := multiproc.Canonical(d.Path)
			if first, ok := owners[at]; ok {
				return fmt.Errorf("%s: directory %s: given twice, at first by %s", d.place, d.Path, first.place)
			}
			owners[at] = d
		}
		for _, labels := range t.labelSets() {
			if first, ok := labelled[labels]; ok && first.place != t.place {
				return fmt.Errorf("%s: labels {%s}: those of %s, too: want labels that differ", t.place, labels, first.place)
			}
			labelled[labels] = t
		}
	}
	return nil
}

// labelSets returns the labels that the target's metrics and those of its
// files have.
func (t target) labelSets() []string {
	sets := []string{strings.Join(labelPairs(t.labels, "%s=%q"), ",")}
	for _, d := range t.directories {
		sets = append(sets, strings.Join(labelPairs(t.labelsOf(d.Directory), "%s=%q"), ","))
	}
	return sets
}

func (t target) labelsOf(d Directory) map[string]string {
	labels := map[string]string{}
	maps.Copy(labels, t.labels)
	maps.Copy(labels, d.Labels)
	return labels
}

// sources returns the directories of all targets.
func sources(targets []target, direct map[string]multiproc.DirectMetric) []multiproc.Source {
	var all []multiproc.Source
	for _, t := range targets {
		for _, d := range t.directories {
			all = append(all, multiproc.Source{Path: d.Path, Labels: t.labelsOf(d.Directory), Direct: direct})
		}
	}
	return all
}
