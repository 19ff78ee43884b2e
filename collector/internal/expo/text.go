// Package expo renders a merged snapshot: as text from cached bytes, or as
// metric families for what client_golang must encode. It promises nothing.
package expo

import (
	"cmp"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/prometheus/common/model"

	"github.com/prefork-exporter/prefork_exporter/multiproc"
)

// Text renders snapshots in the text formats. What stands before a value is
// cached for as long as the layout stays. It is safe for concurrent use.
type Text struct {
	mu       sync.Mutex
	layout   *multiproc.Layout                  // the last one
	prefixes map[model.EscapingScheme]*prefixes // of it, or of the one before
	buffers  sync.Pool
}

// Options are how to render.
type Options struct {
	OpenMetrics bool // OpenMetrics 1.0.0 without its end mark, else text format 0.0.4
	Escaping    model.EscapingScheme
	Keep        func(f *multiproc.Family) bool // which families; nil: all
	Refuse      func(name string) bool         // sample names that escaping must not make; nil: none. Always the same
}

// prefixes are the lines of a layout up to their values.
type prefixes struct {
	layout  *multiproc.Layout
	text    []byte
	ends    []uint32    // of each sample's prefix in text; equal to the one before: left out
	heads   [2][]string // of each family, in text format and in OpenMetrics; empty: left out
	plain   []bool      // of each family: escaping changed no label name
	dropped int
}

// chunk is how much is rendered before it is written.
const chunk = 64 << 10

// Write renders s to w. It returns how many samples the format cannot hold, as
// their names cannot be written, or escaping makes them equal to others; they
// are left out.
func (t *Text) Write(w io.Writer, s *multiproc.Snapshot, o Options) (dropped int, err error) {
	p := t.of(s.Layout, o)
	buf, _ := t.buffers.Get().(*[]byte)
	if buf == nil {
		b := make([]byte, 0, chunk+chunk/4)
		buf = &b
	}
	defer t.buffers.Put(buf)
	b := (*buf)[:0]
	heads := p.heads[0]
	if o.OpenMetrics {
		heads = p.heads[1]
	}
	for i := range s.Families {
		f := &s.Families[i]
		if heads[i] == "" || o.Keep != nil && !o.Keep(f) {
			continue
		}
		head := len(b)
		b = append(b, heads[i]...)
		body := len(b)
		for j := range f.Samples {
			b = p.append(b, f.First+j, s.Values[f.First+j])
			if len(b) >= chunk {
				if _, err := w.Write(b); err != nil {
					return p.dropped, err
				}
				b, body = b[:0], -1
			}
		}
		if len(b) == body {
			b = b[:head] // no sample: no family
		}
	}
	*buf = b
	_, err = w.Write(b)
	return p.dropped, err
}

// append renders sample i, when it has a value and a prefix.
func (p *prefixes) append(b []byte, i int, v float64) []byte {
	start := p.start(i)
	if start == p.ends[i] || !multiproc.Present(v) {
		return b
	}
	b = append(b, p.text[start:p.ends[i]]...)
	b = AppendFloat(b, v)
	return append(b, '\n')
}

// start returns where the prefix of sample i begins.
func (p *prefixes) start(i int) uint32 {
	if i == 0 {
		return 0
	}
	return p.ends[i-1]
}

// AppendFloat appends v as all text formats read it.
func AppendFloat(b []byte, v float64) []byte {
	if n := int64(v); float64(n) == v && n > -1e15 && n < 1e15 {
		return strconv.AppendInt(b, n, 10)
	}
	return strconv.AppendFloat(b, v, 'g', -1, 64)
}

// of returns the prefixes of a layout, made when it is new of those of the
// layout before, most of which stay as they are.
func (t *Text) of(l *multiproc.Layout, o Options) *prefixes {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.prefixes[o.Escaping]
	if p != nil && p.layout == l {
		return p
	}
	if t.prefixes == nil {
		t.prefixes = map[model.EscapingScheme]*prefixes{}
	}
	p = newPrefixes(l, newEscaper(l, o), p)
	if t.layout != l {
		maps.DeleteFunc(t.prefixes, func(_ model.EscapingScheme, old *prefixes) bool { return old.layout != t.layout })
		t.layout = l
	}
	t.prefixes[o.Escaping] = p
	return p
}

