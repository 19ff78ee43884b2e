package app

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"
)

// Directory is one directory of metric files.
type Directory struct {
	Path   string
	Labels map[string]string // of all its series, beside those of its target
}

// ParseDirectory reads DIR or DIR=label=value[,label=value]. A name that has
// one of these signs in it can be given in the config file only.
func ParseDirectory(s string) (Directory, error) {
	dir, rest, labelled := strings.Cut(s, "=")
	if strings.Contains(dir, ",") {
		return Directory{}, fmt.Errorf("%q: a comma: repeat the flag for each directory", dir)
	}
	d := Directory{Path: dir}
	if !labelled {
		return d, d.check()
	}
	d.Labels = map[string]string{}
	for pair := range strings.SplitSeq(rest, ",") {
		name, value, ok := strings.Cut(pair, "=")
		if !ok {
			return Directory{}, fmt.Errorf("%q: want DIR or DIR=label=value[,label=value]", s)
		}
		if _, twice := d.Labels[name]; twice {
			return Directory{}, fmt.Errorf("label %q: given twice", name)
		}
		d.Labels[name] = value
	}
	return d, d.check()
}

// String returns what [ParseDirectory] reads, with the labels sorted.
func (d Directory) String() string {
	s, sign := d.Path, "="
	for _, l := range labelPairs(d.Labels, "%s=%s") {
		s += sign + l
		sign = ","
	}
	return s
}

// labelPairs formats each label, sorted.
func labelPairs(labels map[string]string, format string) []string {
	var pairs []string
	for name, value := range labels {
		pairs = append(pairs, fmt.Sprintf(format, name, value))
	}
	slices.Sort(pairs)
	return pairs
}

func (d Directory) check() error {
	if d.Path == "" {
		return errors.New("no directory: want its path")
	}
	if strings.ContainsRune(d.Path, 0) {
		return fmt.Errorf("directory %q: a zero byte in its name", d.Path)
	}
	return checkLabels(d.Labels)
}

// checkLabels returns what is wrong with the first bad label by name.
func checkLabels(labels map[string]string) error {
	names := make([]string, 0, len(labels))
	for name := range labels {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if err := checkLabel(name, labels[name]); err != nil {
			return fmt.Errorf("label %q: %w", name, err)
		}
	}
	return nil
}

func checkLabel(name, value string) error {
	switch {
	case !regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_]*$`).MatchString(name):
		return errors.New("want letters, digits and underscores, no digit first")
	case strings.HasPrefix(name, "__"):
		return errors.New("names that begin with __ are Prometheus's own")
	case slices.Contains([]string{"le", "quantile", "pid", "worker_id"}, name):
		return errors.New("the series have that label themselves")
	case value == "":
		return errors.New("no value")
	case !utf8.ValidString(value):
		return errors.New("the value is not UTF-8")
	}
	return nil
}
