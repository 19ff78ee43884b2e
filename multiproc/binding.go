package multiproc

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/prefork-exporter/prefork_exporter/multiproc/internal/entry"
)

// binding says where each entry of a layout goes. Files with the same layout,
// type and source share one, unless their process has series of its own.
type binding struct {
	layout *layout
	cells  []*cell
	slots  []uint32 // of the cells, in the present plan
	op     op
	mixed  bool // the cells' operations differ
	faults reasonSet
	first  map[Reason]entryFault // the first of each
	epoch  uint64
}

// entryFault is what is wrong with an entry.
type entryFault struct {
	index int
	err   error
}

// bindingKey tells bindings apart. id is empty where processes share series.
type bindingKey struct {
	layout *layout
	source *source
	class  fileClass
	id     string
}

// view is an entry's key as it is merged.
type view struct {
	entry.Key
	typ  entry.Type
	mode entry.Mode
}

// view translates k, a key of the file f.
func (f *file) view(k *key) view {
	if f.metric == "" {
		return view{k.Key, f.typ, f.mode}
	}
	return f.directView(k)
}

// directView infers what a DirectFileStore does not write, where the source's
// map does not tell: FORMAT.md.
func (f *file) directView(k *key) view {
	v := view{Key: k.Key, mode: entry.Sum}
	m, mapped := f.source.Direct[f.metric]
	v.Labels = make([]entry.Label, 0, len(k.Labels))
	for _, l := range k.Labels {
		switch {
		case l.Name == "le" && l.Value == "sum":
			v.typ, v.Sample = entry.Histogram, f.metric+"_sum"
			continue
		case l.Name == "le":
			v.typ, v.Sample = entry.Histogram, f.metric+"_bucket"
		case l.Name == "quantile" && (l.Value == "sum" || l.Value == "count"):
			v.typ, v.Sample = entry.Summary, f.metric+"_"+l.Value
			continue
		case l.Name == "pid" && v.typ == entry.Untyped:
			v.typ, v.mode = entry.Gauge, entry.All
		}
		v.Labels = append(v.Labels, l)
	}
	if v.typ == entry.Untyped && strings.HasSuffix(f.metric, "_total") {
		v.typ = entry.Counter
	}
	if mapped {
		v.typ, _ = entry.ParseType(m.Type)
		v.Help = m.Help
		if v.typ == entry.Gauge {
			v.mode = entry.All
		}
		if mode, ok := directMode(m.Aggregation); ok {
			v.mode = mode
		}
	}
	return v
}

// declare makes sure that the family of v, which f has, is declared.
func (m *Merger) declare(f *file, v view) *family {
	name := declaredName(v)
	fam := m.families.declared[name]
	if fam == nil {
		fam = &family{name: name, typ: v.typ, mode: v.mode, help: v.Help, direct: f.metric != ""}
		m.families.declared[name] = fam
		if fam.direct && v.typ == entry.Untyped {
			m.log.Warn("a DirectFileStore's metric is in no map: its values are added up, without a type", "metric", clip(f.metric), "dir", f.source.Path)
		}
		return fam
	}
	if fam.typ != v.typ {
		m.clash(fam, ReasonTypeClash, f, fmt.Sprintf("%s, was %s first", v.typ, fam.typ))
	}
	if v.typ == entry.Gauge {
		m.declareMode(fam, f, v)
	}
	switch {
	case fam.help == "" && !fam.decided:
		fam.help = v.Help
	case v.Help != "" && v.Help != fam.help:
		m.clash(fam, ReasonHelpClash, f, "another help text")
	}
	return fam
}

// declareMode settles a gauge's mode: with Python the last file's, with Ruby the first's.
func (m *Merger) declareMode(fam *family, f *file, v view) {
	if v.mode&^1 != fam.mode&^1 {
		m.clash(fam, ReasonModeClash, f, fmt.Sprintf("mode %s, was %s first", v.mode, fam.mode))
	}
	if !fam.decided && v.Era != entry.EraR {
		fam.mode = v.mode
	}
}

