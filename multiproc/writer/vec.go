package writer

import (
	"errors"
	"fmt"
	"hash/maphash"
	"slices"
	"sync"
)

// vec is a metric with labels: one child for each combination of their values.
type vec[M any] struct {
	*children[M]
	fixed []fixed // by label: what CurryWith gave
}

// fixed is the value of a curried label.
type fixed struct {
	value string
	given bool
}

// children are the children of a vector, which those curried from it share.
type children[M any] struct {
	family *family
	build  func(f *family, values []string) *M
	seed   maphash.Seed

	mu     sync.RWMutex
	byHash map[uint64][]child[M]
}

type child[M any] struct {
	values []string
	metric *M
}

func newVec[M any](f *family, build func(f *family, values []string) *M) vec[M] {
	return vec[M]{
		&children[M]{family: f, build: build, seed: maphash.MakeSeed(), byHash: map[uint64][]child[M]{}},
		make([]fixed, len(f.labels)),
	}
}

// WithLabelValues returns the child with those values, in the order of the
// labels that are not curried. It is made when it is new, and stays. A wrong
// number of values is a bug of the caller, and a panic. A lookup allocates
// nothing; to keep the child is faster still.
func (v vec[M]) WithLabelValues(values ...string) *M {
	if len(values) != v.free() {
		panic(v.wrongValues(values))
	}
	return v.child(values)
}

// GetMetricWithLabelValues is WithLabelValues with an error in the place of a panic.
func (v vec[M]) GetMetricWithLabelValues(values ...string) (*M, error) {
	if len(values) != v.free() {
		return nil, v.wrongValues(values)
	}
	return v.child(values), nil
}

// With is WithLabelValues by label name. A label too many or too few is a panic.
func (v vec[M]) With(labels Labels) *M {
	m, err := v.GetMetricWith(labels)
	if err != nil {
		panic(err)
	}
	return m
}

// GetMetricWith is With with an error in the place of a panic.
func (v vec[M]) GetMetricWith(labels Labels) (*M, error) {
	values := make([]string, 0, len(labels))
	for i, name := range v.family.labels {
		if value, ok := labels[name]; ok && !v.fixed[i].given {
			values = append(values, value)
		}
	}
	if len(values) != len(labels) || len(values) != v.free() {
		return nil, fmt.Errorf("metric %q: labels %v, want %q", v.family.name, labels, v.family.labels)
	}
	return v.child(values), nil
}

func (v vec[M]) wrongValues(values []string) error {
	return fmt.Errorf("metric %q: %d label values, want %d", v.family.name, len(values), v.free())
}

// child returns the child with those values, made when it is new.
func (v vec[M]) child(values []string) *M {
	hash := v.hash(values)
	v.mu.RLock()
	m := v.find(hash, values)
	v.mu.RUnlock()
	if m == nil {
		m = v.add(hash, values)
	}
	return m
}

// errDelete says why no series can go.
var errDelete = errors.New("a metric file has no place for the end of a series: what was counted stays")

// Delete is refused, always with the same error: a metric file has no place for the
// end of a series.
func (v vec[M]) Delete(Labels) error {
	return fmt.Errorf("delete series of metric %q: %w", v.family.name, errDelete)
}

// curry returns v with more labels fixed.
func (v vec[M]) curry(labels Labels) (vec[M], error) {
	out := vec[M]{v.children, slices.Clone(v.fixed)}
	for name, value := range labels {
		i := slices.Index(v.family.labels, name)
		if i < 0 || out.fixed[i].given {
			return v, fmt.Errorf("curry metric %q: label %q: want one of %q that is not curried yet", v.family.name, name, v.family.labels)
		}
		out.fixed[i] = fixed{value, true}
	}
	return out, nil
}

// free counts the labels that are not curried.
func (v vec[M]) free() int {
	n := 0
	for i := range v.fixed {
		if !v.fixed[i].given {
			n++
		}
	}
	return n
}

func (v vec[M]) hash(values []string) uint64 {
	const odd = 0x9e3779b97f4a7c15
	h, next := uint64(0), 0
	for i := range v.fixed {
		value := v.fixed[i].value
		if !v.fixed[i].given {
			value = values[next]
			next++
		}
		h = (h ^ maphash.String(v.seed, value)) * odd
	}
	return h
}

// find returns the child with those values, or nil.
func (v vec[M]) find(hash uint64, values []string) *M {
	for _, c := range v.byHash[hash] {
		if v.match(c.values, values) {
			return c.metric
		}
	}
	return nil
}

