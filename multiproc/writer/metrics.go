package writer

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Counter counts up. Its methods are safe for concurrent use, make no system
// call and allocate nothing.
type Counter struct{ cell cell }

// NewCounter registers a counter, whose name ends in _total, or returns the one
// that was registered. It panics when the name or a label is not valid, or was
// registered otherwise.
func (w *Writer) NewCounter(o Opts) *Counter {
	return w.register(o, "counter", nil, nil, func(f *family) any { return newCounter(f, nil) }).(*Counter)
}

func newCounter(f *family, values []string) *Counter {
	return &Counter{f.cells(sample{f.name, f.labelled(values)})[0]}
}

// Inc adds 1.
func (c *Counter) Inc() { c.cell.inc() }

// Add adds v. It panics when v is negative or not a number.
func (c *Counter) Add(v float64) {
	if !(v >= 0) {
		panic("a counter cannot go down: " + strconv.FormatFloat(v, 'g', -1, 64))
	}
	c.cell.add(v)
}

// Value returns what this process, and those whose file it continued, have counted.
func (c *Counter) Value() float64 { return c.cell.load() }

// Mode says how the gauges of several processes become one.
type Mode string

// The modes, by client_python's names. A process lives until its writer is closed, or
// [MarkProcessDead] says that it does not.
const (
	ModeAll            Mode = "all"            // a series for each process, with its id as the label pid
	ModeLiveAll        Mode = "liveall"        // the same, of living processes
	ModeMin            Mode = "min"            // the least
	ModeLiveMin        Mode = "livemin"        // the least of living processes
	ModeMax            Mode = "max"            // the greatest
	ModeLiveMax        Mode = "livemax"        // the greatest of living processes
	ModeSum            Mode = "sum"            // all together
	ModeLiveSum        Mode = "livesum"        // living processes together
	ModeMostRecent     Mode = "mostrecent"     // the one that was set last
	ModeLiveMostRecent Mode = "livemostrecent" // the one of a living process that was set last
)

// valid says whether m is one of the modes.
func (m Mode) valid() bool {
	return slices.Contains([]Mode{
		ModeAll, ModeLiveAll, ModeMin, ModeLiveMin, ModeMax, ModeLiveMax, ModeSum, ModeLiveSum, ModeMostRecent, ModeLiveMostRecent,
	}, m)
}

func (m Mode) stamped() bool { return m == ModeMostRecent || m == ModeLiveMostRecent }

// GaugeOpts describe a gauge.
type GaugeOpts struct {
	Opts
	Mode Mode // empty: ModeAll
}

func (o GaugeOpts) kind() string {
	if o.Mode == "" {
		o.Mode = ModeAll
	}
	if !o.Mode.valid() {
		panic(fmt.Sprintf("register metric %q: unknown mode %q: want one of the constants, such as livesum", o.name(), o.Mode))
	}
	return "gauge_" + string(o.Mode)
}

// Gauge goes up and down. Its methods are safe for concurrent use, make no
// system call and allocate nothing. In the most recent modes they take the time
// as well.
type Gauge struct {
	cell    cell
	stamped bool
}

// NewGauge registers a gauge, as NewCounter does.
func (w *Writer) NewGauge(o GaugeOpts) *Gauge {
	build := gauges(o.Mode)
	return w.register(o.Opts, o.kind(), nil, nil, func(f *family) any { return build(f, nil) }).(*Gauge)
}

func gauges(m Mode) func(f *family, values []string) *Gauge {
	return func(f *family, values []string) *Gauge {
		return &Gauge{f.cells(sample{f.name, f.labelled(values)})[0], m.stamped()}
	}
}

// Set sets the gauge to v.
func (g *Gauge) Set(v float64) {
	g.cell.set(v)
	if g.stamped {
		g.now()
	}
}

// Add adds v, which may be negative.
func (g *Gauge) Add(v float64) {
	g.cell.add(v)
	if g.stamped {
		g.now()
	}
}

// Inc adds 1.
func (g *Gauge) Inc() { g.Add(1) }

// Dec takes 1.
func (g *Gauge) Dec() { g.Add(-1) }

// Sub takes v.
func (g *Gauge) Sub(v float64) { g.Add(-v) }

// SetToCurrentTime sets the gauge to the present time in seconds since the epoch.
func (g *Gauge) SetToCurrentTime() { g.Set(unixNow()) }

// Value returns what the gauge is in this process.
func (g *Gauge) Value() float64 { return g.cell.load() }

func (g *Gauge) now() { g.cell.setStamp(unixNow()) }

func unixNow() float64 { return float64(time.Now().UnixNano()) / 1e9 }

