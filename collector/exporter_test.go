package collector

import (
	"maps"
	"math"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/procfs"

	"github.com/prefork-exporter/prefork_exporter/multiproc"
	"github.com/prefork-exporter/prefork_exporter/registry"
)

// newExporter returns the collector of the exporter itself.
func newExporter(tb testing.TB) *Exporter {
	tb.Helper()
	return NewExporter()
}

// ownFamilies returns all families that are not merged.
func ownFamilies(t *testing.T) []*dto.MetricFamily {
	t.Helper()
	set := NewSet(quiet(), map[string]Collector{
		"exporter": newExporter(t), "multiproc": newMultiproc(t, multiproc.Options{}, t.TempDir()),
		"restart": NewRestart(twoWorkers()), "worker": measuredWorker(t), "listen": busyListen(), "cgroup": fixtureCgroup("v2"),
	}, time.Minute)
	s, err := set.Gather(t.Context(), set.Names())
	if err != nil {
		t.Fatal(err)
	}
	return s.Families()
}

func TestOwnFamiliesAreLintClean(t *testing.T) {
	problems, err := promlint.NewWithMetricFamilies(ownFamilies(t)).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

func TestOwnFamiliesAreThoseOfTheCatalogue(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("process metrics are read on Linux only")
	}
	exposed := map[string]*dto.MetricFamily{}
	for _, f := range ownFamilies(t) {
		exposed[f.GetName()] = f
		d, ok := registry.Find(f.GetName())
		if !ok {
			t.Errorf("%s is not in the catalogue", f.GetName())
			continue
		}
		if got := strings.ToLower(f.GetType().String()); got != string(d.Type) || f.GetHelp() != d.Help {
			t.Errorf("%s is a %s: %q; the catalogue has a %s: %q", d.Name, got, f.GetHelp(), d.Type, d.Help)
		}
		for _, m := range f.GetMetric() {
			checkLabels(t, d, m)
		}
	}
	elsewhere := map[string]bool{ // the program that reads the configuration adds them
		"prefork_exporter_config_last_reload_successful":                true,
		"prefork_exporter_config_last_reload_success_timestamp_seconds": true,
	}
	for _, d := range registry.Definitions() {
		if exposed[d.Name] == nil && d.Stability != registry.Planned && !d.MayBeInFiles() && !elsewhere[d.Name] {
			t.Errorf("%s is in the catalogue, and nobody exposes it", d.Name)
		}
	}
}

// checkLabels compares a metric's labels and buckets with its definition.
func checkLabels(t *testing.T, d registry.Definition, m *dto.Metric) {
	t.Helper()
	var got []string
	for _, l := range m.GetLabel() {
		got = append(got, l.GetName())
	}
	slices.Sort(got)
	if want := slices.Sorted(slices.Values(d.Labels)); !slices.Equal(got, want) {
		t.Errorf("%s has the labels %v, the catalogue %v", d.Name, got, want)
	}
	var bounds []float64
	for _, b := range m.GetHistogram().GetBucket() {
		bounds = append(bounds, b.GetUpperBound())
	}
	if !slices.Equal(bounds, d.Buckets) {
		t.Errorf("%s has the buckets %v, the catalogue %v", d.Name, bounds, d.Buckets)
	}
}

func TestCollectorsDescribeWhatTheyExpose(t *testing.T) {
	for name, c := range map[string]Collector{
		"exporter": newExporter(t), "multiproc": newMultiproc(t, multiproc.Options{}, t.TempDir()),
		"restart": NewRestart(twoWorkers()), "worker": measuredWorker(t), "listen": busyListen(), "cgroup": fixtureCgroup("v2"),
	} {
		t.Run(name, func(t *testing.T) {
			described := map[string]bool{}
			ch := make(chan *prometheus.Desc, 1000)
			c.Describe(ch)
			close(ch)
			for d := range ch {
				described[d.String()] = true
			}
			out := &Output{}
			if err := c.Update(t.Context(), out); err != nil {
				t.Fatal(err)
			}
			for _, m := range out.metrics {
				if !described[m.Desc().String()] {
					t.Errorf("%s is exposed, and not described", m.Desc())
				}
			}
			for _, f := range out.families {
				if !slices.ContainsFunc(slices.Collect(maps.Keys(described)), func(d string) bool {
					return strings.Contains(d, `"`+f.GetName()+`"`)
				}) {
					t.Errorf("%s is exposed, and not described", f.GetName())
				}
			}
		})
	}
}

func TestExporterTellsOfItsOwnProcess(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("process metrics are read on Linux only")
	}
	self, err := procfs.Self()
	if err != nil {
		t.Fatal(err)
	}
	stat, err := self.Stat()
	if err != nil {
		t.Fatal(err)
	}
	limits, err := self.Limits()
	if err != nil {
		t.Fatal(err)
	}
	started, err := stat.StartTime()
	if err != nil {
		t.Fatal(err)
	}
	files, err := self.FileDescriptorsLen()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range ownFamilies(t) {
		if m := f.GetMetric()[0]; m.Gauge != nil {
			got[f.GetName()] = m.GetGauge().GetValue()
		} else {
			got[f.GetName()] = m.GetCounter().GetValue()
		}
	}
	for name, tc := range map[string]struct{ want, tolerance float64 }{
		"prefork_exporter_process_cpu_seconds_total":     {stat.CPUTime(), 5},
		"prefork_exporter_process_resident_memory_bytes": {float64(stat.ResidentMemory()), 64 << 20},
		"prefork_exporter_process_virtual_memory_bytes":  {float64(stat.VirtualMemory()), 512 << 20},
		"prefork_exporter_process_open_fds":              {float64(files), 20},
		"prefork_exporter_process_max_fds":               {float64(limits.OpenFiles), 0},
		"prefork_exporter_process_start_time_seconds":    {started, 2},
		"prefork_exporter_build_info":                    {1, 0},
		"prefork_exporter_go_goroutines":                 {float64(runtime.NumGoroutine()), 50},
		"prefork_exporter_go_info":                       {1, 0},
		"prefork_multiproc_dropped_samples_total":        {0, 0},
		"prefork_scrape_collector_success":               {1, 0},
		"prefork_exporter_config_last_reload_successful": {0, 0}, // not ours to expose
		"prefork_multiproc_processes":                    {0, 0},
	} {
		if v := got[name]; math.Abs(v-tc.want) > tc.tolerance || tc.want > 0 && v == 0 {
			t.Errorf("%s is %v, want %v, give or take %v", name, v, tc.want, tc.tolerance)
		}
	}
}
