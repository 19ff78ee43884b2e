package writer_test

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/prefork-exporter/prefork_exporter/multiproc"
	"github.com/prefork-exporter/prefork_exporter/multiproc/writer"
)

// open opens a writer that fails the test when something goes wrong.
func open(t testing.TB, o writer.Options) *writer.Writer {
	t.Helper()
	o.OnError = func(err error) { t.Errorf("unexpected: %v", err) }
	w, err := writer.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

// merged merges a directory. The values are by series, as name{label=value,…}.
func merged(t testing.TB, dir string) map[string]float64 {
	t.Helper()
	m := multiproc.New(multiproc.Options{})
	defer m.Close()
	m.SetSources([]multiproc.Source{{Path: dir}})
	s, err := m.Merge(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if st := m.Stats(); slices.Max(st.Errors[:]) > 0 {
		t.Errorf("the merge found faults: %v", st.Errors)
	}
	out := map[string]float64{}
	for _, f := range s.Families {
		for i, sample := range f.Samples {
			labels := ""
			for _, l := range sample.Labels {
				labels += l.Name + "=" + l.Value + ","
			}
			if sample.Part == multiproc.PartBucket {
				labels += "le=" + sample.Bound
			}
			out[f.Name+sample.Part.Suffix()+"{"+strings.TrimSuffix(labels, ",")+"}"] = s.Values[f.First+i]
		}
	}
	return out
}

func TestWhatIsCountedIsMerged(t *testing.T) {
	dir := t.TempDir()
	a, b := open(t, writer.Options{Dir: dir, ID: "1"}), open(t, writer.Options{Dir: dir, ID: "2"})
	for i, w := range []*writer.Writer{a, b} {
		n := float64(i + 1)
		c := w.NewCounter(writer.Opts{Namespace: "app", Name: "jobs_total", Help: "Jobs.", ConstLabels: writer.Labels{"zone": "eu"}})
		c.Inc()
		c.Add(n)
		requests := w.NewCounterVec(writer.Opts{Name: "requests_total"}, []string{"method", "code"})
		requests.WithLabelValues("GET", "200").Add(10 * n)
		requests.With(writer.Labels{"code": "500", "method": "POST"}).Inc()
		posts, err := requests.CurryWith(writer.Labels{"method": "POST"})
		if err != nil {
			t.Fatal(err)
		}
		posts.WithLabelValues("500").Inc()
		for _, mode := range []writer.Mode{
			writer.ModeAll, writer.ModeLiveAll, writer.ModeMin, writer.ModeLiveMin, writer.ModeMax, writer.ModeLiveMax,
			writer.ModeSum, writer.ModeLiveSum, writer.ModeMostRecent, writer.ModeLiveMostRecent,
		} {
			g := w.NewGauge(writer.GaugeOpts{Opts: writer.Opts{Name: "g_" + string(mode)}, Mode: mode})
			g.Set(n)
			g.Inc()
			g.Sub(0.5)
		}
		h := w.NewHistogramVec(writer.HistogramOpts{Opts: writer.Opts{Name: "seconds"}, Buckets: []float64{.5, 1, 1 << 20}}, []string{"p"})
		for _, v := range []float64{.5, .75, 1000, 1 << 21} {
			h.WithLabelValues("/").Observe(v)
		}
		w.NewSummary(writer.Opts{Name: "size"}).Observe(n)
	}
	want := map[string]float64{
		"app_jobs_total{zone=eu}": 5, "requests_total{code=200,method=GET}": 30, "requests_total{code=500,method=POST}": 4,
		"g_all{pid=1}": 1.5, "g_all{pid=2}": 2.5, "g_liveall{pid=1}": 1.5, "g_liveall{pid=2}": 2.5, "g_min{}": 1.5, "g_livemin{}": 1.5,
		"g_max{}": 2.5, "g_livemax{}": 2.5, "g_sum{}": 4, "g_livesum{}": 4, "g_mostrecent{}": 2.5, "g_livemostrecent{}": 2.5,
		"seconds_bucket{p=/,le=0.5}": 2, "seconds_bucket{p=/,le=1.0}": 4, "seconds_bucket{p=/,le=1.048576e+06}": 6,
		"seconds_bucket{p=/,le=+Inf}": 8, "seconds_count{p=/}": 8, "seconds_sum{p=/}": 2 * (1.25 + 1000 + 1<<21),
		"size_count{}": 2, "size_sum{}": 3,
	}
	if diff := cmp.Diff(want, merged(t, dir)); diff != "" {
		t.Errorf("merged (-want +got):\n%s", diff)
	}
}

// As client_python: what is not a number is in no bucket.
func TestWhatIsNotANumber(t *testing.T) {
	dir := t.TempDir()
	w := open(t, writer.Options{Dir: dir})
	for _, buckets := range [][]float64{{1}, nil, manyBuckets()} {
		h := w.NewHistogram(writer.HistogramOpts{Opts: writer.Opts{Name: fmt.Sprintf("h%d", len(buckets))}, Buckets: buckets})
		h.Observe(math.NaN())
		h.Observe(math.Inf(1))
		h.Observe(math.Inf(-1))
		got := merged(t, dir)
		name := fmt.Sprintf("h%d", len(buckets))
		if sum := got[name+"_sum{}"]; got[name+"_count{}"] != 2 || sum == sum {
			t.Errorf("%d bounds: count %v, sum %v; want 2 and no number", len(buckets), got[name+"_count{}"], sum)
		}
	}
	defer func() {
		if recover() == nil {
			t.Error("a counter took what is not a number")
		}
	}()
	w.NewCounter(writer.Opts{Name: "c_total"}).Add(math.NaN())
}

// manyBuckets are more than are gone through one by one.
func manyBuckets() []float64 {
	var bounds []float64
	for i := range 100 {
		bounds = append(bounds, float64(i))
	}
	return bounds
}

func TestARelativeDirectoryStaysWhereItWas(t *testing.T) {
	t.Chdir(t.TempDir())
	w := open(t, writer.Options{Dir: "metrics"})
	dir, err := filepath.Abs("metrics")
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(t.TempDir())
	w.NewCounter(writer.Opts{Name: "a_total"}).Inc()
	if got := merged(t, dir)["a_total{}"]; got != 1 {
		t.Errorf("counted %v there, want 1", got)
	}
}

func TestAFileGrowsUnderItsMetrics(t *testing.T) {
	dir := t.TempDir()
	w := open(t, writer.Options{Dir: dir})
	v := w.NewCounterVec(writer.Opts{Name: "a_total"}, []string{"i"})
	first := v.WithLabelValues("first")
	const n = 3000
	var group sync.WaitGroup
	for g := range 4 {
		group.Go(func() {
			for i := range n {
				v.WithLabelValues(fmt.Sprint(i)).Inc()
				first.Add(float64(g))
			}
		})
	}
	group.Wait()
	got := merged(t, dir)
	if len(got) != n+1 || got["a_total{i=first}"] != 6*n || got["a_total{i=2999}"] != 4 {
		t.Errorf("%d series, first %v, last %v; want %d, %d and 4", len(got), got["a_total{i=first}"], got["a_total{i=2999}"], n+1, 6*n)
	}
}

func TestWhoseFileItIs(t *testing.T) {
	own := fmt.Sprint(os.Getpid())
	for name, tc := range map[string]struct {
		id    string
		alive bool // the first one
		want  []string
	}{
		"an id that was given is continued":                              {"3", false, []string{"counter_3.db", "gauge_sum_3.db"}},
		"the file that a stranger with our process id left is set aside": {"", false, []string{"counter_" + own + "-1.db", "counter_" + own + ".db", "gauge_sum_" + own + "-1.db", "gauge_sum_" + own + ".db"}},
		"a name beside that of a living stranger with our process id": {"", true, []string{
			"counter_" + own + "-1.db", "counter_" + own + ".db", "gauge_livesum_" + own + "-1.db", "gauge_livesum_" + own + ".db", "gauge_sum_" + own + "-1.db", "gauge_sum_" + own + ".db",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for range 2 {
				w := open(t, writer.Options{Dir: dir, ID: tc.id})
				w.NewCounter(writer.Opts{Name: "a_total"}).Inc()
				for _, mode := range []writer.Mode{writer.ModeSum, writer.ModeLiveSum} {
					w.NewGauge(writer.GaugeOpts{Opts: writer.Opts{Name: string(mode)}, Mode: mode}).Inc()
				}
				if tc.alive {
					continue
				}
				if err := w.Close(); err != nil {
					t.Fatal(err)
				}
			}
			entries, err := os.ReadDir(dir)
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, e := range entries {
				names = append(names, e.Name())
			}
			if !slices.Equal(names, tc.want) {
				t.Errorf("files %v, want %v", names, tc.want)
			}
			if got := merged(t, dir); got["a_total{}"] != 2 || got["sum{}"] != 2 {
				t.Errorf("a_total is %v, the gauge %v; want 2 and 2", got["a_total{}"], got["sum{}"])
			}
		})
	}
}

// A live gauge of a process that was killed ends when its process id is used again.
func TestALiveGaugeEndsWithItsProcess(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, fmt.Sprintf("gauge_livesum_%d.db", os.Getpid()))
	w := open(t, writer.Options{Dir: dir, ID: "killed"})
	w.NewGauge(writer.GaugeOpts{Opts: writer.Opts{Name: "g"}, Mode: writer.ModeLiveSum}).Set(5)
	left, err := os.ReadFile(filepath.Join(dir, "gauge_livesum_killed.db"))
	if err == nil {
		err = os.WriteFile(name, left, 0o600)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	open(t, writer.Options{Dir: dir}).NewGauge(writer.GaugeOpts{Opts: writer.Opts{Name: "g"}, Mode: writer.ModeLiveSum}).Inc()
	if diff := cmp.Diff(map[string]float64{"g{}": 1}, merged(t, dir)); diff != "" {
		t.Errorf("merged (-want +got):\n%s", diff)
	}
}

func TestTwoWritersOfOneFileAreRefused(t *testing.T) {
	dir := t.TempDir()
	first := open(t, writer.Options{Dir: dir, ID: "1"})
	first.NewCounter(writer.Opts{Name: "a_total"}).Inc()
	var errs []error
	second, err := writer.Open(writer.Options{Dir: dir, ID: "1", OnError: func(err error) { errs = append(errs, err) }})
	if err != nil {
		t.Fatal(err)
	}
	c := second.NewCounter(writer.Opts{Name: "a_total"})
	c.Add(5)
	second.NewCounter(writer.Opts{Name: "b_total"}).Inc()
	if len(errs) != 1 || !strings.Contains(errs[0].Error(), "another writer has it") {
		t.Errorf("errors %v, want one that says who has the file", errs)
	}
	if c.Value() != 5 {
		t.Errorf("in memory it counted %v, want 5", c.Value())
	}
	if diff := cmp.Diff(map[string]float64{"a_total{}": 1}, merged(t, dir)); diff != "" {
		t.Errorf("merged (-want +got):\n%s", diff)
	}
}

func TestWhatCountsAfterTheEnd(t *testing.T) {
	dir := t.TempDir()
	w := open(t, writer.Options{Dir: dir, ID: "1"})
	v := w.NewCounterVec(writer.Opts{Name: "a_total"}, []string{"x"})
	live := w.NewGauge(writer.GaugeOpts{Opts: writer.Opts{Name: "live"}, Mode: writer.ModeLiveSum})
	sum := w.NewGauge(writer.GaugeOpts{Opts: writer.Opts{Name: "sum"}, Mode: writer.ModeSum})
	v.WithLabelValues("1").Inc()
	live.Set(1)
	sum.Set(1)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	v.WithLabelValues("1").Inc() // where it was
	live.Inc()
	v.WithLabelValues("2").Inc()                       // in memory
	w.NewSummary(writer.Opts{Name: "size"}).Observe(1) // likewise
	if diff := cmp.Diff(map[string]float64{"a_total{x=1}": 2, "sum{}": 1}, merged(t, dir)); diff != "" {
		t.Errorf("merged (-want +got):\n%s", diff)
	}
	if err := w.Close(); err != nil {
		t.Errorf("closed again: %v", err)
	}
}

func TestAMasterMarksAProcessDead(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "odd [*] name")
	for id, v := range map[string]float64{"1": 5, "11": 3, "2": 7} { // the dead one is neither the least nor the greatest
		w := open(t, writer.Options{Dir: dir, ID: id})
		for _, mode := range []writer.Mode{
			writer.ModeSum, writer.ModeLiveSum, writer.ModeLiveAll, writer.ModeLiveMin, writer.ModeLiveMax, writer.ModeLiveMostRecent,
		} {
			w.NewGauge(writer.GaugeOpts{Opts: writer.Opts{Name: string(mode)}, Mode: mode}).Set(v)
		}
	}
	for range 2 { // it may be dead already
		if err := writer.MarkProcessDead(dir, "1"); err != nil {
			t.Fatal(err)
		}
	}
	if left, err := filepath.Glob(filepath.Join(filepath.Dir(dir), "*", "gauge_live*_1.db")); err != nil || len(left) > 0 {
		t.Errorf("left %v, %v", left, err)
	}
	got := merged(t, dir)
	if got["sum{}"] != 15 || got["livesum{}"] != 10 || got["liveall{pid=11}"] != 3 || len(got) != 7 {
		t.Errorf("merged %v", got)
	}
	if err := writer.MarkProcessDead(dir, "../1"); err == nil {
		t.Error("an id that leads elsewhere was taken")
	}
}

func TestBuckets(t *testing.T) {
	if got := writer.LinearBuckets(1, 2, 3); !slices.Equal(got, []float64{1, 3, 5}) {
		t.Errorf("linear %v", got)
	}
	if got := writer.ExponentialBuckets(1, 2, 4); !slices.Equal(got, []float64{1, 2, 4, 8}) {
		t.Errorf("exponential %v", got)
	}
}

// Two containers that share a directory have the same process ids.
func TestTwoWritersOfOneProcessIDCountBoth(t *testing.T) {
	dir := t.TempDir()
	for range 3 {
		open(t, writer.Options{Dir: dir}).NewCounter(writer.Opts{Name: "a_total"}).Inc()
	}
	if diff := cmp.Diff(map[string]float64{"a_total{}": 3}, merged(t, dir)); diff != "" {
		t.Errorf("merged (-want +got):\n%s", diff)
	}
}

func TestADirectoryThatCannotBeUsedIsAnErrorAtOnce(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PROMETHEUS_MULTIPROC_DIR", "")
	for name, tc := range map[string]struct {
		o    writer.Options
		want string
	}{
		"none":            {writer.Options{}, "set PROMETHEUS_MULTIPROC_DIR"},
		"a file":          {writer.Options{Dir: file}, "not a directory"},
		"an id with a /":  {writer.Options{Dir: t.TempDir(), ID: "a/b"}, "part of a file's name"},
		"an id with dots": {writer.Options{Dir: t.TempDir(), ID: ".."}, "part of a file's name"},
		"an id with a _":  {writer.Options{Dir: t.TempDir(), ID: "worker_1"}, "at which client_python cuts it"},
		"an id with NUL":  {writer.Options{Dir: t.TempDir(), ID: "a\x00"}, "part of a file's name"},
		"an id in Latin":  {writer.Options{Dir: t.TempDir(), ID: "a\xe9"}, "part of a file's name"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := writer.Open(tc.o); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want one with %q", err, tc.want)
			}
		})
	}
}

