package bridge_test

import (
	"fmt"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/prefork-exporter/prefork_exporter/multiproc/writer/bridge"
)

// many returns a registry with n series of two labels.
func many(t testing.TB, n int) *prometheus.Registry {
	t.Helper()
	r := prometheus.NewRegistry()
	v := register(t, r, prometheus.NewCounterVec(prometheus.CounterOpts{Name: "requests_total"}, []string{"route", "code"}))
	for i := range n {
		v.WithLabelValues(fmt.Sprintf("/route/%d", i), "200").Inc()
	}
	return r
}

// gathered returns what g gathers, once and for all.
func gathered(t testing.TB, g prometheus.Gatherer) prometheus.Gatherer {
	t.Helper()
	families, err := g.Gather()
	if err != nil {
		t.Fatal(err)
	}
	return prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) { return families, nil })
}

// BenchmarkWrite writes 10,000 series that have not changed: with client_golang's
// gathering, and what of it is the bridge's.
func BenchmarkWrite(b *testing.B) {
	r := many(b, 10_000)
	for name, g := range map[string]prometheus.Gatherer{"whole": r, "bridge": gathered(b, r)} {
		b.Run(name, func(b *testing.B) {
			to := start(b, openWriter(b, b.TempDir(), "1"), g, bridge.Options{})
			write(b, to)
			b.ReportAllocs()
			for b.Loop() {
				write(b, to)
			}
		})
	}
}