// newPrefixes makes the prefixes of l. before are those of an earlier layout, or nil.
func newPrefixes(l *multiproc.Layout, e *escaper, before *prefixes) *prefixes {
	n := len(l.Families)
	p := &prefixes{layout: l, ends: make([]uint32, 0, l.Samples), plain: make([]bool, n)}
	p.heads[0], p.heads[1] = make([]string, n), make([]string, n)
	if before != nil {
		p.text = make([]byte, 0, len(before.text)+len(before.text)/32)
	}
	for i := range l.Families {
		f := &l.Families[i]
		names, ok := e.family(f)
		if !ok {
			p.dropped += len(f.Samples)
			p.skip(len(f.Samples))
			continue
		}
		p.heads[0][i], p.heads[1][i] = textHead(f, names.name), openMetricsHead(f, names.stem)
		p.plain[i] = p.add(f, names, e.scheme, before.family(f.Name))
	}
	p.text = slices.Clip(p.text)
	return p
}

// former is what an earlier layout had of a family.
type former struct {
	*prefixes
	samples []multiproc.Sample // that are left
	first   int                // the index of the first of them
}

// family returns what p had of the family of that name, if that can be used again.
func (p *prefixes) family(name string) former {
	if p == nil {
		return former{}
	}
	at, found := slices.BinarySearchFunc(p.layout.Families, name, func(f multiproc.Family, name string) int {
		return strings.Compare(f.Name, name)
	})
	if !found || !p.plain[at] {
		return former{}
	}
	f := &p.layout.Families[at]
	return former{p, f.Samples, f.First}
}

// take returns the prefixes of a label set, if they were in the earlier layout.
// Both layouts have their label sets in the same order.
func (w *former) take(set []multiproc.Sample) (text []byte, ends []uint32) {
	for len(w.samples) > 0 {
		n := group(w.samples)
		order := compareLabels(w.samples[0].Labels, set[0].Labels)
		if order > 0 {
			return nil, nil
		}
		old, first := w.samples[:n], w.first
		w.samples, w.first = w.samples[n:], w.first+n
		if order == 0 && slices.EqualFunc(old, set, func(a, b multiproc.Sample) bool { return a.Part == b.Part && a.Bound == b.Bound }) {
			return w.text[w.start(first):w.ends[first+n-1]], w.ends[first : first+n]
		}
	}
	return nil, nil
}

func compareLabels(a, b []multiproc.Label) int {
	if len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0]) {
		return 0
	}
	return slices.CompareFunc(a, b, func(a, b multiproc.Label) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.Value, b.Value))
	})
}

func (p *prefixes) skip(n int) {
	for range n {
		p.ends = append(p.ends, uint32(len(p.text)))
	}
}

// add adds the samples of a family. It says whether escaping left all its label
// names as they were.
func (p *prefixes) add(f *multiproc.Family, names familyNames, scheme model.EscapingScheme, before former) bool {
	sets := labelSets{scheme: scheme, family: f}
	var labels []byte
	for at := 0; at < len(f.Samples); {
		set := f.Samples[at : at+group(f.Samples[at:])]
		if text, ends := before.take(set); len(text) > 0 && sets.seen == nil {
			p.copy(text, ends)
		} else {
			labelNames, ok := sets.next(at)
			labels = appendLabels(labels[:0], labelNames, set[0].Labels)
			p.addSet(names, set, labels, ok)
		}
		at += len(set)
	}
	return sets.seen == nil
}

// copy adds a label set as it was in an earlier layout.
func (p *prefixes) copy(text []byte, ends []uint32) {
	shift := uint32(len(p.text)+len(text)) - ends[len(ends)-1]
	p.text = append(p.text, text...)
	for _, end := range ends {
		p.ends = append(p.ends, end+shift)
	}
}

// addSet adds a label set, or leaves it out.
func (p *prefixes) addSet(names familyNames, set []multiproc.Sample, labels []byte, ok bool) {
	for i := range set {
		if ok {
			p.sample(names.parts[set[i].Part], &set[i], labels)
		} else {
			p.dropped++
		}
		p.skip(1)
	}
}