func TestADirectoryThatGoesAwayCostsNothing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "metrics")
	var f faults
	w, err := writer.Open(writer.Options{Dir: dir, OnError: f.add})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = w.Close() }()
	c := w.NewCounterVec(writer.Opts{Name: "a_total"}, []string{"i"})
	c.WithLabelValues("1").Inc()
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	for i := range 5000 { // the file grows all the same
		c.WithLabelValues(fmt.Sprint(i)).Inc()
	}
	f.want(t, "it was deleted")
	f.errs = nil
	g := w.NewGauge(writer.GaugeOpts{Opts: writer.Opts{Name: "g"}})
	g.Set(2)
	f.want(t, "no such file or directory")
	if g.Value() != 2 || c.WithLabelValues("1").Value() != 2 {
		t.Errorf("gauge %v, counter %v; want 2 and 2", g.Value(), c.WithLabelValues("1").Value())
	}
}

func TestWhatCannotBeRegisteredPanics(t *testing.T) {
	w := open(t, writer.Options{Dir: t.TempDir()})
	w.NewCounter(writer.Opts{Name: "there_total", Help: "h"})
	for name, tc := range map[string]struct {
		do   func()
		want string
	}{
		"no name":                     {func() { w.NewCounter(writer.Opts{}) }, "want a name"},
		"a name with a blank":         {func() { w.NewCounter(writer.Opts{Name: "a b_total"}) }, "want a name"},
		"a counter without _total":    {func() { w.NewCounter(writer.Opts{Name: "a"}) }, "end in _total"},
		"another help":                {func() { w.NewCounter(writer.Opts{Name: "there_total"}) }, "registered already, otherwise"},
		"another type":                {func() { w.NewGauge(writer.GaugeOpts{Opts: writer.Opts{Name: "there_total", Help: "h"}}) }, "registered already, otherwise"},
		"a vector of its name":        {func() { w.NewCounterVec(writer.Opts{Name: "there_total", Help: "h"}, nil) }, "registered already, otherwise"},
		"a gauge of a counter's name": {func() { w.NewGauge(writer.GaugeOpts{Opts: writer.Opts{Name: "there"}}) }, `part of the counter "there_total"`},
		"a histogram's part": {func() {
			w.NewGauge(writer.GaugeOpts{Opts: writer.Opts{Name: "part_sum"}})
			w.NewHistogram(writer.HistogramOpts{Opts: writer.Opts{Name: "part"}})
		}, `part of the gauge_all "part_sum"`},
		"quantile of a summary":    {func() { w.NewSummaryVec(writer.Opts{Name: "q"}, []string{"quantile"}) }, "has it already"},
		"a label twice":            {func() { w.NewCounterVec(writer.Opts{Name: "a_total"}, []string{"x", "x"}) }, "given twice"},
		"a reserved label":         {func() { w.NewCounterVec(writer.Opts{Name: "a_total"}, []string{"__x"}) }, "two underscores"},
		"le of a histogram":        {func() { w.NewHistogramVec(writer.HistogramOpts{Opts: writer.Opts{Name: "h"}}, []string{"le"}) }, "has it already"},
		"bounds that fall":         {func() { w.NewHistogram(writer.HistogramOpts{Opts: writer.Opts{Name: "h"}, Buckets: []float64{2, 1}}) }, "ascending"},
		"an unknown mode":          {func() { w.NewGauge(writer.GaugeOpts{Opts: writer.Opts{Name: "g"}, Mode: "avg"}) }, "unknown mode"},
		"a counter that goes down": {func() { w.NewCounter(writer.Opts{Name: "d_total"}).Add(-1) }, "cannot go down"},
		"a label that is curried twice": {func() {
			w.NewCounterVec(writer.Opts{Name: "v_total"}, []string{"x"}).MustCurryWith(writer.Labels{"x": "1"}).MustCurryWith(writer.Labels{"x": "2"})
		}, "not curried yet"},
		"a value too few":           {func() { w.NewCounterVec(writer.Opts{Name: "v_total"}, []string{"x"}).WithLabelValues() }, "0 label values, want 1"},
		"a label that is not there": {func() { w.NewCounterVec(writer.Opts{Name: "v_total"}, []string{"x"}).With(writer.Labels{"y": "1"}) }, "want [\"x\"]"},
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if p := fmt.Sprint(recover()); !strings.Contains(p, tc.want) {
					t.Errorf("panic %q, want one with %q", p, tc.want)
				}
			}()
			tc.do()
		})
	}
}

