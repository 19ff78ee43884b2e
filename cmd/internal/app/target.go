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

// target is what is watched as one: the metric directories of one application.
type target struct {
	name        string
	place       string // where it was named, for errors
	labels      map[string]string
	directories []placed
}

// placed is a directory and where it was named.
type placed struct {
	Directory
	place string
}

// errNoDirectory says that there is nothing to merge.
var errNoDirectory = errors.New("no metric directory is known: " +
	"give the flag, set PROMETHEUS_MULTIPROC_DIR, or list targets in --config.file")

// homeDirectory is where earlier exporters let workers write, below the home.
const homeDirectory = ".gunicorn_prometheus"

// targets returns what is to be watched. The directories of the flags make one
// target, beside those of the config file; only when neither names any, they
// are looked for: in the application's environment, then at home.
func (o Options) targets(c config) ([]target, error) {
	var all []target
	if len(o.Directories) > 0 {
		all = append(all, flagTarget("--"+directoryFlag, o.Directories...))
	}
	all = append(all, c.targets...)
	if len(all) == 0 {
		found, ok := o.discover()
		if !ok {
			return nil, &OptionError{Flag: directoryFlag, Err: errNoDirectory}
		}
		all = append(all, found)
	}
	return all, checkTargets(all)
}

// discover looks for a directory that nobody has named. The watched master's
// own environment will have its place between these two.
func (o Options) discover() (target, bool) {
	if o.AmbientDirectory != "" {
		return flagTarget("PROMETHEUS_MULTIPROC_DIR", Directory{Path: o.AmbientDirectory}), true
	}
	if o.Home == "" {
		return target{}, false
	}
	dir := filepath.Join(o.Home, homeDirectory)
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return target{}, false
	}
	return flagTarget("the home directory", Directory{Path: dir}), true
}

func flagTarget(place string, dirs ...Directory) target {
	t := target{name: place, place: place}
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
