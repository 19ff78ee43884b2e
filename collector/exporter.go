package collector

import (
	"context"
	"fmt"
	"runtime"
	"runtime/metrics"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/version"
)

// Exporter exposes the exporter's own build, Go runtime and process. All names
// begin with prefork_exporter_, for the usual ones belong to the application.
type Exporter struct {
	started float64 // seconds since the epoch, 0: not known

	build, goInfo                                      Descriptor
	goroutines, cycles, heap, memory, processors       Descriptor
	cpu, resident, virtual, openFiles, maxFiles, start Descriptor
}

// NewExporter returns the collector of the exporter itself.
func NewExporter() *Exporter {
	started, _ := startTime() // absent where it cannot be known
	return &Exporter{
		started:    started,
		build:      Describe("prefork_exporter_build_info"),
		goInfo:     Describe("prefork_exporter_go_info"),
		goroutines: Describe("prefork_exporter_go_goroutines"),
		cycles:     Describe("prefork_exporter_go_gc_cycles_total"),
		heap:       Describe("prefork_exporter_go_heap_objects_bytes"),
		memory:     Describe("prefork_exporter_go_memory_bytes"),
		processors: Describe("prefork_exporter_go_gomaxprocs"),
		cpu:        Describe("prefork_exporter_process_cpu_seconds_total"),
		resident:   Describe("prefork_exporter_process_resident_memory_bytes"),
		virtual:    Describe("prefork_exporter_process_virtual_memory_bytes"),
		openFiles:  Describe("prefork_exporter_process_open_fds"),
		maxFiles:   Describe("prefork_exporter_process_max_fds"),
		start:      Describe("prefork_exporter_process_start_time_seconds"),
	}
}

// Describe implements [Collector].
func (c *Exporter) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []Descriptor{
		c.build, c.goInfo, c.goroutines, c.cycles, c.heap, c.memory, c.processors,
		c.cpu, c.resident, c.virtual, c.openFiles, c.maxFiles, c.start,
	} {
		ch <- d.Desc
	}
}

// Update implements [Collector].
func (c *Exporter) Update(_ context.Context, out *Output) error {
	out.Add(
		gauge(c.build, 1, version.Branch, version.GoArch, version.GoOS, version.GoVersion,
			version.GetRevision(), version.GetTags(), version.Version),
		gauge(c.goInfo, 1, runtime.Version()),
	)
	c.runtime(out)
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

// runtime adds what the Go runtime tells without stopping anything.
// client_golang's collector takes as long as a small merge.
func (c *Exporter) runtime(out *Output) {
	samples := []metrics.Sample{
		{Name: "/sched/goroutines:goroutines"},
		{Name: "/gc/cycles/total:gc-cycles"},
		{Name: "/memory/classes/heap/objects:bytes"},
		{Name: "/memory/classes/total:bytes"},
	}
	metrics.Read(samples)
	out.Add(
		gauge(c.goroutines, float64(samples[0].Value.Uint64())),
		counter(c.cycles, float64(samples[1].Value.Uint64())),
		gauge(c.heap, float64(samples[2].Value.Uint64())),
		gauge(c.memory, float64(samples[3].Value.Uint64())),
		gauge(c.processors, float64(runtime.GOMAXPROCS(0))),
	)
}
