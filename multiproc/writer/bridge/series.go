package bridge

import (
	"maps"
	"math"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	dto "github.com/prometheus/client_model/go"

	"github.com/prefork-exporter/prefork_exporter/multiproc/writer"
)

// family is a family as it was gathered first.
type family struct {
	name, help string
	typ        dto.MetricType
	stem       string             // what its file calls it
	kind       string             // of its file; empty: nothing of it is carried
	series     map[string]*series // by labels
	told       losses
}

// stemOf returns the name as client_python has it: of a counter without _total.
func stemOf(name string, typ dto.MetricType) string {
	if stem := strings.TrimSuffix(name, "_total"); typ == dto.MetricType_COUNTER && stem != "" {
		return stem
	}
	return name
}

// file returns the kind of the family's file, or why there is none.
func (f *family) file(mode func(name string) writer.Mode) (kind string, lost losses) {
	switch {
	case strings.HasPrefix(f.name, "process_network_"):
		return "", lostHost
	case f.name == "":
		return "", lostName
	case !utf8.ValidString(f.name) || !utf8.ValidString(f.help):
		return "", lostUTF8
	}
	switch f.typ {
	case dto.MetricType_COUNTER:
		return "counter", 0
	case dto.MetricType_HISTOGRAM:
		return "histogram", 0
	case dto.MetricType_SUMMARY:
		return "summary", 0
	case dto.MetricType_GAUGE:
		m := mode(f.name)
		if m == "" {
			m = writer.ModeLiveAll
		}
		return "gauge_" + string(m), 0
	}
	return "", lostUntyped
}

// refuses returns why a series with those labels, which are sorted, cannot be carried.
func (f *family) refuses(labels []*dto.LabelPair) (lost losses) {
	reserved := map[dto.MetricType]string{
		dto.MetricType_GAUGE: "pid", dto.MetricType_HISTOGRAM: "le", dto.MetricType_SUMMARY: "quantile",
	}[f.typ]
	for i, l := range labels {
		name := l.GetName()
		lost |= lostName.when(name == "")
		lost |= lostUTF8.when(!utf8.ValidString(name) || !utf8.ValidString(l.GetValue()))
		lost |= lostLabel.when(name == reserved && name != "")
		lost |= lostLabelTwice.when(i > 0 && name == labels[i-1].GetName())
	}
	return lost
}

// series is one label set of a family.
type series struct {
	carrier carrier // nil: it is refused
	round   uint64  // the last write that had it
}

// carrier writes one series, as it was at that time, and says what of it is lost.
type carrier interface {
	carry(m *dto.Metric, at time.Time) losses
}

func newCarrier(p place) carrier {
	switch p.family.typ {
	case dto.MetricType_COUNTER:
		return &counter{part: newPart(p.sample(""))}
	case dto.MetricType_GAUGE:
		return newGauge(p.sample(""))
	case dto.MetricType_SUMMARY:
		return &summary{count: newPart(p.sample("_count")), sum: newPart(p.sample("_sum"))}
	default:
		return &histogram{place: p}
	}
}

// place is where the samples of a series are.
type place struct {
	w      *writer.Writer
	family *family
	labels writer.Labels
}

func (p place) sample(suffix string) *writer.Sample {
	f := p.family
	return p.w.Sample(writer.SampleOpts{Kind: f.kind, Family: f.stem, Name: f.name + suffix, Labels: p.labels, Help: f.help})
}

func (p place) bucket(bound float64) *writer.Sample {
	p.labels = maps.Clone(p.labels)
	p.labels["le"] = writer.BoundText(bound)
	return p.sample("_bucket")
}

// part is a number that rises from zero for as long as its metric lives. Its sample
// goes on from what earlier lives have written, in this process or another.
type part struct {
	sample     *writer.Sample
	base, last float64
}

func newPart(s *writer.Sample) part { return part{sample: s, base: s.Value()} }

// restart begins another life.
func (p *part) restart() { p.base, p.last = p.base+p.last, 0 }

func (p *part) set(v float64) {
	if math.Float64bits(v) != math.Float64bits(p.last) {
		p.last = v
		p.sample.Set(p.base + v)
	}
}

// life tells the lives of a metric apart by when they were created: one that began
// after the last write may have overtaken the one before it.
type life struct {
	created time.Time // the epoch where nobody says
	steady  bool      // created was the same twice: it is no clock
	seen    time.Time
}

// over says whether a metric that was created then is another than the last one seen.
func (l *life) over(created, at time.Time) bool {
	other := l.steady && created.After(l.seen)
	l.steady = created.Equal(l.created)
	l.created, l.seen = created, at
	return other
}

type counter struct {
	part
	life life
}

