package multiproc

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/prefork-exporter/prefork_exporter/multiproc/internal/entry"
)

// op is how the values of several entries become one.
type op uint8

const (
	opSum    op = iota
	opMin       // Python's: the first value stays unless another is less, so NaN stays
	opMax       // likewise
	opFmin      // Ruby's: NaN loses
	opFmax      // likewise
	opLast      // the last file's
	opRecent    // the one with the newest time stamp; none if nobody has one
)

// cell is where the values of one series' entries come together.
type cell struct {
	op      op
	rises   bool // a fall is a process's counter that began anew
	counts  bool // it is no gauge: what it had stays when its file goes
	slot    uint32
	epoch   uint64 // the last plan that had it
	refused bool   // its samples are left out
}

// family is a family as the files declare it: type, mode and help are those of
// the first file that had it, and stay for as long as any file has it.
type family struct {
	name    string // of a counter without _total
	typ     entry.Type
	mode    entry.Mode
	help    string
	decided bool // the plan that found it is done
	direct  bool // of a DirectFileStore: any type has an aggregation
	noted   reasonSet
}

// exposed is a family as it is shown: samples that do not fit the declared
// family are an untyped one of their own.
type exposed struct {
	name   string // as text format 0.0.4 has it: of a counter with _total
	typ    entry.Type
	from   *family
	series map[string]*series // by canonical labels
	sorted []*series
	fresh  []*series // not in sorted yet
}

// series is one label set of an exposed family.
type series struct {
	labels  []entry.Label // sorted by name
	text    string        // canonical labels
	value   *cell         // of a counter, a gauge or an untyped sample
	buckets []bucket      // of a histogram, ascending
	bare    *cell         // of a histogram: a bucket whose le is no number, or missing
	sum     *cell         // of a histogram or summary
	count   *cell         // the stored count, if any
	epoch   uint64
	last    []float64 // what the last snapshot showed, one for each sample
}

// bucket is one bound of a histogram. Its count is what Python's processes have
// in it and in those below it, and what Ruby's have up to it.
type bucket struct {
	bound  float64
	text   string // le as the first file had it
	fixed  bool   // declared, also when nobody has hit it
	single *cell
	total  *cell
}

// families is all that is merged.
type families struct {
	declared map[string]*family
	exposed  map[string]*exposed
	claims   map[string]*exposed // by sample name
	sorted   []*exposed
}

func newFamilies() *families {
	return &families{declared: map[string]*family{}, exposed: map[string]*exposed{}, claims: map[string]*exposed{}}
}

// declaredName returns the name that the family of v goes by, whatever client
// wrote it: Python's later eras leave _total off a counter, the others do not. In
// such an era a family with _total is a counter beside a family that is called as
// it is without, which client_golang allows.
func declaredName(v view) string {
	stem := strings.TrimSuffix(v.Family, "_total")
	switch {
	case v.typ != entry.Counter || stem == "":
		return v.Family
	case v.Family == v.Sample && (v.Era == entry.EraB || v.Era == entry.EraC || v.Era == entry.EraD):
		return v.Family
	}
	return stem
}

// operation returns how a family merges, by the rules of its type and mode.
func (f *family) operation(ruby bool) op {
	if f.typ != entry.Gauge && !f.direct {
		return opSum
	}
	switch f.mode {
	case entry.Min, entry.LiveMin:
		if ruby {
			return opFmin
		}
		return opMin
	case entry.Max, entry.LiveMax:
		if ruby {
			return opFmax
		}
		return opMax
	case entry.Sum, entry.LiveSum:
		return opSum
	case entry.MostRecent, entry.LiveMostRecent:
		return opRecent
	}
	return opLast
}

// text returns the canonical text of labels, which orders and identifies them.
// A zero byte ends a name or a value; 0xff, which is in no UTF-8 text, tells one
// that is part of it.
func text(labels []entry.Label) string {
	size := 0
	for _, l := range labels {
		size += len(l.Name) + len(l.Value) + 2
	}
	b := make([]byte, 0, size)
	for _, l := range labels {
		for _, s := range [...]string{l.Name, l.Value} {
			if strings.IndexByte(s, 0) >= 0 {
				s = strings.ReplaceAll(s, "\x00", "\x00\xff")
			}
			b = append(append(b, s...), 0)
		}
	}
	return string(b)
}

// partStray is a sample that does not fit the type of its family.
const partStray = PartBareBucket + 1

