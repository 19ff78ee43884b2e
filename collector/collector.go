// Package collector gathers what the exporter exposes: one file for each
// subsystem, each timed and isolated by a [Set]. It promises nothing to other
// modules, and never starts a process.
package collector

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/prefork-exporter/prefork_exporter/collector/internal/expo"
	"github.com/prefork-exporter/prefork_exporter/multiproc"
	"github.com/prefork-exporter/prefork_exporter/registry"
)

// Collector is one subsystem. Update is called by several goroutines at once.
type Collector interface {
	// Describe sends what Update may add, but for what comes from files.
	Describe(ch chan<- *prometheus.Desc)
	// Update adds what there is now to out. It should return soon after ctx
	// ends; out must not be used after it has returned. What was added before
	// an error is exposed all the same.
	Update(ctx context.Context, out *Output) error
}

// Output takes what one collector has for one scrape. It is for one goroutine.
type Output struct {
	metrics  []prometheus.Metric
	families []*dto.MetricFamily
	merged   *multiproc.Snapshot
}

// Add adds metrics.
func (o *Output) Add(m ...prometheus.Metric) { o.metrics = append(o.metrics, m...) }

// AddFamilies adds families as they are. No other collector may have one of their names.
func (o *Output) AddFamilies(f ...*dto.MetricFamily) { o.families = append(o.families, f...) }

// Merge adds a snapshot of merged files.
func (o *Output) Merge(s *multiproc.Snapshot) { o.merged = s }

// Collect implements part of [prometheus.Collector], for tests and registries.
func (o *Output) Collect(ch chan<- prometheus.Metric) {
	for _, m := range o.metrics {
		ch <- m
	}
}

// Describe sends nothing: what is collected is checked as it comes.
func (o *Output) Describe(chan<- *prometheus.Desc) {}

// Descriptor describes a metric in the catalogue. It never changes.
type Descriptor struct {
	*prometheus.Desc
	definition *registry.Definition
	heads      *heads
	constant   int // how many of the labels, the last ones, are those of a target
}

// heads are what opens a family in the text formats.
type heads struct{ text, openMetrics string }

// Describe returns the descriptor of a metric in the catalogue. It panics when
// there is none of that name: that is a bug.
func Describe(name string) Descriptor {
	d, ok := registry.Find(name)
	if !ok {
		panic(fmt.Sprintf("metric %s is not in the catalogue", name))
	}
	h := &heads{text: expo.Head(d.Name, d.Help, string(d.Type))}
	h.openMetrics = h.text
	if d.Type == registry.Counter {
		h.openMetrics = expo.Head(strings.TrimSuffix(d.Name, "_total"), d.Help, string(d.Type))
	}
	return Descriptor{prometheus.NewDesc(d.Name, d.Help, d.Labels, nil), &d, h, 0}
}

// value is one value of a metric in the catalogue. A constant metric of
// client_golang is the same, but it has to be checked anew in every scrape.
type value struct {
	Descriptor
	number float64
	labels []string // in the order of the definition
}

// Value returns a value of a gauge or a counter. The labels are in the order of
// the definition; another number of them is a bug, and a panic.
func (d Descriptor) Value(v float64, labels ...string) prometheus.Metric {
	return newValue(d, v, labels)
}

func gauge(d Descriptor, v float64, labels ...string) value { return newValue(d, v, labels) }

func counter(d Descriptor, v float64, labels ...string) value { return newValue(d, v, labels) }

// newValue panics here, and not in Write: so a bug costs its collector only.
func newValue(d Descriptor, v float64, labels []string) value {
	if want := len(d.definition.Labels); len(labels) != want {
		panic(fmt.Sprintf("metric %s has %d labels, not %d", d.definition.Name, want, len(labels)))
	}
	return value{d, v, labels}
}

// Desc implements [prometheus.Metric].
func (v value) Desc() *prometheus.Desc { return v.Descriptor.Desc }

// Write implements [prometheus.Metric].
func (v value) Write(m *dto.Metric) error {
	for i := range v.labels {
		m.Label = append(m.Label, &dto.LabelPair{Name: &v.definition.Labels[i], Value: &v.labels[i]})
	}
	number := v.number
	if v.definition.Type == registry.Counter {
		m.Counter = &dto.Counter{Value: &number}
	} else {
		m.Gauge = &dto.Gauge{Value: &number}
	}
	return nil
}

func (v value) metric() *dto.Metric {
	m := &dto.Metric{}
	_ = v.Write(m) // has no error of its own
	return m
}

// compare orders values by family and labels.
func (v value) compare(o value) int {
	if !v.isOf(o) {
		return cmp.Compare(v.definition.Name, o.definition.Name)
	}
	return slices.Compare(v.labels, o.labels)
}

// isOf says whether both are of one family, which collectors may share.
func (v value) isOf(o value) bool {
	return v.definition == o.definition || v.definition.Name == o.definition.Name
}

// appendText appends the line of the value, which is the same in both text formats.
func (v value) appendText(b []byte) []byte {
	b = append(b, v.definition.Name...)
	for i, label := range v.labels {
		b = append(b, "{,"[min(i, 1)])
		b = append(b, v.definition.Labels[i]...)
		b = expo.AppendQuoted(append(b, '='), label)
	}
	if len(v.labels) > 0 {
		b = append(b, '}')
	}
	return append(expo.AppendFloat(append(b, ' '), v.number), '\n')
}

// family returns the family of the value, without metrics.
func (v value) family() *dto.MetricFamily {
	return &dto.MetricFamily{Name: &v.definition.Name, Help: &v.definition.Help, Type: v.typ().Enum()}
}

func (v value) typ() dto.MetricType {
	if v.definition.Type == registry.Counter {
		return dto.MetricType_COUNTER
	}
	return dto.MetricType_GAUGE
}

func boolean(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
