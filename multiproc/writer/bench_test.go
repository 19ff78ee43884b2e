package writer_test

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/prefork-exporter/prefork_exporter/multiproc/writer"
)

// BenchmarkCounting has each operation beside that of client_golang, which counts in memory.
func BenchmarkCounting(b *testing.B) {
	w := open(b, writer.Options{Dir: b.TempDir()})
	ours := w.NewCounterVec(writer.Opts{Name: "c_total"}, []string{"method", "code"})
	theirs := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "c_total"}, []string{"method", "code"})
	c, pc := ours.WithLabelValues("GET", "200"), theirs.WithLabelValues("GET", "200")
	g, pg := w.NewGauge(writer.GaugeOpts{Opts: writer.Opts{Name: "g"}}), prometheus.NewGauge(prometheus.GaugeOpts{Name: "g"})
	buckets := writer.DefBuckets()
	h := w.NewHistogram(writer.HistogramOpts{Opts: writer.Opts{Name: "h"}, Buckets: buckets})
	ph := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "h", Buckets: buckets})
	for _, op := range []struct {
		name         string
		ours, theirs func()
	}{
		{"Inc", c.Inc, pc.Inc},
		{"Set", func() { g.Set(2.5) }, func() { pg.Set(2.5) }},
		{"Observe", func() { h.Observe(.3) }, func() { ph.Observe(.3) }},
		{"WithLabelValues", func() { ours.WithLabelValues("GET", "200") }, func() { theirs.WithLabelValues("GET", "200") }},
	} {
		for who, do := range map[string]func(){"ours": op.ours, "client_golang": op.theirs} {
			b.Run(op.name+"/alone/"+who, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					do()
				}
			})
			b.Run(op.name+"/together/"+who, func(b *testing.B) {
				b.RunParallel(func(pb *testing.PB) {
					for pb.Next() {
						do()
					}
				})
			})
		}
	}
}
