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
	started  float64 // seconds since the epoch, 0: not known

	cpu, resident, virtual, openFiles, maxFiles, start descriptor
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
	for _, err := range []error{r.Register(info), prefixed.Register(collectors.NewGoCollector(collectors.WithGoCollectorMemStatsMetricsDisabled()))} {
		if err != nil {
			return nil, fmt.Errorf("register the exporter's own metrics: %w", err)
		}
	}
	started, _ := startTime() // absent where it cannot be known
	return &Exporter{
		registry:  r,
		started:   started,
		cpu:       desc("prefork_exporter_process_cpu_seconds_total"),
		resident:  desc("prefork_exporter_process_resident_memory_bytes"),
		virtual:   desc("prefork_exporter_process_virtual_memory_bytes"),
		openFiles: desc("prefork_exporter_process_open_fds"),
		maxFiles:  desc("prefork_exporter_process_max_fds"),
		start:     desc("prefork_exporter_process_start_time_seconds"),
	}, nil
}

// Describe implements [Collector].
func (c *Exporter) Describe(ch chan<- *prometheus.Desc) {
	c.registry.Describe(ch)
	for _, d := range []descriptor{c.cpu, c.resident, c.virtual, c.openFiles, c.maxFiles, c.start} {
		ch <- d.Desc
	}
}

// Update implements [Collector].
func (c *Exporter) Update(_ context.Context, out *Output) error {
	families, err := c.registry.Gather()
	out.AddFamilies(families...)
	if err != nil {
		return fmt.Errorf("gather the exporter's own metrics: %w", err)
	}
	if c.started == 0 {
		return nil // no process metrics on this system
	}
	p, err := readProcess()
	if err != nil {
		return fmt.Errorf("read the exporter's own process: %w", err)
	}
	out.Add(
		counter(c.cpu, p.cpuSeconds), gauge(c.resident, p.residentBytes), gauge(c.virtual, p.totalBytes),
		gauge(c.openFiles, p.openFiles), gauge(c.maxFiles, p.maxFiles), gauge(c.start, c.started),
	)
	return nil
}
