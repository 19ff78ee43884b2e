package expo

import (
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/prometheus/common/model"

	"github.com/prefork-exporter/prefork_exporter/multiproc"
)

// escaper escapes the names of a layout's families, one after another, and
// tells those that no exposition can hold then. It is for one goroutine.
type escaper struct {
	scheme model.EscapingScheme
	refuse func(name string) bool // nil: none
	taken  map[string]bool        // names of families and of their samples
}

// newEscaper returns the escaper of the families of l. Names that escaping
// leaves alone come before those that it makes the same.
func newEscaper(l *multiproc.Layout, o Options) *escaper {
	e := &escaper{scheme: o.Escaping, refuse: o.Refuse, taken: map[string]bool{}}
	if e.scheme == model.NoEscaping {
		return e
	}
	for i := range l.Families {
		f := &l.Families[i]
		for _, p := range append(partsOf(f.Type), multiproc.PartValue) {
			if raw := f.Name + p.Suffix(); model.EscapeName(raw, e.scheme) == raw {
				e.taken[raw] = true
			}
		}
	}
	return e
}

// familyNames are the escaped names of a family.
type familyNames struct {
	name  string                               // of a counter with its _total, as text format 0.0.4 has it
	stem  string                               // without it, as OpenMetrics has it
	parts [multiproc.PartBareBucket + 1]string // of its samples
}

// family escapes the names of f. Sample names are escaped whole, suffix
// included, so that they can be read back. It returns false when one of them
// cannot be written, or escaping made it one that is taken or refused.
func (e *escaper) family(f *multiproc.Family) (familyNames, bool) {
	n := familyNames{name: model.EscapeName(f.Name, e.scheme)}
	n.stem = n.name
	if f.Type == multiproc.Counter {
		n.stem = model.EscapeName(strings.TrimSuffix(f.Name, "_total"), e.scheme)
	}
	fits := e.free(f.Name, n.name)
	parts := partsOf(f.Type)
	for _, p := range parts {
		raw := f.Name + p.Suffix()
		n.parts[p] = model.EscapeName(raw, e.scheme)
		fits = fits && e.free(raw, n.parts[p])
	}
	if !fits || e.scheme == model.NoEscaping {
		return n, fits
	}
	e.taken[n.name] = true
	for _, p := range parts {
		e.taken[n.parts[p]] = true
	}
	return n, true
}

// free says whether raw can stand as name.
func (e *escaper) free(raw, name string) bool {
	return writable(name) && (name == raw || !e.taken[name] && (e.refuse == nil || !e.refuse(name)))
}

// partsOf returns the parts that a family of that type may have.
func partsOf(t multiproc.Type) []multiproc.Part {
	switch t {
	case multiproc.Histogram:
		return []multiproc.Part{multiproc.PartBucket, multiproc.PartBareBucket, multiproc.PartSum, multiproc.PartCount}
	case multiproc.Summary:
		return []multiproc.Part{multiproc.PartSum, multiproc.PartCount}
	}
	return []multiproc.Part{multiproc.PartValue}
}

// writable says whether Prometheus reads a name between quotes: its lexers take
// a zero byte there for the end, and the whole scrape is lost.
func writable(name string) bool { return utf8.ValidString(name) && strings.IndexByte(name, 0) < 0 }

// labelSets escapes the label names of one family. Most label sets have the
// names of the one before, which is why it keeps them.
type labelSets struct {
	scheme  model.EscapingScheme
	family  *multiproc.Family
	raw     []multiproc.Label // of the set before
	names   []string          // its names, escaped
	fits    bool
	changed bool            // escaping changed a name
	seen    map[string]bool // the sets before; nil until escaping changed a name
}

// next returns the escaped names of the labels of sample i, the first of its
// label set, and whether the set can be told: not when a name or a value cannot
// be written, or escaping made two names or two label sets the same.
func (l *labelSets) next(i int) (names []string, ok bool) {
	labels := l.family.Samples[i].Labels
	if l.names == nil || !sameNames(l.raw, labels) {
		l.escape(labels)
	}
	l.raw = labels
	for _, pair := range labels {
		if !utf8.ValidString(pair.Value) {
			return l.names, false
		}
	}
	if l.changed && l.seen == nil {
		l.recall(i)
	}
	if l.seen == nil || !l.fits {
		return l.names, l.fits
	}
	set := setText(l.names, labels)
	fresh := !l.seen[set]
	l.seen[set] = true
	return l.names, fresh
}

func sameNames(a, b []multiproc.Label) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i].Name != b[i].Name {
			return false
		}
	}
	return true
}

// escape finds the names of labels and what is wrong with them.
func (l *labelSets) escape(labels []multiproc.Label) {
	l.names, l.fits, l.changed = make([]string, len(labels)), true, false
	for i, pair := range labels {
		name := model.EscapeName(pair.Name, l.scheme)
		l.changed = l.changed || name != pair.Name
		if !writable(name) || name == model.MetricNameLabel {
			l.fits = false
		}
		for _, before := range l.names[:i] {
			l.fits = l.fits && before != name
		}
		l.names[i] = name
	}
}

// recall notes the label sets before sample i, none of which escaping changed.
func (l *labelSets) recall(i int) {
	l.seen = map[string]bool{}
	for j := 0; j < i; j += group(l.family.Samples[j:]) {
		l.seen[setText(nil, l.family.Samples[j].Labels)] = true
	}
}

// setText returns a text that tells label sets apart: sorted by names, which
// stand for the labels' own unless nil.
func setText(names []string, labels []multiproc.Label) string {
	pairs := make([]string, len(labels))
	for i, pair := range labels {
		name := pair.Name
		if names != nil {
			name = names[i]
		}
		pairs[i] = string(AppendQuoted(append([]byte(name), '='), pair.Value))
	}
	slices.Sort(pairs)
	return strings.Join(pairs, ",")
}