func TestAnErrorInThePlaceOfAPanic(t *testing.T) {
	v := open(t, writer.Options{Dir: t.TempDir()}).NewGaugeVec(writer.GaugeOpts{Opts: writer.Opts{Name: "g"}}, []string{"x", "y"})
	for name, get := range map[string]func() (*writer.Gauge, error){
		"a value too few":           func() (*writer.Gauge, error) { return v.GetMetricWithLabelValues("1") },
		"a value too many":          func() (*writer.Gauge, error) { return v.GetMetricWithLabelValues("1", "2", "3") },
		"a label too few":           func() (*writer.Gauge, error) { return v.GetMetricWith(writer.Labels{"x": "1"}) },
		"a label that is not there": func() (*writer.Gauge, error) { return v.GetMetricWith(writer.Labels{"x": "1", "z": "2"}) },
	} {
		if g, err := get(); g != nil || err == nil || !strings.Contains(err.Error(), `metric "g"`) {
			t.Errorf("%s: %v, %v; want an error that names the metric", name, g, err)
		}
	}
	a, errA := v.GetMetricWithLabelValues("1", "2")
	b, errB := v.GetMetricWith(writer.Labels{"y": "2", "x": "1"})
	if a != b || a != v.WithLabelValues("1", "2") || errA != nil || errB != nil {
		t.Errorf("not the same child: %p, %v and %p, %v", a, errA, b, errB)
	}
}