// clash counts a disagreement about a family, and says it once.
func (m *Merger) clash(fam *family, r Reason, f *file, what string) {
	if fam.noted.has(r) {
		return
	}
	fam.noted.add(r)
	m.errors[r]++
	message := "metric files disagree about a family: the first one's word stays"
	if r == ReasonLabelClash {
		message = "a family has a label that its directory was given, too"
	}
	m.log.Warn(message, "reason", r.String(),
		"family", clip(fam.name), "dir", f.source.Path, "file", clip(f.base), "what", what)
}

// bind gives f the binding of its layout.
func (m *Merger) bind(f *file) {
	k := bindingKey{layout: f.layout, source: f.source, class: f.class()}
	if m.perProcess(f) {
		k.id = f.processID(f.layout.len() > 0 && f.layout.keys[0].Era == entry.EraR)
	}
	b := m.bindings[k]
	if b == nil {
		b = m.newBinding(f, k.id)
		m.bindings[k] = b
	}
	f.binding = b
}

// perProcess says whether an entry of f goes to a series of its process alone:
// it is a gauge's, and its family does not merge gauges into one.
func (m *Merger) perProcess(f *file) bool {
	if f.typ != entry.Gauge {
		return false
	}
	for _, k := range f.layout.keys {
		if k.err != nil {
			continue
		}
		fam := m.families.declared[k.Family]
		if fam == nil {
			continue // nothing of it could be used
		}
		if fam.typ != entry.Gauge || fam.mode.PerProcess() {
			return true
		}
	}
	return false
}

func (m *Merger) newBinding(f *file, id string) *binding {
	b := &binding{layout: f.layout, cells: make([]*cell, 0, f.layout.len())}
	if n := f.bound(); n > 0 {
		old := f.binding
		b.cells, b.faults, b.first = append(b.cells, old.cells[:n]...), old.faults, maps.Clone(old.first)
	}
	for i := len(b.cells); i < f.layout.len(); i++ {
		c, err := m.knownCell(f, f.layout.keys[i], id)
		if err != nil {
			b.fail(i, err)
			c = m.refused
		}
		b.cells = append(b.cells, c)
	}
	b.slots = make([]uint32, len(b.cells))
	for i, c := range b.cells {
		if i > 0 && c.op != b.cells[0].op {
			b.mixed = true
		}
	}
	if len(b.cells) > 0 {
		b.op = b.cells[0].op
	}
	return b
}

func (b *binding) fail(i int, err error) {
	r := reasonOf(err)
	if b.faults.has(r) {
		return
	}
	if b.first == nil {
		b.first = map[Reason]entryFault{}
	}
	b.faults.add(r)
	b.first[r] = entryFault{i, err}
}

// cellKey tells the cells of keys apart.
type cellKey struct {
	key    *key
	source *source
	class  fileClass
	id     string
}

// knownCell is cell, remembered until the next plan for entries that files have
// gained: most often many of them have gained the same.
func (m *Merger) knownCell(f *file, k *key, id string) (*cell, error) {
	if f.bound() == 0 {
		return m.cell(f, k, id)
	}
	at := cellKey{k, f.source, f.class(), id}
	if c := m.gained[at]; c != nil {
		return c, nil
	}
	c, err := m.cell(f, k, id)
	if err == nil {
		m.gained[at] = c
	}
	return c, err
}

// cell returns where the entry with the key k of the file f goes. id is the
// process's, where that matters. The error wraps one of package entry's, or is a Fault.
func (m *Merger) cell(f *file, k *key, id string) (*cell, error) {
	if k.err != nil {
		return nil, k.err
	}
	v := f.view(k)
	fam := m.families.declared[declaredName(v)]
	labels := m.labels(f, fam, v, id)
	p, bound := fam.partOf(v.Sample, labels)
	if p == partStray && !strings.HasPrefix(v.Sample, fam.name) {
		return nil, fmt.Errorf("sample %q in family %q: %w", clip(v.Sample), clip(fam.name), entry.ErrName)
	}
	le := ""
	if p == PartBucket {
		labels, le = without(labels, "le")
	}
	one, err := m.series(fam, v, p, labels)
	if err != nil {
		return nil, err
	}
	if p == PartBucket && len(one.buckets) >= maxBuckets {
		return nil, fault(ReasonMaxSeries, "histogram with more than %d buckets", maxBuckets)
	}
	if p == PartBucket {
		for _, declared := range f.source.Direct[f.metric].Buckets {
			one.bucket(declared, strconv.FormatFloat(declared, 'g', -1, 64)).fixed = true
		}
	}
	at := one.cell(p, bound, le, v.Cumulative())
	if *at == nil {
		c := &cell{op: fam.operation(v.Era == entry.EraR), counts: v.typ != entry.Gauge}
		c.rises = c.op == opSum && (v.typ == entry.Counter || v.typ != entry.Gauge && v.typ != entry.Untyped && !strings.HasSuffix(v.Sample, "_sum"))
		*at = c
	}
	return *at, nil
}