func (c *counter) carry(m *dto.Metric, at time.Time) losses {
	in := m.GetCounter()
	v := in.GetValue()
	switch {
	case in == nil:
		return lostShape
	case !(v >= 0):
		return lostNegative
	}
	if c.life.over(in.CreatedTimestamp.AsTime(), at) || v < c.last {
		c.restart()
	}
	c.set(v)
	return lostExemplar.when(in.Exemplar != nil) | lostCreated.when(in.CreatedTimestamp != nil)
}

// gauge sets its sample when it has changed: the most recent modes take that time.
type gauge struct {
	sample *writer.Sample
	last   uint64 // bits
}

func newGauge(s *writer.Sample) *gauge { return &gauge{s, math.Float64bits(s.Value())} }

func (g *gauge) carry(m *dto.Metric, _ time.Time) losses {
	in := m.GetGauge()
	if in == nil {
		return lostShape
	}
	if bits := math.Float64bits(in.GetValue()); bits != g.last {
		g.last = bits
		g.sample.Set(in.GetValue())
	}
	return 0
}

type summary struct {
	count, sum part
	life       life
}

func (s *summary) carry(m *dto.Metric, at time.Time) losses {
	in := m.GetSummary()
	if in == nil {
		return lostShape
	}
	count := float64(in.GetSampleCount())
	if s.life.over(in.CreatedTimestamp.AsTime(), at) || count < s.count.last {
		s.count.restart()
		s.sum.restart() // which alone may fall: observations can be negative
	}
	s.count.set(count)
	s.sum.set(in.GetSampleSum())
	return lostQuantile.when(len(in.Quantile) > 0) | lostCreated.when(in.CreatedTimestamp != nil)
}

// histogram writes what is in each bucket alone, as client_python does.
type histogram struct {
	place   place
	life    life
	sum     part
	bounds  []float64 // of this life, +Inf last; none: nothing was classic so far
	buckets []part    // of these bounds

	seen, counts []float64 // bounds and what they have alone, as gathered last
}

func (h *histogram) carry(m *dto.Metric, at time.Time) losses {
	in := m.GetHistogram()
	if in == nil {
		return lostShape
	}
	native := in.Schema != nil
	lost := lostNative.when(native) | lostExemplar.when(len(in.Exemplars) > 0) | lostCreated.when(in.CreatedTimestamp != nil)
	if native && len(in.Bucket) == 0 {
		return lost
	}
	lost |= lostExemplar.when(slices.ContainsFunc(in.Bucket, func(b *dto.Bucket) bool { return b.GetExemplar() != nil }))
	if !h.read(in) {
		return lost | lostBuckets
	}
	h.follow(h.life.over(in.CreatedTimestamp.AsTime(), at))
	h.sum.set(in.GetSampleSum())
	for i := range h.buckets {
		h.buckets[i].set(h.counts[i])
	}
	return lost
}

// read takes the buckets apart. It says whether bounds and counts ascend.
func (h *histogram) read(in *dto.Histogram) bool {
	h.seen, h.counts = h.seen[:0], h.counts[:0]
	below := 0.0
	add := func(bound, total float64) bool {
		ascends := total >= below && (len(h.seen) == 0 || bound > h.seen[len(h.seen)-1])
		h.seen, h.counts = append(h.seen, bound), append(h.counts, total-below)
		below = total
		return ascends && !math.IsNaN(bound)
	}
	for _, b := range in.GetBucket() {
		bound := b.GetUpperBound()
		if math.IsInf(bound, 1) {
			continue // as the count, which says the same
		}
		if !add(bound, either(b.GetCumulativeCountFloat(), b.GetCumulativeCount())) {
			return false
		}
	}
	return add(math.Inf(1), either(in.GetSampleCountFloat(), in.GetSampleCount()))
}

// either returns the count of a histogram: one of floats has the first.
func either(float float64, integer uint64) float64 {
	if float > 0 {
		return float
	}
	return float64(integer)
}

// follow begins another life where this one is over, which buckets that are others,
// or have fallen, show as well.
func (h *histogram) follow(over bool) {
	switch {
	case !slices.Equal(h.seen, h.bounds):
		h.begin()
	case over || h.fell():
		h.sum.restart()
		for i := range h.buckets {
			h.buckets[i].restart()
		}
	}
}

// fell says whether a bucket has less than before. One that has, though its total
// has not, began anew as well: alone, buckets only rise.
func (h *histogram) fell() bool {
	for i, p := range h.buckets {
		if h.counts[i] < p.last {
			return true
		}
	}
	return false
}

// begin takes over the bounds that were read. Samples that were there go on.
func (h *histogram) begin() {
	h.sum = newPart(h.place.sample("_sum")) // before the buckets, as client_python has it
	h.bounds, h.buckets = slices.Clone(h.seen), nil
	for _, b := range h.bounds {
		h.buckets = append(h.buckets, newPart(h.place.bucket(b)))
	}
}
