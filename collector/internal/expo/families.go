package expo

import (
	"math"
	"strconv"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/model"

	"github.com/prefork-exporter/prefork_exporter/multiproc"
)

// Families returns the snapshot as metric families, sorted as it is, with their
// names escaped, and how many samples that form cannot hold: a histogram's label
// set without buckets or without a last one, a bucket with less than nothing in
// it, and what [Text.Write] leaves out.
func Families(s *multiproc.Snapshot, o Options) (families []*dto.MetricFamily, dropped int) {
	e := newEscaper(s.Layout, o)
	for i := range s.Families {
		f := &s.Families[i]
		names, ok := e.family(f)
		if o.Keep != nil && !o.Keep(f) {
			continue
		}
		if !ok {
			dropped += len(f.Samples)
			continue
		}
		out := &dto.MetricFamily{Name: &names.name, Help: new(f.Help), Type: new(types()[f.Type])}
		dropped += addMetrics(out, f, s.Values, o.Escaping)
		if len(out.Metric) > 0 {
			families = append(families, out)
		}
	}
	return families, dropped
}

// addMetrics adds the label sets of f to out. It returns how many samples do not fit.
func addMetrics(out *dto.MetricFamily, f *multiproc.Family, values []float64, scheme model.EscapingScheme) (dropped int) {
	sets := labelSets{scheme: scheme, family: f}
	for at := 0; at < len(f.Samples); {
		n := group(f.Samples[at:])
		if names, ok := sets.next(at); ok {
			m, lost := metric(f, names, f.Samples[at:at+n], values[f.First+at:f.First+at+n])
			if m != nil {
				out.Metric = append(out.Metric, m)
			}
			dropped += lost
		} else {
			dropped += n
		}
		at += n
	}
	return dropped
}

func types() map[multiproc.Type]dto.MetricType {
	return map[multiproc.Type]dto.MetricType{
		multiproc.Untyped: dto.MetricType_UNTYPED, multiproc.Counter: dto.MetricType_COUNTER,
		multiproc.Gauge: dto.MetricType_GAUGE, multiproc.Histogram: dto.MetricType_HISTOGRAM,
		multiproc.Summary: dto.MetricType_SUMMARY,
	}
}

// group returns how many samples the first label set has.
func group(samples []multiproc.Sample) int {
	n := 1
	for n < len(samples) && samples[n].Group == samples[0].Group {
		n++
	}
	return n
}

// metric returns one label set, its labels under those names, or nil when it has
// no value or none that fits, and how many samples do not fit.
func metric(f *multiproc.Family, names []string, samples []multiproc.Sample, values []float64) (*dto.Metric, int) {
	m := &dto.Metric{Label: make([]*dto.LabelPair, 0, len(samples[0].Labels))}
	for i := range names {
		m.Label = append(m.Label, &dto.LabelPair{Name: &names[i], Value: &samples[0].Labels[i].Value})
	}
	switch f.Type {
	case multiproc.Histogram:
		if !histogram(m, samples, values) {
			return nil, len(samples)
		}
		return m, bare(samples)
	case multiproc.Summary:
		if !summary(m, samples, values) {
			return nil, len(samples)
		}
		return m, 0
	}
	if !multiproc.Present(values[0]) {
		return nil, 0
	}
	v := &values[0]
	switch f.Type {
	case multiproc.Counter:
		m.Counter = &dto.Counter{Value: v}
	case multiproc.Gauge:
		m.Gauge = &dto.Gauge{Value: v}
	default:
		m.Untyped = &dto.Untyped{Value: v}
	}
	return m, 0
}

// bare counts the buckets without a bound.
func bare(samples []multiproc.Sample) int {
	n := 0
	for _, s := range samples {
		if s.Part == multiproc.PartBareBucket {
			n++
		}
	}
	return n
}

func histogram(m *dto.Metric, samples []multiproc.Sample, values []float64) bool {
	h := &dto.Histogram{}
	m.Histogram = h
	counted := false
	for i, s := range samples {
		v := values[i]
		switch s.Part {
		case multiproc.PartBucket:
			bound, err := strconv.ParseFloat(s.Bound, 64)
			if err != nil || !(v >= 0) {
				return false
			}
			h.Bucket = append(h.Bucket, bucket(bound, v))
		case multiproc.PartSum:
			h.SampleSum = &v
		case multiproc.PartCount:
			if !(v >= 0) {
				return false
			}
			counted = true
			if n, ok := whole(v); ok {
				h.SampleCount = &n
			} else {
				h.SampleCountFloat = &v
			}
		}
	}
	return counted && len(h.Bucket) > 0 && math.IsInf(h.Bucket[len(h.Bucket)-1].GetUpperBound(), 1)
}

func bucket(bound, v float64) *dto.Bucket {
	b := &dto.Bucket{UpperBound: &bound}
	if n, ok := whole(v); ok {
		b.CumulativeCount = &n
	} else {
		b.CumulativeCountFloat = &v
	}
	return b
}

// whole returns v as a whole number, if it is one.
func whole(v float64) (uint64, bool) {
	n := uint64(v)
	return n, v < 1<<63 && float64(n) == v
}

func summary(m *dto.Metric, samples []multiproc.Sample, values []float64) bool {
	m.Summary = &dto.Summary{}
	counted := false
	for i, s := range samples {
		v := values[i]
		switch s.Part {
		case multiproc.PartSum:
			m.Summary.SampleSum = &v
		case multiproc.PartCount:
			n, ok := whole(v)
			if !ok || v < 0 {
				return false
			}
			m.Summary.SampleCount = &n
			counted = true
		}
	}
	return counted
}
