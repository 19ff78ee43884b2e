package writer

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// Opts describe a metric, as in client_golang. The name is Namespace, Subsystem
// and Name, those that are not empty, with underscores between them.
type Opts struct {
	Namespace, Subsystem, Name string
	Help                       string
	ConstLabels                Labels
}

// Labels are label values by label name.
type Labels map[string]string

func (o Opts) name() string {
	parts := slices.DeleteFunc([]string{o.Namespace, o.Subsystem, o.Name}, func(s string) bool { return s == "" })
	return strings.Join(parts, "_")
}

// family is what was registered under one name.
type family struct {
	kind    string // of its file: counter, gauge_max
	name    string
	help    string
	labels  []string // variable ones
	vector  bool
	consts  []label
	buckets []float64
	writer  *Writer
	metric  any // what its constructor returned
}

// register returns the family of that name, made by build when it is new. What
// contradicts an earlier registration, or no reader would take, is a bug of the
// caller, and a panic.
func (w *Writer) register(o Opts, kind string, labels []string, buckets []float64, build func(*family) any) any {
	f := &family{
		kind: kind, name: o.name(), help: o.Help, labels: slices.Clone(labels), vector: labels != nil, buckets: buckets, writer: w,
	}
	for name, value := range o.ConstLabels {
		f.consts = append(f.consts, label{name, value})
	}
	slices.SortFunc(f.consts, func(a, b label) int { return strings.Compare(a.name, b.name) })
	if err := f.check(); err != nil {
		panic(fmt.Sprintf("register metric %q: %v", f.name, err))
	}
	w.registering.Lock()
	defer w.registering.Unlock()
	if old := w.families[f.name]; old != nil {
		if !old.same(f) {
			panic(fmt.Sprintf("register metric %q: it is registered already, otherwise: %s, and now %s", f.name, old, f))
		}
		return old.metric
	}
	if other := w.claim(f); other != nil {
		panic(fmt.Sprintf("register metric %q: its readers would take it for a part of the %s %q", f.name, other.kind, other.name))
	}
	f.metric = build(f)
	w.families[f.name] = f
	return f.metric
}

// String describes what was asked for.
func (f *family) String() string {
	return fmt.Sprintf("a %s with labels %q, constant labels %q, buckets %v and help %q", f.kind, f.labels, f.consts, f.buckets, f.help)
}

func (f *family) same(o *family) bool {
	return f.kind == o.kind && f.help == o.help && f.vector == o.vector && slices.Equal(f.labels, o.labels) && slices.Equal(f.consts, o.consts) && slices.Equal(f.buckets, o.buckets)
}

// claim keeps the names that readers know the family by. It returns the family that
// has one of them already.
func (w *Writer) claim(f *family) *family {
	names := []string{f.name}
	switch f.kind {
	case "counter":
		names = append(names, strings.TrimSuffix(f.name, "_total"))
	case "histogram":
		names = append(names, f.name+"_bucket", f.name+"_sum", f.name+"_count")
	case "summary":
		names = append(names, f.name+"_sum", f.name+"_count")
	}
	for _, name := range names {
		if other := w.claims[name]; other != nil {
			return other
		}
	}
	for _, name := range names {
		w.claims[name] = f
	}
	return nil
}

// check returns what is wrong with the names.
func (f *family) check() error {
	if !validName(f.name, true) {
		return fmt.Errorf("want a name of letters, digits, underscores and colons, no digit first")
	}
	if f.kind == "counter" && (!strings.HasSuffix(f.name, "_total") || f.name == "_total") {
		return fmt.Errorf("want a counter's name to end in _total")
	}
	if !utf8.ValidString(f.help) {
		return fmt.Errorf("help is not UTF-8")
	}
	seen := map[string]bool{}
	for _, name := range append(slices.Clone(f.labels), names(f.consts)...) {
		switch {
		case !validName(name, false) || strings.HasPrefix(name, "__"):
			return fmt.Errorf("label %q: want letters, digits and underscores, no digit first, not two underscores first", name)
		case seen[name]:
			return fmt.Errorf("label %q: given twice", name)
		case name == "le" && f.kind == "histogram", name == "quantile" && f.kind == "summary", name == "pid" && strings.HasPrefix(f.kind, "gauge"):
			return fmt.Errorf("label %q: a %s has it already", name, f.kind)
		}
		seen[name] = true
	}
	return nil
}

func names(labels []label) []string {
	out := make([]string, len(labels))
	for i, l := range labels {
		out[i] = l.name
	}
	return out
}

func validName(s string, colons bool) bool {
	for i, r := range s {
		letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r == '_' || colons && r == ':'
		if !letter && (i == 0 || r < '0' || r > '9') {
			return false
		}
	}
	return s != ""
}

// labelled returns the labels of the child with those values.
func (f *family) labelled(values []string) []label {
	out := slices.Clone(f.consts)
	for i, name := range f.labels {
		out = append(out, label{name, values[i]})
	}
	return out
}

// sample names one sample of a child.
type sample struct {
	name   string
	labels []label
}

// cells returns the cells of samples of one child.
func (f *family) cells(samples ...sample) []cell {
	name := f.name
	if f.kind == "counter" {
		name = strings.TrimSuffix(name, "_total") // as Python's client calls the family
	}
	keys := make([][]byte, len(samples))
	for i, s := range samples {
		keys[i] = appendKey(nil, name, s.name, s.labels, f.help)
	}
	return f.writer.file(f.kind).cells(keys...)
}