// sample appends what stands before the value of s, which is called name.
func (p *prefixes) sample(name string, s *multiproc.Sample, labels []byte) {
	bare := model.LegacyValidation.IsValidMetricName(name)
	if bare {
		p.text = append(p.text, name...)
	}
	if bare && len(labels) == 0 && s.Part != multiproc.PartBucket {
		p.text = append(p.text, ' ')
		return
	}
	p.text = append(p.text, '{')
	separator := ""
	if !bare {
		p.text = AppendQuoted(p.text, name)
		separator = ","
	}
	if len(labels) > 0 {
		p.text = append(append(p.text, separator...), labels...)
		separator = ","
	}
	if s.Part == multiproc.PartBucket {
		p.text = append(append(p.text, separator...), "le="...)
		p.text = AppendQuoted(p.text, s.Bound)
	}
	p.text = append(p.text, "} "...)
}

// appendLabels appends labels under those names, with their commas.
func appendLabels(b []byte, names []string, labels []multiproc.Label) []byte {
	for i, name := range names {
		if i > 0 {
			b = append(b, ',')
		}
		if model.LegacyValidation.IsValidLabelName(name) {
			b = append(b, name...)
		} else {
			b = AppendQuoted(b, name)
		}
		b = append(b, '=')
		b = AppendQuoted(b, labels[i].Value)
	}
	return b
}

// AppendQuoted appends s between quotes, so that no text can end them.
func AppendQuoted(b []byte, s string) []byte {
	b = append(b, '"')
	for {
		at := strings.IndexAny(s, "\\\"\n")
		if at < 0 {
			return append(append(b, s...), '"')
		}
		b = append(append(b, s[:at]...), '\\')
		if s[at] == '\n' {
			b = append(b, 'n')
		} else {
			b = append(b, s[at])
		}
		s = s[at+1:]
	}
}

// textHead returns the lines that open a family in text format 0.0.4.
func textHead(f *multiproc.Family, name string) string {
	help := strings.NewReplacer(`\`, `\\`, "\n", `\n`).Replace(f.Help)
	return Head(name, help, f.Type.String())
}

// openMetricsHead returns the lines that open a family in OpenMetrics.
func openMetricsHead(f *multiproc.Family, name string) string {
	typ := f.Type.String()
	if f.Type == multiproc.Untyped {
		typ = "unknown"
	}
	help := strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`).Replace(f.Help)
	return Head(name, help, typ)
}

// Head returns the lines that open a family. The help is escaped already.
func Head(name, help, typ string) string {
	if !model.LegacyValidation.IsValidMetricName(name) {
		name = string(AppendQuoted(nil, name))
	}
	return "# HELP " + name + " " + help + "\n# TYPE " + name + " " + typ + "\n"
}

// OpenMetrics says whether every family of the layout survives OpenMetrics: a
// counter without _total would lose its type, and no two families may share a
// name when _total is taken off, however names are escaped.
func OpenMetrics(l *multiproc.Layout) bool {
	names := make(map[string]bool, len(l.Families))
	for i := range l.Families {
		name := l.Families[i].Name
		if l.Families[i].Type == multiproc.Counter {
			stem, ok := strings.CutSuffix(name, "_total")
			if !ok {
				return false
			}
			name = stem
		}
		if names[name] {
			return false
		}
		names[name] = true
	}
	return !escapedAlike(names)
}

// escapedAlike says whether escaping makes two of the names the same.
func escapedAlike(names map[string]bool) bool {
	var escaped map[string]bool
	for name := range names {
		if model.LegacyValidation.IsValidMetricName(name) {
			continue // no scheme makes it another legal name of the map
		}
		if escaped == nil {
			escaped = map[string]bool{}
		}
		for _, scheme := range []model.EscapingScheme{model.UnderscoreEscaping, model.ValueEncodingEscaping} {
			made := model.EscapeName(name, scheme)
			if names[made] || escaped[made] {
				return true
			}
			escaped[made] = true
		}
	}
	return false
}
