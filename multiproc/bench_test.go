package multiproc

import (
	"fmt"
	"os"
	"testing"
)

// app is the metric files of an application as large as D2 of the benchmark of
// the whole program: 64 processes, a thousand series each.
type app struct {
	tb      testing.TB
	dir     string
	size    int // label sets of a counter family, in percent of the first
	pids    []int
	workers map[string]*worker
}

var benchClasses = []string{"counter", "histogram", "gauge_all", "gauge_livesum", "gauge_max", "gauge_min"}

func newApp(tb testing.TB) *app {
	a := &app{tb: tb, dir: tb.TempDir(), size: 100, workers: map[string]*worker{}}
	for pid := range 64 {
		a.start(10001 + pid)
	}
	return a
}

// start starts a process that has all series from the beginning.
func (a *app) start(pid int) {
	a.pids = append(a.pids, pid)
	for _, class := range benchClasses {
		name := fmt.Sprintf("%s_%d.db", class, pid)
		w := newWorker(a.tb, a.dir, name)
		if err := w.f.Truncate(1 << 20); err != nil {
			a.tb.Fatal(err)
		}
		a.workers[name] = w
		a.write(w, class, 0)
	}
}

// write gives w its series from the label set numbered from on.
func (a *app) write(w *worker, class string, from int) {
	labels := func(i int) map[string]string {
		return map[string]string{"method": "GET", "endpoint": fmt.Sprintf("/api/v2/shops/{shop}/orders/%d", i), "status": "200"}
	}
	for i := from; i < a.size; i++ {
		switch {
		case class == "counter":
			for n := range 5 {
				w.set(jsonKey(fmt.Sprintf("shop_requests_%d", n), fmt.Sprintf("shop_requests_%d_total", n), labels(i)), float64(i))
			}
		case i%4 > 0:
		case class == "histogram":
			w.set(jsonKey("shop_seconds", "shop_seconds_sum", labels(i)), float64(i))
			for b := range 16 {
				l := labels(i)
				l["le"] = fmt.Sprint(float64(b) + .5)
				w.set(jsonKey("shop_seconds", "shop_seconds_bucket", l), float64(i))
			}
		default:
			w.set(jsonKey("shop_"+class, "shop_"+class, labels(i)), float64(i))
		}
	}
}

// churn replaces three processes, and gives all others one label set in a hundred more.
func (a *app) churn() {
	for _, pid := range a.pids[:3] {
		for _, class := range benchClasses {
			name := fmt.Sprintf("%s_%d.db", class, pid)
			if class == "gauge_livesum" {
				a.workers[name].remove()
			}
			_ = a.workers[name].f.Close()
			delete(a.workers, name)
		}
	}
	a.pids = a.pids[3:]
	a.size++
	for _, pid := range a.pids {
		for _, class := range benchClasses {
			a.write(a.workers[fmt.Sprintf("%s_%d.db", class, pid)], class, a.size-1)
		}
	}
	for range 3 {
		a.start(a.pids[len(a.pids)-1] + 1)
	}
}

func BenchmarkMerge(b *testing.B) {
	for _, c := range []struct {
		name  string
		churn bool
	}{{"values only", false}, {"processes and series that come and go", true}} {
		b.Run(c.name, func(b *testing.B) {
			a := newApp(b)
			m := New(Options{})
			defer m.Close()
			m.SetSources([]Source{{Path: a.dir}})
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				b.StopTimer()
				if c.churn && i%20 == 19 {
					m.Close()
					if err := os.RemoveAll(a.dir); err != nil {
						b.Fatal(err)
					}
					a = newApp(b)
					m = New(Options{})
					m.SetSources([]Source{{Path: a.dir}})
				}
				if i%20 == 0 {
					if _, err := m.Merge(b.Context()); err != nil {
						b.Fatal(err)
					}
					m.Sweep() // makes room to keep the files open
				}
				if c.churn {
					a.churn()
				}
				b.StartTimer()
				if _, err := m.Merge(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
