// Package expo renders a merged snapshot: as text from cached bytes, or as
// metric families for what client_golang must encode. It promises nothing.
package expo

import (
	"io"
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
	layout   *multiproc.Layout
	prefixes map[model.EscapingScheme]*prefixes
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
	text    []byte
	ends    []uint32    // of each sample's prefix in text; equal to the one before: left out
	heads   [2][]string // of each family, in text format and in OpenMetrics; empty: left out
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
	start := uint32(0)
	if i > 0 {
		start = p.ends[i-1]
	}
	if start == p.ends[i] || !multiproc.Present(v) {
		return b
	}
	b = append(b, p.text[start:p.ends[i]]...)
	b = AppendFloat(b, v)
	return append(b, '\n')
}

// AppendFloat appends v as all text formats read it.
func AppendFloat(b []byte, v float64) []byte {
	if n := int64(v); float64(n) == v && n > -1e15 && n < 1e15 {
		return strconv.AppendInt(b, n, 10)
	}
	return strconv.AppendFloat(b, v, 'g', -1, 64)
}

// of returns the prefixes of a layout, made when it is new.
func (t *Text) of(l *multiproc.Layout, o Options) *prefixes {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.layout != l {
		t.layout, t.prefixes = l, map[model.EscapingScheme]*prefixes{}
	}
	p := t.prefixes[o.Escaping]
	if p == nil {
		p = newPrefixes(l, newEscaper(l, o))
		t.prefixes[o.Escaping] = p
	}
	return p
}

func newPrefixes(l *multiproc.Layout, e *escaper) *prefixes {
	p := &prefixes{ends: make([]uint32, 0, l.Samples)}
	p.heads[0], p.heads[1] = make([]string, len(l.Families)), make([]string, len(l.Families))
	for i := range l.Families {
		f := &l.Families[i]
		names, ok := e.family(f)
		if !ok {
			p.dropped += len(f.Samples)
			p.skip(len(f.Samples))
			continue
		}
		p.heads[0][i], p.heads[1][i] = textHead(f, names.name), openMetricsHead(f, names.stem)
		p.family(f, names, e.scheme)
	}
	p.text = slices.Clip(p.text)
	return p
}

func (p *prefixes) skip(n int) {
	for range n {
		p.ends = append(p.ends, uint32(len(p.text)))
	}
}

func (p *prefixes) family(f *multiproc.Family, names familyNames, scheme model.EscapingScheme) {
	sets := labelSets{scheme: scheme, family: f}
	group, ok := -1, true
	var labels []byte
	for i := range f.Samples {
		s := &f.Samples[i]
		if s.Group != group {
			group = s.Group
			var labelNames []string
			labelNames, ok = sets.next(i)
			labels = appendLabels(labels[:0], labelNames, s.Labels)
		}
		if ok {
			p.sample(names.parts[s.Part], s, labels)
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
		p.text = appendQuoted(p.text, name)
		separator = ","
	}
	if len(labels) > 0 {
		p.text = append(append(p.text, separator...), labels...)
		separator = ","
	}
	if s.Part == multiproc.PartBucket {
		p.text = append(append(p.text, separator...), "le="...)
		p.text = appendQuoted(p.text, s.Bound)
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
			b = appendQuoted(b, name)
		}
		b = append(b, '=')
		b = appendQuoted(b, labels[i].Value)
	}
	return b
}

// appendQuoted appends s between quotes, so that no text can end them.
func appendQuoted(b []byte, s string) []byte {
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
	return head(name, help, f.Type.String())
}

// openMetricsHead returns the lines that open a family in OpenMetrics.
func openMetricsHead(f *multiproc.Family, name string) string {
	typ := f.Type.String()
	if f.Type == multiproc.Untyped {
		typ = "unknown"
	}
	help := strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`).Replace(f.Help)
	return head(name, help, typ)
}

func head(name, help, typ string) string {
	if !model.LegacyValidation.IsValidMetricName(name) {
		name = string(appendQuoted(nil, name))
	}
	return "# HELP " + name + " " + help + "\n# TYPE " + name + " " + typ + "\n"
}

// OpenMetrics says whether every family of the layout survives OpenMetrics: a
// counter without _total would lose its type, and no two families may share a
// name when _total is taken off.
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
	return true
}
