package collector

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/prefork-exporter/prefork_exporter/registry"
)

// Labelled returns c with constant labels, behind the own ones, in all its series: those of
// one target among several. Without labels it is c itself. What c adds has to be values of
// the catalogue that do not have one of these labels themselves; all else is an error.
func Labelled(labels map[string]string, c Collector) Collector {
	if len(labels) == 0 {
		return c
	}
	l := &labelled{Collector: c, constant: maps.Clone(labels), names: slices.Sorted(maps.Keys(labels)), known: map[*registry.Definition]Descriptor{}}
	for _, name := range l.names {
		l.values = append(l.values, labels[name])
	}
	return l
}

// labelled is safe for concurrent use as far as its collector is.
type labelled struct {
	Collector
	constant      map[string]string
	names, values []string

	mu    sync.Mutex
	known map[*registry.Definition]Descriptor // with the labels, by that without them
}

// Describe implements [Collector].
func (l *labelled) Describe(ch chan<- *prometheus.Desc) {
	prometheus.WrapCollectorWith(l.constant, described{l.Collector}).Describe(ch)
}

// described describes a collector for client_golang, which collects nothing of it.
type described struct{ Collector }

// Collect implements [prometheus.Collector].
func (described) Collect(chan<- prometheus.Metric) {}

// Update implements [Collector].
func (l *labelled) Update(ctx context.Context, out *Output) error {
	inner := &Output{}
	err := l.Collector.Update(ctx, inner)
	if inner.merged != nil || len(inner.families) > 0 {
		err = errors.Join(err, errors.New("label families that are no values of the catalogue: want these only"))
	}
	for _, m := range inner.metrics {
		v, labelErr := l.label(m)
		if labelErr != nil {
			err = errors.Join(err, labelErr)
			continue
		}
		out.Add(v)
	}
	return err
}

// label returns the value with the labels.
func (l *labelled) label(m prometheus.Metric) (value, error) {
	v, ok := m.(value)
	if !ok {
		return value{}, fmt.Errorf("label %s: want a value of the catalogue", m.Desc())
	}
	for _, name := range l.names {
		if slices.Contains(v.definition.Labels, name) {
			return value{}, fmt.Errorf("label %s: it has a label %s itself", v.definition.Name, name)
		}
	}
	return value{l.descriptor(v.Descriptor), v.number, slices.Concat(v.labels, l.values)}, nil
}

// descriptor returns d with the labels.
func (l *labelled) descriptor(d Descriptor) Descriptor {
	l.mu.Lock()
	defer l.mu.Unlock()
	with, ok := l.known[d.definition]
	if !ok {
		definition := *d.definition
		definition.Labels = slices.Concat(d.definition.Labels, l.names)
		with = Descriptor{prometheus.NewDesc(definition.Name, definition.Help, d.definition.Labels, l.constant), &definition, d.heads, len(l.names)}
		l.known[d.definition] = with
	}
	return with
}

// LabelNames returns the names of the labels of what is observed of servers: no target can
// have them for its own.
func LabelNames() []string {
	var names []string
	for _, d := range registry.Definitions() {
		if d.Source != registry.File && !strings.HasPrefix(d.Name, registry.Prefix+"exporter_") {
			names = append(names, d.Labels...)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}