// partOf tells what the sample is of f, and a bucket's bound.
func (f *family) partOf(sample string, labels []entry.Label) (Part, float64) {
	suffix, ok := strings.CutPrefix(sample, f.name)
	if !ok {
		return partStray, 0
	}
	switch {
	case suffix == "" && (f.typ == entry.Gauge || f.typ == entry.Counter || f.typ == entry.Untyped),
		suffix == "_total" && f.typ == entry.Counter:
		return PartValue, 0
	case suffix == "_sum" && (f.typ == entry.Histogram || f.typ == entry.Summary):
		return PartSum, 0
	case suffix == "_count" && (f.typ == entry.Histogram || f.typ == entry.Summary):
		return PartCount, 0
	case suffix == "_bucket" && f.typ == entry.Histogram:
		if i := slices.IndexFunc(labels, func(l entry.Label) bool { return l.Name == "le" }); i >= 0 {
			if bound, err := strconv.ParseFloat(labels[i].Value, 64); err == nil && !math.IsNaN(bound) {
				return PartBucket, bound
			}
		}
		return PartBareBucket, 0
	}
	return partStray, 0
}

// names returns the sample names that an exposed family has.
func (e *exposed) names() []string {
	switch e.typ {
	case entry.Histogram:
		return []string{e.name, e.name + "_bucket", e.name + "_sum", e.name + "_count"}
	case entry.Summary:
		return []string{e.name, e.name + "_sum", e.name + "_count"}
	}
	return []string{e.name}
}

// expose returns the exposed family of that name, or nil when another family
// has a sample of that name.
func (fs *families) expose(from *family, name string, typ entry.Type) *exposed {
	if e, ok := fs.exposed[name]; ok {
		if e.from == from && e.typ == typ {
			return e
		}
		return nil
	}
	e := &exposed{name: name, typ: typ, from: from, series: map[string]*series{}}
	for _, n := range e.names() {
		if fs.claims[n] != nil {
			return nil
		}
	}
	for _, n := range e.names() {
		fs.claims[n] = e
	}
	fs.exposed[name] = e
	at, _ := slices.BinarySearchFunc(fs.sorted, name, func(e *exposed, name string) int { return cmp.Compare(e.name, name) })
	fs.sorted = slices.Insert(fs.sorted, at, e)
	return e
}

// add adds a series.
func (e *exposed) add(labels []entry.Label, canonical string) *series {
	s := &series{labels: labels, text: canonical}
	e.series[canonical] = s
	e.fresh = append(e.fresh, s)
	return s
}

// bucket returns the bucket of that bound, made when it is new.
func (s *series) bucket(bound float64, le string) *bucket {
	at, found := slices.BinarySearchFunc(s.buckets, bound, func(b bucket, bound float64) int { return cmp.Compare(b.bound, bound) })
	if !found {
		s.buckets = slices.Insert(s.buckets, at, bucket{bound: bound, text: le})
		s.last = nil
	}
	return &s.buckets[at]
}

// forget drops what no plan since epoch had.
func (fs *families) forget(epoch uint64) {
	alive := make(map[*family]bool, len(fs.declared))
	fs.sorted = slices.DeleteFunc(fs.sorted, func(e *exposed) bool {
		e.forget(epoch)
		if len(e.sorted) > 0 {
			alive[e.from] = true
			return false
		}
		delete(fs.exposed, e.name)
		for _, n := range e.names() {
			delete(fs.claims, n)
		}
		return true
	})
	maps.DeleteFunc(fs.declared, func(_ string, f *family) bool { return !alive[f] })
}

// forget drops the series that no plan since epoch had, and puts the new ones
// in their place.
func (e *exposed) forget(epoch uint64) {
	gone := func(s *series) bool {
		s.mark(epoch)
		if s.epoch != epoch {
			delete(e.series, s.text)
			return true
		}
		return false
	}
	e.sorted = slices.DeleteFunc(e.sorted, gone)
	if len(e.fresh) == 0 {
		return
	}
	fresh := slices.DeleteFunc(e.fresh, gone)
	byText := func(a, b *series) int { return cmp.Compare(a.text, b.text) }
	slices.SortFunc(fresh, byText)
	e.sorted, e.fresh = mergeSorted(e.sorted, fresh, byText), nil
}

// mark gives s the epoch when a cell of it has it, and drops the cells that have not.
func (s *series) mark(epoch uint64) {
	live := func(c *cell) *cell {
		if c == nil || c.epoch != epoch {
			return nil
		}
		s.epoch = epoch
		return c
	}
	s.value, s.bare, s.sum, s.count = live(s.value), live(s.bare), live(s.sum), live(s.count)
	before := len(s.buckets)
	kept := s.buckets[:0]
	for _, b := range s.buckets {
		b.single, b.total = live(b.single), live(b.total)
		if b.single != nil || b.total != nil || b.fixed {
			kept = append(kept, b)
		}
	}
	if s.buckets = kept; len(kept) != before {
		s.last = nil
	}
}

// mergeSorted merges two sorted lists into one.
func mergeSorted[T any](a, b []T, order func(a, b T) int) []T {
	if len(a) == 0 {
		return b
	}
	if len(b) == 0 {
		return a
	}
	out := make([]T, 0, len(a)+len(b))
	for len(a) > 0 && len(b) > 0 {
		if order(a[0], b[0]) <= 0 {
			out, a = append(out, a[0]), a[1:]
		} else {
			out, b = append(out, b[0]), b[1:]
		}
	}
	return append(append(out, a...), b...)
}
