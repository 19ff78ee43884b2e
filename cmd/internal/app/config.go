package app

import (
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"

	"github.com/prefork-exporter/prefork_exporter/collector"
	"github.com/prefork-exporter/prefork_exporter/multiproc"
)

// config is what the config file says.
type config struct {
	targets []target
	direct  map[string]multiproc.DirectMetric
}

// readConfig reads the config file. An error names the file, the line and the
// key.
func readConfig(file string) (config, error) {
	if file == "" {
		return config{}, nil
	}
	f, err := os.Open(file)
	if err != nil {
		return config{}, fmt.Errorf("read the config file: %w", err)
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, maxConfig+1))
	if err != nil {
		return config{}, fmt.Errorf("read the config file: %w", err)
	}
	if len(data) > maxConfig {
		return config{}, fmt.Errorf("read the config file: %s: more than %d bytes: want a YAML file", file, maxConfig)
	}
	return parseConfig(file, data)
}

// maxConfig is more than any config file needs: a device never ends.
const maxConfig = 4 << 20

// parseConfig reads what is in the file of that name.
func parseConfig(file string, data []byte) (config, error) {
	var c config
	top, err := parseYAML(file, data)
	if err != nil || top == nil {
		return c, err
	}
	err = top.fields(map[string]func(node) error{
		"targets":   func(n node) error { return n.items(c.readTarget) },
		"multiproc": c.readMultiproc,
	})
	return c, err
}

func (c *config) readTarget(n node) error {
	t := target{place: n.at(), name: n.path}
	err := n.fields(map[string]func(node) error{
		"name":   textTo(&t.name),
		"labels": t.readLabels,
		"master": t.readMaster,
		"listen": func(n node) error { return n.items(t.readListen) },
		"multiproc": func(n node) error {
			return n.fields(map[string]func(node) error{
				"dirs": func(n node) error { return n.items(t.readDirectory) },
			})
		},
	})
	if err != nil {
		return err
	}
	if t.name == "" || slices.ContainsFunc(c.targets, func(o target) bool { return o.name == t.name }) {
		return n.errorf("name %q: want one that no other target has", t.name)
	}
	if len(t.directories) == 0 && !t.master.given() && len(t.listen) == 0 {
		return n.errorf("nothing to watch: want multiproc.dirs, master or listen")
	}
	if t.master.given() || len(t.listen) > 0 {
		for _, name := range slices.Sorted(maps.Keys(t.labels)) {
			if slices.Contains(collector.LabelNames(), name) {
				return n.errorf("label %q: what is observed of a server has that label itself", name)
			}
		}
	}
	c.targets = append(c.targets, t)
	return nil
}

func (t *target) readLabels(n node) error {
	t.labels = map[string]string{}
	return n.pairs(func(key, value node) error {
		text, err := value.text()
		if err != nil {
			return err
		}
		if err := checkLabel(key.yaml.Value, text); err != nil {
			return key.errorf("%w", err)
		}
		t.labels[key.yaml.Value] = text
		return nil
	})
}

// readDirectory takes the path as it is: here a name may have every sign. One
// that is relative begins at the file's directory.
func (t *target) readDirectory(n node) error {
	dir, err := n.text()
	if err != nil {
		return err
	}
	if err := (Directory{Path: dir}).check(); err != nil {
		return n.errorf("%w", err)
	}
	if !filepath.IsAbs(dir) {
		dir = filepath.Join(filepath.Dir(n.file), dir)
	}
	t.directories = append(t.directories, placed{Directory{Path: dir}, n.at()})
	return nil
}

// readMaster reads how the master is found. A pidfile that is relative begins at the file's
// directory.
func (t *target) readMaster(n node) error {
	m, nodes := &t.master, map[string]node{}
	known := map[string]func(node) error{
		"pidfile": textTo(&m.PIDFile), "process": textTo(&m.Process), "user": textTo(&m.User), "cgroup": textTo(&m.Cgroup),
		"kind": textTo(&m.Kind), "pid": wholeTo(&m.PID), "timeout": durationTo(&m.Timeout),
	}
	for key, read := range known {
		known[key] = func(n node) error {
			nodes[key] = n
			return read(n)
		}
	}
	if err := n.fields(known); err != nil {
		return err
	}
	if option, err := m.problem(false); err != nil {
		return nodes[option].errorf("%w", err)
	}
	if !m.given() {
		return n.errorf("no master: want pidfile, pid or process")
	}
	if m.PIDFile != "" && !filepath.IsAbs(m.PIDFile) {
		m.PIDFile = filepath.Join(filepath.Dir(n.file), m.PIDFile)
	}
	return nil
}

// readListen reads an address whose accept queue is measured.
func (t *target) readListen(n node) error {
	address, err := n.text()
	if err != nil {
		return err
	}
	if _, err := collector.ParseListenAddress(address); err != nil {
		return n.errorf("%q: %w", address, err)
	}
	t.listen = append(t.listen, address)
	return nil
}

func (c *config) readMultiproc(n node) error {
	return n.fields(map[string]func(node) error{
		"direct_file_store": func(n node) error {
			c.direct = map[string]multiproc.DirectMetric{}
			return n.pairs(c.readDirect)
		},
	})
}

func (c *config) readDirect(key, n node) error {
	name := key.yaml.Value
	if !regexp.MustCompile(`^[a-zA-Z_:][a-zA-Z0-9_:]*$`).MatchString(name) {
		return key.errorf("want a metric's name: letters, digits, underscores and colons, no digit first")
	}
	var d multiproc.DirectMetric
	err := n.fields(map[string]func(node) error{
		"type":        textTo(&d.Type),
		"help":        textTo(&d.Help),
		"aggregation": textTo(&d.Aggregation),
		"buckets": func(n node) error {
			return n.items(func(n node) error {
				bound, err := n.number()
				d.Buckets = append(d.Buckets, bound)
				return err
			})
		},
	})
	if err != nil {
		return err
	}
	if err := d.Validate(); err != nil {
		return n.errorf("%w", err)
	}
	c.direct[name] = d
	return nil
}