// match says whether all are the values of the free labels, and those that are curried.
func (v vec[M]) match(all, values []string) bool {
	next := 0
	for i := range v.fixed {
		value := v.fixed[i].value
		if !v.fixed[i].given {
			value = values[next]
			next++
		}
		if all[i] != value {
			return false
		}
	}
	return true
}

// add makes the child. It is built without the lock, for a disk or who is told of an
// error may take long: whoever else builds it gets the same cells.
func (v vec[M]) add(hash uint64, values []string) *M {
	all, next := make([]string, len(v.fixed)), 0
	for i := range all {
		if all[i] = v.fixed[i].value; !v.fixed[i].given {
			all[i] = values[next]
			next++
		}
	}
	m := v.build(v.family, all)
	v.mu.Lock()
	defer v.mu.Unlock()
	if other := v.find(hash, values); other != nil {
		return other
	}
	v.byHash[hash] = append(v.byHash[hash], child[M]{all, m})
	return m
}

func must[V any](v V, err error) V {
	if err != nil {
		panic(err)
	}
	return v
}

// listed tells a vector without labels from what is none.
func listed(labels []string) []string { return append([]string{}, labels...) }

// CounterVec is a counter with labels.
type CounterVec struct{ vec[Counter] }

// NewCounterVec registers a counter with labels, as [Writer.NewCounter] does.
func (w *Writer) NewCounterVec(o Opts, labels []string) *CounterVec {
	return w.register(o, "counter", listed(labels), nil, func(f *family) any { return &CounterVec{newVec(f, newCounter)} }).(*CounterVec)
}

// CurryWith returns the vector with the values of some labels given. The error
// names a label that it does not have, or has given already.
func (v *CounterVec) CurryWith(labels Labels) (*CounterVec, error) {
	c, err := v.curry(labels)
	return &CounterVec{c}, err
}

// MustCurryWith is CurryWith with a panic in the place of an error.
func (v *CounterVec) MustCurryWith(labels Labels) *CounterVec { return must(v.CurryWith(labels)) }

// GaugeVec is a gauge with labels.
type GaugeVec struct{ vec[Gauge] }

// NewGaugeVec registers a gauge with labels, as [Writer.NewGauge] does.
func (w *Writer) NewGaugeVec(o GaugeOpts, labels []string) *GaugeVec {
	build := gauges(o.Mode)
	return w.register(o.Opts, o.kind(), listed(labels), nil, func(f *family) any { return &GaugeVec{newVec(f, build)} }).(*GaugeVec)
}

// CurryWith is that of [CounterVec].
func (v *GaugeVec) CurryWith(labels Labels) (*GaugeVec, error) {
	c, err := v.curry(labels)
	return &GaugeVec{c}, err
}

// MustCurryWith is CurryWith with a panic in the place of an error.
func (v *GaugeVec) MustCurryWith(labels Labels) *GaugeVec { return must(v.CurryWith(labels)) }

// HistogramVec is a histogram with labels.
type HistogramVec struct{ vec[Histogram] }

// NewHistogramVec registers a histogram with labels, as [Writer.NewHistogram] does.
func (w *Writer) NewHistogramVec(o HistogramOpts, labels []string) *HistogramVec {
	return w.register(o.Opts, "histogram", listed(labels), o.bounds(), func(f *family) any { return &HistogramVec{newVec(f, newHistogram)} }).(*HistogramVec)
}

// CurryWith is that of [CounterVec].
func (v *HistogramVec) CurryWith(labels Labels) (*HistogramVec, error) {
	c, err := v.curry(labels)
	return &HistogramVec{c}, err
}

// MustCurryWith is CurryWith with a panic in the place of an error.
func (v *HistogramVec) MustCurryWith(labels Labels) *HistogramVec { return must(v.CurryWith(labels)) }

// SummaryVec is a summary with labels.
type SummaryVec struct{ vec[Summary] }

// NewSummaryVec registers a summary with labels, as [Writer.NewSummary] does.
func (w *Writer) NewSummaryVec(o Opts, labels []string) *SummaryVec {
	return w.register(o, "summary", listed(labels), nil, func(f *family) any { return &SummaryVec{newVec(f, newSummary)} }).(*SummaryVec)
}

// CurryWith is that of [CounterVec].
func (v *SummaryVec) CurryWith(labels Labels) (*SummaryVec, error) {
	c, err := v.curry(labels)
	return &SummaryVec{c}, err
}

// MustCurryWith is CurryWith with a panic in the place of an error.
func (v *SummaryVec) MustCurryWith(labels Labels) *SummaryVec { return must(v.CurryWith(labels)) }