func TestRegisteringTwiceGivesTheSame(t *testing.T) {
	w := open(t, writer.Options{Dir: t.TempDir()})
	o := writer.Opts{Name: "a_total", Help: "h"}
	if a, b := w.NewCounter(o), w.NewCounter(o); a != b {
		t.Error("two counters")
	}
	labels := []string{"x"}
	v := w.NewCounterVec(writer.Opts{Name: "v_total"}, labels)
	labels[0] = "changed"
	if a, b := v.WithLabelValues("1"), v.With(writer.Labels{"x": "1"}); a != b {
		t.Error("two children")
	}
	if err := v.Delete(writer.Labels{"x": "1"}); err == nil {
		t.Error("a series was deleted")
	}
}

func TestCountingAllocatesNothing(t *testing.T) {
	w := open(t, writer.Options{Dir: t.TempDir()})
	c := w.NewCounter(writer.Opts{Name: "a_total"})
	g := w.NewGauge(writer.GaugeOpts{Opts: writer.Opts{Name: "g"}, Mode: writer.ModeMostRecent})
	h := w.NewHistogram(writer.HistogramOpts{Opts: writer.Opts{Name: "h"}})
	v := w.NewCounterVec(writer.Opts{Name: "v_total"}, []string{"x", "y"})
	if n := testing.AllocsPerRun(100, func() {
		c.Inc()
		g.Set(1)
		h.Observe(.3)
		v.WithLabelValues("a", "b").Inc()
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