// maxBuckets is more than any histogram has.
const maxBuckets = 1000

// labels returns the labels of an entry's series: those of its key, the pid of
// a gauge that every process has, and the source's own.
func (m *Merger) labels(f *file, fam *family, v view, id string) []entry.Label {
	labels := v.Labels
	if f.typ == entry.Gauge && (fam.typ != entry.Gauge || fam.mode.PerProcess()) {
		labels = with(labels, entry.Label{Name: "pid", Value: id})
	} else if fam.typ == entry.Gauge && !fam.mode.PerProcess() && f.metric == "" {
		labels, _ = without(labels, "pid")
	}
	for _, constant := range f.source.labels {
		if slices.ContainsFunc(labels, func(l entry.Label) bool { return l.Name == constant.Name }) {
			m.clash(fam, ReasonLabelClash, f, "label "+constant.Name+": the series' own becomes exported_"+constant.Name)
			labels = renamed(labels, constant.Name, "exported_"+constant.Name)
		}
		labels = with(labels, constant)
	}
	return labels
}

// series returns the series that a sample of fam is of.
func (m *Merger) series(fam *family, v view, p Part, labels []entry.Label) (*series, error) {
	name, typ := fam.name, fam.typ
	switch p {
	case partStray:
		name, typ = v.Sample, entry.Untyped
	case PartValue:
		name = v.Sample
	}
	e := m.families.expose(fam, name, typ)
	if e == nil {
		return nil, fault(ReasonNameClash, "sample name %q is another family's", clip(v.Sample))
	}
	canonical := text(labels)
	if s, ok := e.series[canonical]; ok {
		return s, nil
	}
	if m.seriesCount >= m.limits.Series {
		return nil, fault(ReasonMaxSeries, "more than %d series", m.limits.Series)
	}
	m.seriesCount++
	return e.add(labels, canonical), nil
}

// cell returns where the series keeps the cell of a part.
func (s *series) cell(p Part, bound float64, le string, cumulative bool) **cell {
	switch p {
	case PartBucket:
		if cumulative {
			return &s.bucket(bound, le).total
		}
		s.bucket(math.Inf(1), "+Inf").fixed = true // where buckets stand for themselves there is a last one
		return &s.bucket(bound, le).single
	case PartBareBucket:
		return &s.bare
	case PartSum:
		return &s.sum
	case PartCount:
		return &s.count
	}
	return &s.value
}

// with returns labels with l in its place, instead of one of that name.
func with(labels []entry.Label, l entry.Label) []entry.Label {
	at, found := slices.BinarySearchFunc(labels, l, func(a, b entry.Label) int { return cmp.Compare(a.Name, b.Name) })
	out := make([]entry.Label, 0, len(labels)+1)
	out = append(append(out, labels[:at]...), l)
	if found {
		at++
	}
	return append(out, labels[at:]...)
}

// without returns labels without the one of that name, and its value.
func without(labels []entry.Label, name string) ([]entry.Label, string) {
	at := slices.IndexFunc(labels, func(l entry.Label) bool { return l.Name == name })
	if at < 0 {
		return labels, ""
	}
	return slices.Concat(labels[:at], labels[at+1:]), labels[at].Value
}

func renamed(labels []entry.Label, from, to string) []entry.Label {
	rest, value := without(labels, from)
	return with(rest, entry.Label{Name: to, Value: value})
}
