package writer_test

import (
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/prefork-exporter/prefork_exporter/multiproc/writer"
)

// BenchmarkCounting has each operation beside those of client_golang, which counts
// in memory, in turns and in one run; and of client_python, which counts in files.
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
		b.Run(op.name+"/alone", func(b *testing.B) { inTurns(b, 1, op.ours, op.theirs) })
		b.Run(op.name+"/on_two_cores", func(b *testing.B) { inTurns(b, 2, op.ours, op.theirs) })
		b.Run(op.name+"/client_python", func(b *testing.B) { python(b, op.name) })
	}
}

// inTurns reports what ours and theirs take, each on so many goroutines at once,
// as nanoseconds for one operation of all of them, and the ratio.
func inTurns(b *testing.B, goroutines int, ours, theirs func()) {
	b.ReportAllocs()
	const turn = 20_000
	var spent [2]time.Duration
	turns := b.N/turn + 1
	for range turns {
		for i, do := range []func(){ours, theirs} {
			start := time.Now()
			var group sync.WaitGroup
			for range goroutines {
				group.Go(func() {
					for range turn / goroutines {
						do()
					}
				})
			}
			group.Wait()
			spent[i] += time.Since(start)
		}
	}
	n := float64(turns * turn)
	b.ReportMetric(float64(spent[0])/n, "ours-ns/op")
	b.ReportMetric(float64(spent[1])/n, "client_golang-ns/op")
	b.ReportMetric(float64(spent[0])/float64(spent[1]), "ratio")
	b.ReportMetric(0, "ns/op")
}

// python reports what client_python takes for the operation.
func python(b *testing.B, operation string) {
	const python3 = "/usr/bin/python3"
	out, err := exec.CommandContext(b.Context(), python3, filepath.Join("testdata", "count.py"), operation, b.TempDir()).CombinedOutput()
	if err != nil {
		b.Skipf("client_python for %s, Debian's python3-prometheus-client, is missing: %v: %s", python3, err, out)
	}
	nanoseconds, err := strconv.ParseFloat(strings.TrimSpace(string(out)), 64)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(nanoseconds, "client_python-ns/op")
	b.ReportMetric(0, "ns/op")
}