// DefBuckets are the bounds of a histogram that names none: client_python's, for seconds.
func DefBuckets() []float64 {
	return []float64{.005, .01, .025, .05, .075, .1, .25, .5, .75, 1, 2.5, 5, 7.5, 10}
}

// LinearBuckets returns count bounds, the first one start, each width above the one before.
func LinearBuckets(start, width float64, count int) []float64 {
	bounds := make([]float64, count)
	for i := range bounds {
		bounds[i] = start + float64(i)*width
	}
	return bounds
}

// ExponentialBuckets returns count bounds, the first one start, each factor times the one before.
func ExponentialBuckets(start, factor float64, count int) []float64 {
	bounds := make([]float64, count)
	for i := range bounds {
		bounds[i] = start
		start *= factor
	}
	return bounds
}

// HistogramOpts describe a histogram.
type HistogramOpts struct {
	Opts
	Buckets []float64 // upper bounds, ascending; +Inf is added; nil: DefBuckets
}

// bounds returns the bounds with the last one, +Inf.
func (o HistogramOpts) bounds() []float64 {
	bounds := slices.Clone(o.Buckets)
	if len(bounds) == 0 {
		bounds = DefBuckets()
	}
	for i, b := range bounds {
		if math.IsNaN(b) || i > 0 && b <= bounds[i-1] {
			panic(fmt.Sprintf("register metric %q: buckets %v: want ascending bounds", o.name(), o.Buckets))
		}
	}
	if !math.IsInf(bounds[len(bounds)-1], 1) {
		bounds = append(bounds, math.Inf(1))
	}
	return bounds
}

// Histogram counts observations in buckets, and adds them up. Its methods are
// safe for concurrent use, make no system call and allocate nothing.
type Histogram struct {
	bounds []float64
	counts []cell
	sum    cell
}

// NewHistogram registers a histogram, as NewCounter does.
func (w *Writer) NewHistogram(o HistogramOpts) *Histogram {
	return w.register(o.Opts, "histogram", nil, o.bounds(), func(f *family) any { return newHistogram(f, nil) }).(*Histogram)
}

func newHistogram(f *family, values []string) *Histogram {
	labels := f.labelled(values)
	samples := []sample{{f.name + "_sum", labels}}
	for _, b := range f.buckets {
		samples = append(samples, sample{f.name + "_bucket", append(slices.Clone(labels), label{"le", BoundText(b)})})
	}
	cells := f.cells(samples...)
	return &Histogram{bounds: f.buckets[:len(f.buckets)-1], sum: cells[0], counts: cells[1:]}
}

// BoundText returns the bound of a bucket as client_python after 0.25 writes it: 1 is
// "1.0", and from seven digits on there is an exponent. (0.25 and before: 1e10 is
// "1e+010".)
func BoundText(b float64) string {
	if math.IsInf(b, 1) {
		return "+Inf"
	}
	if abs := math.Abs(b); abs != 0 && (abs < 1e-4 || abs >= 1e16) {
		return strconv.FormatFloat(b, 'e', -1, 64)
	}
	s := strconv.FormatFloat(b, 'f', -1, 64)
	if !strings.Contains(s, ".") {
		s += ".0"
	}
	dot := strings.IndexByte(s, '.')
	if b < 0 || dot <= 6 {
		return s
	}
	return strings.TrimRight(s[:1]+"."+s[1:dot]+s[dot+1:], "0.") + fmt.Sprintf("e+%02d", dot-1)
}

// Observe counts v. What is not a number adds to the sum only, as in client_python.
func (h *Histogram) Observe(v float64) {
	h.sum.add(v)
	if i := h.bucket(v); i >= 0 {
		h.counts[i].inc()
	}
}

// linear is up to how many bounds are faster to go through than to bisect.
const linear = 16

func (h *Histogram) bucket(v float64) int {
	if v != v {
		return -1
	}
	if len(h.bounds) > linear {
		at, _ := slices.BinarySearch(h.bounds, v)
		return at
	}
	for i, b := range h.bounds {
		if v <= b {
			return i
		}
	}
	return len(h.bounds)
}

// Summary counts observations and adds them up; it has no quantiles, for those
// of several processes do not become one.
type Summary struct{ count, sum cell }

// NewSummary registers a summary, as NewCounter does.
func (w *Writer) NewSummary(o Opts) *Summary {
	return w.register(o, "summary", nil, nil, func(f *family) any { return newSummary(f, nil) }).(*Summary)
}

func newSummary(f *family, values []string) *Summary {
	labels := f.labelled(values)
	cells := f.cells(sample{f.name + "_count", labels}, sample{f.name + "_sum", labels})
	return &Summary{cells[0], cells[1]}
}

// Observe counts v.
func (s *Summary) Observe(v float64) {
	s.count.inc()
	s.sum.add(v)
}
