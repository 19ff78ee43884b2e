package collector

import (
	"context"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/common/version"

	"github.com/prefork-exporter/prefork_exporter/registry"
)

// Exporter exposes the exporter's own build, Go runtime and process. All names
// begin with prefork_exporter_, for the usual ones belong to the application.
type Exporter struct {
	registry *prometheus.Registry
}

// NewExporter returns the collector of the exporter itself.
func NewExporter() (*Exporter, error) {
	r := prometheus.NewRegistry()
	build, _ := registry.Find("prefork_exporter_build_info")
	info := prometheus.NewGauge(prometheus.GaugeOpts{Name: build.Name, Help: build.Help, ConstLabels: prometheus.Labels{
		"branch": version.Branch, "goarch": version.GoArch, "goos": version.GoOS, "goversion": version.GoVersion,
		"revision": version.GetRevision(), "tags": version.GetTags(), "version": version.Version,
	}})
	info.Set(1)
	prefixed := prometheus.WrapRegistererWithPrefix("prefork_exporter_", r)
	for _, err := range []error{
		r.Register(info),
		prefixed.Register(collectors.NewGoCollector()),
		prefixed.Register(collectors.NewProcessCollector(collectors.ProcessCollectorOpts{})),
	} {
		if err != nil {
			return nil, fmt.Errorf("register the exporter's own metrics: %w", err)
		}
	}
	return &Exporter{registry: r}, nil
}

// Describe implements [Collector].
func (c *Exporter) Describe(ch chan<- *prometheus.Desc) { c.registry.Describe(ch) }

// Update implements [Collector].
func (c *Exporter) Update(_ context.Context, out *Output) error {
	families, err := c.registry.Gather()
	out.AddFamilies(families...)
	if err != nil {
		return fmt.Errorf("gather the exporter's own metrics: %w", err)
	}
	return nil
}
