package bridge_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	dto "github.com/prometheus/client_model/go"

	"github.com/prefork-exporter/prefork_exporter/multiproc"
	"github.com/prefork-exporter/prefork_exporter/multiproc/writer"
	"github.com/prefork-exporter/prefork_exporter/multiproc/writer/bridge"
)

// register registers c, and returns it.
func register[C prometheus.Collector](t testing.TB, r *prometheus.Registry, c C) C {
	t.Helper()
	if err := r.Register(c); err != nil {
		t.Fatal(err)
	}
	return c
}

// constant collects one metric.
func constant(t testing.TB, r *prometheus.Registry, m prometheus.Metric, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	register(t, r, collector(func(ch chan<- prometheus.Metric) { ch <- m }))
}

// collector is an unchecked collector.
type collector func(chan<- prometheus.Metric)

func (collector) Describe(chan<- *prometheus.Desc)      {}
func (c collector) Collect(ch chan<- prometheus.Metric) { c(ch) }

func TestWhatMetricsOfClientGolangBecome(t *testing.T) {
	desc := func(name string) *prometheus.Desc { return prometheus.NewDesc(name, "h", nil, nil) }
	for name, tc := range map[string]struct {
		count func(t *testing.T, r *prometheus.Registry)
		want  map[string]float64
		lost  []string
	}{
		"a counter": {func(t *testing.T, r *prometheus.Registry) {
			register(t, r, prometheus.NewCounter(prometheus.CounterOpts{Name: "a_total", Help: "h"})).Add(2.5)
		}, map[string]float64{"counter a_total{}": 2.5}, nil},
		"a counter without _total keeps its name": {func(t *testing.T, r *prometheus.Registry) {
			register(t, r, prometheus.NewCounter(prometheus.CounterOpts{Name: "a", Help: "h"})).Inc()
		}, map[string]float64{"counter a{}": 1}, nil},
		"a counter that never counted": {func(t *testing.T, r *prometheus.Registry) {
			register(t, r, prometheus.NewCounter(prometheus.CounterOpts{Name: "a_total"}))
		}, map[string]float64{"counter a_total{}": 0}, nil},
		"a vector, with labels that are not ASCII": {func(t *testing.T, r *prometheus.Registry) {
			v := register(t, r, prometheus.NewCounterVec(prometheus.CounterOpts{Name: "a_total", ConstLabels: prometheus.Labels{"z": "é\n\""}}, []string{"x"}))
			v.WithLabelValues("1").Inc()
			v.WithLabelValues("").Add(2)
		}, map[string]float64{"counter a_total{x=1,z=é\n\"}": 1, "counter a_total{x=,z=é\n\"}": 2}, nil},
		"an exemplar": {func(t *testing.T, r *prometheus.Registry) {
			c := register(t, r, prometheus.NewCounter(prometheus.CounterOpts{Name: "a_total"}))
			c.(prometheus.ExemplarAdder).AddWithExemplar(3, prometheus.Labels{"trace": "1"})
		}, map[string]float64{"counter a_total{}": 3}, []string{`family "a_total": exemplars are not carried`}},
		"a gauge": {func(t *testing.T, r *prometheus.Registry) {
			register(t, r, prometheus.NewGauge(prometheus.GaugeOpts{Name: "g", Help: "h"})).Set(-1.5)
		}, map[string]float64{"gauge g{pid=1}": -1.5}, nil},
		"a histogram": {func(t *testing.T, r *prometheus.Registry) {
			h := register(t, r, prometheus.NewHistogram(prometheus.HistogramOpts{Name: "h", Help: "h", Buckets: []float64{.5, 1, 1e6, 1e7}}))
			for _, v := range []float64{.25, .5, .75, 1e6, 2e7} {
				h.Observe(v)
			}
		}, map[string]float64{
			"histogram h_bucket{le=0.5}": 2, "histogram h_bucket{le=1.0}": 3, "histogram h_bucket{le=1e+06}": 4, "histogram h_bucket{le=1e+07}": 4,
			"histogram h_bucket{le=+Inf}": 5, "histogram h_sum{}": 21000001.5, "histogram h_count{}": 5,
		}, nil},
		"a histogram with an exemplar": {func(t *testing.T, r *prometheus.Registry) {
			h := register(t, r, prometheus.NewHistogram(prometheus.HistogramOpts{Name: "h", Buckets: []float64{1}}))
			h.(prometheus.ExemplarObserver).ObserveWithExemplar(2, prometheus.Labels{"trace": "1"})
		}, map[string]float64{
			"histogram h_bucket{le=1.0}": 0, "histogram h_bucket{le=+Inf}": 1, "histogram h_sum{}": 2, "histogram h_count{}": 1,
		}, []string{`family "h": exemplars are not carried`}},
		"a native histogram": {func(t *testing.T, r *prometheus.Registry) {
			register(t, r, prometheus.NewHistogram(prometheus.HistogramOpts{Name: "h", NativeHistogramBucketFactor: 1.1})).Observe(2)
		}, map[string]float64{}, []string{`family "h": native buckets are not carried`}},
		"a histogram that is both": {func(t *testing.T, r *prometheus.Registry) {
			register(t, r, prometheus.NewHistogram(prometheus.HistogramOpts{Name: "h", NativeHistogramBucketFactor: 1.1, Buckets: []float64{1}})).Observe(2)
		}, map[string]float64{
			"histogram h_bucket{le=1.0}": 0, "histogram h_bucket{le=+Inf}": 1, "histogram h_sum{}": 2, "histogram h_count{}": 1,
		}, []string{`family "h": native buckets are not carried`}},
		"a constant histogram": {func(t *testing.T, r *prometheus.Registry) {
			m, err := prometheus.NewConstHistogram(desc("h"), 9, 4.5, map[float64]uint64{1: 2, 2: 5, math.Inf(1): 9})
			constant(t, r, m, err)
		}, map[string]float64{
			"histogram h_bucket{le=1.0}": 2, "histogram h_bucket{le=2.0}": 5, "histogram h_bucket{le=+Inf}": 9, "histogram h_sum{}": 4.5, "histogram h_count{}": 9,
		}, nil},
		"a summary": {func(t *testing.T, r *prometheus.Registry) {
			s := register(t, r, prometheus.NewSummary(prometheus.SummaryOpts{Name: "s", Help: "h"}))
			s.Observe(2)
			s.Observe(-.5)
		}, map[string]float64{"summary s_count{}": 2, "summary s_sum{}": 1.5}, nil},
		"a summary with quantiles": {func(t *testing.T, r *prometheus.Registry) {
			register(t, r, prometheus.NewSummary(prometheus.SummaryOpts{Name: "s", Objectives: map[float64]float64{.5: .1}})).Observe(2)
		}, map[string]float64{"summary s_count{}": 1, "summary s_sum{}": 2}, []string{`family "s": quantiles are not carried`}},
		"a constant counter with a time": {func(t *testing.T, r *prometheus.Registry) {
			m, err := prometheus.NewConstMetric(desc("a_total"), prometheus.CounterValue, 7)
			constant(t, r, prometheus.NewMetricWithTimestamp(time.Unix(1, 0), m), err)
		}, map[string]float64{"counter a_total{}": 7}, []string{`family "a_total": timestamps of samples are not carried`}},
		"an untyped metric": {func(t *testing.T, r *prometheus.Registry) {
			register(t, r, prometheus.NewUntypedFunc(prometheus.UntypedOpts{Name: "u"}, func() float64 { return 1 }))
		}, map[string]float64{}, []string{`family "u": there is no file for its type: it is left out`}},
		"a gauge with a pid, beside one without": {func(t *testing.T, r *prometheus.Registry) {
			register(t, r, prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "g"}, []string{"pid"})).WithLabelValues("7").Set(1)
			register(t, r, prometheus.NewGauge(prometheus.GaugeOpts{Name: "i"})).Set(2)
		}, map[string]float64{"gauge i{pid=1}": 2}, []string{
			`family "g": a label that readers set (pid of a gauge, le of a histogram, quantile of a summary): the series is left out`,
		}},
		"a counter with a pid": {func(t *testing.T, r *prometheus.Registry) {
			register(t, r, prometheus.NewCounterVec(prometheus.CounterOpts{Name: "a_total"}, []string{"pid"})).WithLabelValues("7").Inc()
		}, map[string]float64{"counter a_total{pid=7}": 1}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			dir, r := t.TempDir(), prometheus.NewRegistry()
			tc.count(t, r)
			var lost losses
			b := start(t, openWriter(t, dir, "1"), r, bridge.Options{OnLoss: lost.add})
			write(t, b)
			write(t, b) // changes nothing, and says nothing again
			if diff := cmp.Diff(tc.want, merged(t, dir)); diff != "" {
				t.Errorf("merged (-want +got):\n%s", diff)
			}
			if !slices.Equal(lost, tc.lost) {
				t.Errorf("losses %q, want %q", lost, tc.lost)
			}
		})
	}
}

func TestTheCollectorsOfGoAndOfTheProcessAreCarried(t *testing.T) {
	dir, r := t.TempDir(), prometheus.NewRegistry()
	register(t, r, collectors.NewGoCollector(collectors.WithGoCollectorRuntimeMetrics(collectors.MetricsAll)))
	register(t, r, collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	var lost losses
	write(t, start(t, openWriter(t, dir, "1"), r, bridge.Options{OnLoss: lost.add}))
	lost = slices.DeleteFunc(lost, func(l string) bool { return strings.Contains(l, "unit") })
	want := losses{
		`family "go_gc_duration_seconds": quantiles are not carried`,
		`family "process_network_receive_bytes_total": it counts for the whole host, in every process: it is left out`,
		`family "process_network_transmit_bytes_total": it counts for the whole host, in every process: it is left out`,
	}
	if !slices.Equal(lost, want) {
		t.Errorf("losses %q, want %q", lost, want)
	}
	got := merged(t, dir)
	for _, series := range []string{
		"gauge go_goroutines{pid=1}", "counter go_memstats_alloc_bytes_total{}", "gauge go_memstats_alloc_bytes{pid=1}", "summary go_gc_duration_seconds_count{}",
		"histogram go_sched_latencies_seconds_bucket{le=+Inf}", "counter process_cpu_seconds_total{}", "gauge process_start_time_seconds{pid=1}",
	} {
		if _, ok := got[series]; !ok {
			t.Errorf("no %s in %q", series, slices.Sorted(maps.Keys(got)))
		}
	}
}

func TestAGaugeHasTheModeThatOptionsSay(t *testing.T) {
	dir := t.TempDir()
	modes := map[string]writer.Mode{"most": writer.ModeMax, "together": writer.ModeLiveSum, "latest": writer.ModeMostRecent}
	for id, v := range map[string]float64{"1": 5, "2": 7} {
		g := script(t, fmt.Sprintf(`name:"most" type:GAUGE metric:{gauge:{value:%[1]v}}; name:"together" type:GAUGE metric:{gauge:{value:%[1]v}};
			name:"other" type:GAUGE metric:{gauge:{value:%[1]v}}`, v))
		write(t, start(t, openWriter(t, dir, id), g, bridge.Options{Mode: func(name string) writer.Mode { return modes[name] }}))
	}
	if files, err := filepath.Glob(filepath.Join(dir, "gauge_liveall_*.db")); err != nil || len(files) != 2 {
		t.Errorf("files %q, %v: want one of each process for the other gauge", files, err)
	}
	want := map[string]float64{"gauge most{}": 7, "gauge together{}": 12, "gauge other{pid=1}": 5, "gauge other{pid=2}": 7}
	if diff := cmp.Diff(want, merged(t, dir)); diff != "" {
		t.Errorf("merged (-want +got):\n%s", diff)
	}
}

func TestTheMostRecentGaugeIsTheOneThatChangedLast(t *testing.T) {
	dir := t.TempDir()
	o := bridge.Options{Mode: func(string) writer.Mode { return writer.ModeMostRecent }}
	const gauge = `name:"g" type:GAUGE metric:{gauge:{value:%v}}`
	one := start(t, openWriter(t, dir, "1"), script(t, fmt.Sprintf(gauge, 1)), o)
	two := start(t, openWriter(t, dir, "2"), script(t, fmt.Sprintf(gauge, 2)), o)
	three := start(t, openWriter(t, dir, "3"), script(t, fmt.Sprintf(gauge, 0)), o) // was never set
	for _, b := range []*bridge.Bridge{one, two, one, three} {
		write(t, b)
	}
	if got := merged(t, dir)["gauge g{}"]; got != 2 {
		t.Errorf("g is %v, want 2: the others have not changed since", got)
	}
}

func TestALaterProcessOfTheSameIDGoesOn(t *testing.T) {
	dir := t.TempDir()
	for life := range 3 {
		r := prometheus.NewRegistry()
		c := register(t, r, prometheus.NewCounterVec(prometheus.CounterOpts{Name: "a_total"}, []string{"x"}))
		h := register(t, r, prometheus.NewHistogram(prometheus.HistogramOpts{Name: "h", Buckets: []float64{1}}))
		s := register(t, r, prometheus.NewSummary(prometheus.SummaryOpts{Name: "s"}))
		g := register(t, r, prometheus.NewGauge(prometheus.GaugeOpts{Name: "g"}))
		w := openWriter(t, dir, "worker-3")
		b := start(t, w, r, bridge.Options{Mode: func(string) writer.Mode { return writer.ModeAll }}) // live ones end
		for range 2 {
			c.WithLabelValues("each").Add(3)
			c.WithLabelValues(fmt.Sprint(life)).Inc()
			h.Observe(.5)
			h.Observe(-4)
			s.Observe(-2)
			g.Set(float64(life))
			write(t, b)
		}
		if err := errors.Join(b.Close(), w.Close()); err != nil {
			t.Fatal(err)
		}
	}
	want := map[string]float64{
		"counter a_total{x=each}": 18, "counter a_total{x=0}": 2, "counter a_total{x=1}": 2, "counter a_total{x=2}": 2,
		"histogram h_bucket{le=1.0}": 12, "histogram h_bucket{le=+Inf}": 12, "histogram h_sum{}": -21, "histogram h_count{}": 12,
		"summary s_count{}": 6, "summary s_sum{}": -12, "gauge g{pid=worker-3}": 2,
	}
	if diff := cmp.Diff(want, merged(t, dir)); diff != "" {
		t.Errorf("merged (-want +got):\n%s", diff)
	}
}

// counterOf, histogramOf and summaryOf are families with one series.
func counterOf(v float64) string {
	return fmt.Sprintf(`name:"a_total" type:COUNTER metric:{counter:{value:%v}}`, v)
}

func summaryOf(count int, sum float64) string {
	return fmt.Sprintf(`name:"s" type:SUMMARY metric:{summary:{sample_count:%d sample_sum:%v}}`, count, sum)
}

func histogramOf(count int, sum float64, buckets ...float64) string {
	text := fmt.Sprintf("sample_count:%d sample_sum:%v", count, sum)
	for i := 0; i < len(buckets); i += 2 {
		text += fmt.Sprintf(" bucket:{upper_bound:%v cumulative_count:%v}", buckets[i], buckets[i+1])
	}
	return fmt.Sprintf(`name:"h" type:HISTOGRAM metric:{histogram:{%s}}`, text)
}

func TestWhatBeginsAnewGoesOn(t *testing.T) {
	for name, tc := range map[string]struct {
		answers []string
		series  string
		want    []float64 // after each write
	}{
		"a counter that is lower":               {[]string{counterOf(5), counterOf(2), counterOf(3), counterOf(0), counterOf(1)}, "counter a_total{}", []float64{5, 7, 8, 8, 9}},
		"a counter that is gone for a while":    {[]string{counterOf(5), summaryOf(1, 1), counterOf(1), counterOf(4)}, "counter a_total{}", []float64{5, 5, 6, 9}},
		"a counter that is not a number once":   {[]string{counterOf(5), counterOf(math.NaN()), counterOf(-1), counterOf(6)}, "counter a_total{}", []float64{5, 5, 5, 6}},
		"a summary that is lower":               {[]string{summaryOf(5, 50), summaryOf(2, 60)}, "summary s_sum{}", []float64{50, 110}},
		"its count":                             {[]string{summaryOf(5, 50), summaryOf(2, 60)}, "summary s_count{}", []float64{5, 7}},
		"a sum that falls alone":                {[]string{summaryOf(5, 50), summaryOf(6, 40)}, "summary s_sum{}", []float64{50, 40}},
		"a histogram that is lower":             {[]string{histogramOf(5, 50, 1, 2), histogramOf(3, 60, 1, 2)}, "histogram h_sum{}", []float64{50, 110}},
		"its count, lower":                      {[]string{histogramOf(5, 50, 1, 2), histogramOf(3, 60, 1, 2)}, "histogram h_count{}", []float64{5, 8}},
		"a bucket that falls under a total":     {[]string{histogramOf(5, 50, 1, 4), histogramOf(9, 60, 1, 0)}, "histogram h_bucket{le=1.0}", []float64{4, 4}},
		"the count of such":                     {[]string{histogramOf(5, 50, 1, 4), histogramOf(9, 60, 1, 0)}, "histogram h_count{}", []float64{5, 14}},
		"a bucket that falls under no total":    {[]string{histogramOf(5, 50, 1, 0), histogramOf(6, 60, 1, 6)}, "histogram h_count{}", []float64{5, 11}},
		"a histogram's sum that falls alone":    {[]string{histogramOf(5, 50, 1, 4), histogramOf(6, 40, 1, 5)}, "histogram h_sum{}", []float64{50, 40}},
		"a histogram with other bounds":         {[]string{histogramOf(5, 50, 1, 4), histogramOf(6, 60, 2, 6), histogramOf(7, 70, 1, 5)}, "histogram h_count{}", []float64{5, 11, 18}},
		"a bound that is there again":           {[]string{histogramOf(5, 50, 1, 4), histogramOf(6, 60, 2, 6), histogramOf(7, 70, 1, 5)}, "histogram h_bucket{le=1.0}", []float64{4, 4, 9}},
		"buckets that do not ascend, once":      {[]string{histogramOf(5, 50, 1, 4), histogramOf(6, 60, 1, 5, 2, 4), histogramOf(8, 70, 1, 6)}, "histogram h_count{}", []float64{5, 5, 8}},
		"bounds that do not ascend, once":       {[]string{histogramOf(5, 50, 1, 4), histogramOf(6, 60, 1, 4, 0, 5), histogramOf(8, 70, 1, 6)}, "histogram h_count{}", []float64{5, 5, 8}},
		"a count below the last bucket's, once": {[]string{histogramOf(5, 50, 1, 4), histogramOf(3, 60, 1, 4), histogramOf(8, 70, 1, 6)}, "histogram h_count{}", []float64{5, 5, 8}},
		"a summary that was created after the last write": {[]string{
			`name:"s" type:SUMMARY metric:{summary:{sample_count:2 created_timestamp:{seconds:4000000000}}}`,
			`name:"s" type:SUMMARY metric:{summary:{sample_count:3 created_timestamp:{seconds:4000000000}}}`,
			`name:"s" type:SUMMARY metric:{summary:{sample_count:4 created_timestamp:{seconds:5000000000}}}`,
		}, "summary s_count{}", []float64{2, 3, 7}},
		"a histogram that was created after the last write": {[]string{
			`name:"h" type:HISTOGRAM metric:{histogram:{sample_count:2 created_timestamp:{seconds:4000000000}}}`,
			`name:"h" type:HISTOGRAM metric:{histogram:{sample_count:3 created_timestamp:{seconds:4000000000}}}`,
			`name:"h" type:HISTOGRAM metric:{histogram:{sample_count:4 created_timestamp:{seconds:5000000000}}}`,
		}, "histogram h_count{}", []float64{2, 3, 7}},
		"a counter whose creation is a clock": {[]string{
			`name:"a" type:COUNTER metric:{counter:{value:2 created_timestamp:{seconds:4000000000}}}`,
			`name:"a" type:COUNTER metric:{counter:{value:3 created_timestamp:{seconds:4000000001}}}`,
			`name:"a" type:COUNTER metric:{counter:{value:4 created_timestamp:{seconds:4000000002}}}`,
		}, "counter a{}", []float64{2, 3, 4}},
		"a counter whose creation is not exact": {[]string{
			`name:"a" type:COUNTER metric:{counter:{value:2 created_timestamp:{seconds:1000}}}`,
			`name:"a" type:COUNTER metric:{counter:{value:3 created_timestamp:{seconds:1000}}}`,
			`name:"a" type:COUNTER metric:{counter:{value:4 created_timestamp:{seconds:1001}}}`,
		}, "counter a{}", []float64{2, 3, 4}},
		"a histogram of floats": {[]string{
			`name:"h" type:HISTOGRAM metric:{histogram:{sample_count_float:2.5 bucket:{upper_bound:1 cumulative_count_float:0.5}}}`,
		}, "histogram h_count{}", []float64{2.5}},
		"a bucket of floats": {[]string{
			`name:"h" type:HISTOGRAM metric:{histogram:{sample_count_float:2.5 bucket:{upper_bound:1 cumulative_count_float:0.5}}}`,
		}, "histogram h_bucket{le=1.0}", []float64{.5}},
		"a bucket for all": {[]string{histogramOf(5, 50, 1, 4, math.Inf(1), 5)}, "histogram h_bucket{le=+Inf}", []float64{5}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			b := start(t, openWriter(t, dir, "1"), script(t, tc.answers...), bridge.Options{OnLoss: func(bridge.Loss) {}})
			var got []float64
			for range tc.answers {
				write(t, b)
				got = append(got, merged(t, dir)[tc.series])
			}
			if !slices.Equal(got, tc.want) {
				t.Errorf("%s was %v, want %v", tc.series, got, tc.want)
			}
		})
	}
}

func TestAVectorThatIsResetGoesOn(t *testing.T) {
	dir, r := t.TempDir(), prometheus.NewRegistry()
	v := register(t, r, prometheus.NewCounterVec(prometheus.CounterOpts{Name: "a_total"}, []string{"x"}))
	b := start(t, openWriter(t, dir, "1"), r, bridge.Options{})
	for range 3 {
		v.WithLabelValues("1").Inc()
		v.WithLabelValues("2").Add(3)
		write(t, b)
		v.WithLabelValues("2").Add(4)
		write(t, b)
		v.Reset()
		v.WithLabelValues("2").Add(9) // more than it had
		write(t, b)
		write(t, b)
		v.DeleteLabelValues("2")
		write(t, b)
	}
	want := map[string]float64{"counter a_total{x=1}": 3, "counter a_total{x=2}": 48}
	if diff := cmp.Diff(want, merged(t, dir)); diff != "" {
		t.Errorf("merged (-want +got):\n%s", diff)
	}
}

func TestEachLossIsSaidOnce(t *testing.T) {
	const leftOut = "a label that readers set (pid of a gauge, le of a histogram, quantile of a summary): the series is left out"
	for name, tc := range map[string]struct {
		answers []string
		want    []string
		merged  map[string]float64
	}{
		"a gauge histogram": {[]string{`name:"h" type:GAUGE_HISTOGRAM metric:{histogram:{sample_count:1}}`},
			[]string{`family "h": there is no file for its type: it is left out`}, nil},
		"a histogram with a label le": {[]string{`name:"h" type:HISTOGRAM metric:{label:{name:"le" value:"1"} histogram:{sample_count:1}}`},
			[]string{`family "h": ` + leftOut}, nil},
		"a summary with a label quantile": {[]string{`name:"s" type:SUMMARY metric:{label:{name:"quantile" value:"1"} summary:{sample_count:1}}`},
			[]string{`family "s": ` + leftOut}, nil},
		"one series twice, with labels in two orders": {[]string{`name:"a_total" type:COUNTER
			metric:{label:{name:"x" value:"1"} label:{name:"y" value:"2"} counter:{value:1}} metric:{label:{name:"y" value:"2"} label:{name:"x" value:"1"} counter:{value:5}}`},
			[]string{`family "a_total": a series that is there twice: the first one is carried`}, map[string]float64{"counter a_total{x=1,y=2}": 1}},
		"one family twice": {[]string{counterOf(1) + ";" + counterOf(3)},
			[]string{`family "a_total": a series that is there twice: the first one is carried`}, map[string]float64{"counter a_total{}": 1}},
		"a label twice": {[]string{`name:"a" type:COUNTER metric:{label:{name:"x" value:"1"} label:{name:"x" value:"2"} counter:{value:1}}`},
			[]string{`family "a": a label that is there twice: the series is left out`}, nil},
		"a family without a name": {[]string{`name:"" type:COUNTER metric:{counter:{value:1}}`}, []string{`family "": a name is empty: it is left out`}, nil},
		"a label without a name": {[]string{`name:"a" type:COUNTER metric:{label:{name:"" value:"1"} counter:{value:1}}`},
			[]string{`family "a": a name is empty: it is left out`}, nil},
		"a unit": {[]string{`name:"a" type:COUNTER unit:"s" metric:{counter:{value:1}}`}, []string{`family "a": its unit is not carried`},
			map[string]float64{"counter a{}": 1}},
		"a family that comes back as another": {[]string{`name:"a" type:COUNTER metric:{counter:{value:3}}`, `name:"a" type:GAUGE metric:{gauge:{value:9}}`, `name:"a" type:COUNTER metric:{counter:{value:4}}`},
			[]string{`family "a": it came back with another type: the first one stays`}, map[string]float64{"counter a{}": 4}},
		"a counter that is called as a gauge": {[]string{`name:"x" type:GAUGE metric:{gauge:{value:1}}; name:"x_total" type:COUNTER metric:{counter:{value:3}}`},
			nil, map[string]float64{"gauge x{pid=1}": 1, "counter x_total{}": 3}},
		"a gauge that is called as a counter that was there": {[]string{`name:"x_total" type:COUNTER metric:{counter:{value:3}}`, `name:"x" type:GAUGE metric:{gauge:{value:1}}`},
			[]string{`family "x": a counter has its name, but for _total: it is left out`}, map[string]float64{"counter x_total{}": 3}},
		"a histogram and a counter of its name": {[]string{histogramOf(1, 2, 1, 1) + `; name:"h_total" type:COUNTER metric:{counter:{value:3}}`},
			nil, map[string]float64{"histogram h_bucket{le=1.0}": 1, "histogram h_bucket{le=+Inf}": 1, "histogram h_sum{}": 2, "histogram h_count{}": 1, "counter h_total{}": 3}},
		"two counters of one name": {[]string{`name:"x" type:COUNTER metric:{counter:{value:1}}; name:"x_total" type:COUNTER metric:{counter:{value:3}}`},
			nil, map[string]float64{"counter x{}": 1, "counter x_total{}": 3}},
		"a metric of another type": {[]string{`name:"a" type:COUNTER metric:{gauge:{value:9}}`}, []string{`family "a": a metric that is not of its family's type: it is left out`},
			map[string]float64{"counter a{}": 0}},
		"a gauge that is gone": {[]string{`name:"g" type:GAUGE metric:{label:{name:"x" value:"1"} gauge:{value:1}} metric:{label:{name:"x" value:"2"} gauge:{value:2}}`, `name:"g" type:GAUGE metric:{label:{name:"x" value:"1"} gauge:{value:3}}`, counterOf(0)},
			[]string{`family "g": a gauge that is gone keeps its last value`}, map[string]float64{"gauge g{pid=1,x=1}": 3, "gauge g{pid=1,x=2}": 2, "counter a_total{}": 0}},
		"a counter that is negative": {[]string{counterOf(-1)}, []string{`family "a_total": a counter that is negative or not a number: it stays as it was`},
			map[string]float64{"counter a_total{}": 0}},
		"buckets that fall": {[]string{histogramOf(5, 50, 1, 6)}, []string{`family "h": buckets that do not ascend: the histogram stays as it was`}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			var lost losses
			b := start(t, openWriter(t, dir, "1"), script(t, tc.answers...), bridge.Options{OnLoss: lost.add})
			for range len(tc.answers) + 2 {
				write(t, b)
			}
			if !slices.Equal(lost, tc.want) {
				t.Errorf("losses %q, want %q", lost, tc.want)
			}
			if got := merged(t, dir); len(got)+len(tc.merged) > 0 && !maps.Equal(got, tc.merged) {
				t.Errorf("merged %v, want %v", got, tc.merged)
			}
		})
	}
}

func TestWhatIsNotToBeCarried(t *testing.T) {
	dir := t.TempDir()
	w := openWriter(t, dir, "1")
	w.NewCounter(writer.Opts{Name: "a_total"}).Inc() // as a service that changes over has it
	var lost losses
	b := start(t, w, script(t, counterOf(5)+`; name:"b" type:COUNTER metric:{counter:{value:1}}; name:"c" type:COUNTER metric:{counter:{value:1}}`), bridge.Options{
		OnLoss: lost.add, Skip: func(name string) bool { return name == "b" },
	})
	write(t, b)
	write(t, b)
	if want := (losses{`family "a_total": the writer itself has a metric of its name: it is left out`}); !slices.Equal(lost, want) {
		t.Errorf("losses %q, want %q", lost, want)
	}
	if diff := cmp.Diff(map[string]float64{"counter a_total{}": 1, "counter c{}": 1}, merged(t, dir)); diff != "" {
		t.Errorf("merged (-want +got):\n%s", diff)
	}
}

func TestTextThatIsNotUTF8IsLeftOut(t *testing.T) {
	bad, good, typ := "a\xff", "a", dto.MetricType_COUNTER
	one := 1.0
	metric := func(labels ...*dto.LabelPair) []*dto.Metric {
		return []*dto.Metric{{Label: labels, Counter: &dto.Counter{Value: &one}}}
	}
	for name, mf := range map[string]*dto.MetricFamily{
		"a name":         {Name: &bad, Type: &typ, Metric: metric()},
		"a help":         {Name: &good, Help: &bad, Type: &typ, Metric: metric()},
		"a label":        {Name: &good, Type: &typ, Metric: metric(&dto.LabelPair{Name: &bad, Value: &good})},
		"a label's text": {Name: &good, Type: &typ, Metric: metric(&dto.LabelPair{Name: &good, Value: &bad})},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			var lost losses
			g := prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) { return []*dto.MetricFamily{mf, nil}, nil })
			write(t, start(t, openWriter(t, dir, "1"), g, bridge.Options{OnLoss: lost.add}))
			if len(lost) != 2 || !strings.Contains(lost[0], "not UTF-8") || !strings.Contains(lost[1], "empty") {
				t.Errorf("losses %q, want that of the text, and that of a family that is nil", lost)
			}
			if got := merged(t, dir); len(got) > 0 {
				t.Errorf("merged %v, want nothing", got)
			}
		})
	}
}

func TestWithoutOnLossCreatedTimestampsAreForDebugging(t *testing.T) {
	var log bytes.Buffer
	before := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(&log, nil)))
	t.Cleanup(func() { slog.SetDefault(before) })
	r := prometheus.NewRegistry()
	register(t, r, prometheus.NewCounter(prometheus.CounterOpts{Name: "a_total"}))
	register(t, r, prometheus.NewUntypedFunc(prometheus.UntypedOpts{Name: "u"}, func() float64 { return 1 }))
	b := bridge.New(openWriter(t, t.TempDir(), "1"), r, bridge.Options{})
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if got := log.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, "level=WARN") || !strings.Contains(got, "family=u") {
		t.Errorf("the log is %q, want one warning, of u", got)
	}
}

func TestABrokenGathererCostsItsOwnPart(t *testing.T) {
	broken := errors.New("no answer")
	for name, tc := range map[string]struct {
		add  func(t *testing.T, r *prometheus.Registry) prometheus.Gatherer
		mode func(string) writer.Mode
		want string
		rest bool // a counter beside it is written
	}{
		"an error that comes with families": {func(_ *testing.T, r *prometheus.Registry) prometheus.Gatherer {
			return prometheus.Gatherers{prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) { return nil, broken }), r}
		}, nil, "no answer", true},
		"an invalid metric": {func(t *testing.T, r *prometheus.Registry) prometheus.Gatherer {
			constant(t, r, prometheus.NewInvalidMetric(prometheus.NewInvalidDesc(broken), broken), nil)
			return r
		}, nil, "no answer", true},
		"a collector that panics": {func(t *testing.T, r *prometheus.Registry) prometheus.Gatherer {
			register(t, r, collector(func(chan<- prometheus.Metric) { panic("lost my head") }))
			return r
		}, nil, "lost my head", true},
		"a gatherer that panics": {func(*testing.T, *prometheus.Registry) prometheus.Gatherer {
			return prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) { panic("lost my head") })
		}, nil, "gather: panic: lost my head", false},
		"a mode that there is not": {func(t *testing.T, r *prometheus.Registry) prometheus.Gatherer {
			register(t, r, prometheus.NewGauge(prometheus.GaugeOpts{Name: "a_gauge"}))
			return r
		}, func(string) writer.Mode { return "avg" }, `write family "a_gauge": panic: `, true},
	} {
		t.Run(name, func(t *testing.T) {
			dir, r := t.TempDir(), prometheus.NewRegistry()
			register(t, r, prometheus.NewCounter(prometheus.CounterOpts{Name: "b_total"})).Inc()
			b := start(t, openWriter(t, dir, "1"), tc.add(t, r), bridge.Options{Mode: tc.mode})
			for range 2 {
				if err := b.Write(); err == nil || !strings.Contains(err.Error(), tc.want) {
					t.Errorf("error %v, want one with %q", err, tc.want)
				}
			}
			if _, ok := merged(t, dir)["counter b_total{}"]; ok != tc.rest {
				t.Errorf("the counter is written: %v, want %v", ok, tc.rest)
			}
		})
	}
}

func TestAnErrorHidesNoGauge(t *testing.T) {
	first := true
	g := prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) {
		defer func() { first = false }()
		if !first {
			return nil, errors.New("no answer")
		}
		return script(t, `name:"g" type:GAUGE metric:{gauge:{value:1}}`).Gather()
	})
	var lost losses
	b := start(t, openWriter(t, t.TempDir(), "1"), g, bridge.Options{OnLoss: lost.add})
	write(t, b)
	if err := b.Write(); err == nil || len(lost) > 0 {
		t.Errorf("error %v and losses %q, want an error alone: nobody knows whether the gauge is gone", err, lost)
	}
}

func TestTheGoroutineWritesEachIntervalAndTellsEachErrorOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir, gathered := t.TempDir(), 0
		broken := collector(func(chan<- prometheus.Metric) { panic(fmt.Sprintf("no answer from port %d", gathered)) })
		invalid := errors.New("another")
		counted := collector(func(ch chan<- prometheus.Metric) {
			gathered++
			ch <- prometheus.MustNewConstMetric(prometheus.NewDesc("a_total", "", nil, nil), prometheus.CounterValue, float64(gathered))
		})
		r, q := prometheus.NewRegistry(), prometheus.NewRegistry()
		register(t, r, counted)
		register(t, q, broken)
		constant(t, q, prometheus.NewInvalidMetric(prometheus.NewInvalidDesc(invalid), invalid), nil)
		var errs []error
		b := start(t, openWriter(t, dir, "1"), prometheus.Gatherers{r, q, q}, bridge.Options{
			Interval: time.Minute, OnError: func(err error) { errs = append(errs, err) },
		})
		time.Sleep(3*time.Minute + time.Second)
		synctest.Wait()
		if got := merged(t, dir)["counter a_total{}"]; got != 3 {
			t.Errorf("written %v times, want 3", got)
		}
		if text := fmt.Sprint(errs); len(errs) != 2 || !strings.Contains(text, "from port 1") || !strings.Contains(text, "another") {
			t.Errorf("%d errors %.300q, want two: the port's number makes no other", len(errs), errs)
		}
		for range 2 {
			if err := b.Close(); err == nil {
				t.Error("Close returned no error")
			}
		}
		time.Sleep(time.Hour)
		if got := merged(t, dir)["counter a_total{}"]; got != 5 {
			t.Errorf("written %v times, want 5: twice by Close, and never after", got)
		}
	})
}

func TestCloseWaitsForTheGoroutine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		heard, closed := make(chan struct{}), make(chan struct{})
		g := prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) { return nil, errors.New("no answer") })
		b := start(t, openWriter(t, t.TempDir(), "1"), g, bridge.Options{Interval: time.Second, OnError: func(error) { <-heard }})
		time.Sleep(2 * time.Second)
		go func() {
			_ = b.Close() // the gatherer's error
			close(closed)
		}()
		synctest.Wait()
		select {
		case <-closed:
			t.Error("Close returned while OnError was told")
		default:
		}
		close(heard)
		<-closed
	})
}

func TestCloseWritesWhatWasCountedAMomentAgo(t *testing.T) {
	dir, r := t.TempDir(), prometheus.NewRegistry()
	c := register(t, r, prometheus.NewCounter(prometheus.CounterOpts{Name: "a_total"}))
	b := start(t, openWriter(t, dir, "1"), r, bridge.Options{})
	c.Add(3)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if got := merged(t, dir)["counter a_total{}"]; got != 3 {
		t.Errorf("a_total is %v, want 3", got)
	}
}

func TestWritesAtOnceCountNothingTwice(t *testing.T) {
	dir, r := t.TempDir(), prometheus.NewRegistry()
	c := register(t, r, prometheus.NewCounterVec(prometheus.CounterOpts{Name: "a_total"}, []string{"x"}))
	h := register(t, r, prometheus.NewHistogram(prometheus.HistogramOpts{Name: "h"}))
	b := start(t, openWriter(t, dir, "1"), r, bridge.Options{Interval: time.Millisecond})
	const workers, each = 4, 300
	var group sync.WaitGroup
	for i := range workers {
		group.Go(func() {
			for n := range each {
				c.WithLabelValues("all").Inc()
				c.WithLabelValues(fmt.Sprint(i, n%50)).Inc()
				h.Observe(float64(n) / each)
				if n%10 == 0 {
					write(t, b)
				}
			}
		})
	}
	group.Wait()
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	got := merged(t, dir)
	if got["counter a_total{x=all}"] != workers*each || got["counter a_total{x=1 7}"] != each/50 || got["histogram h_count{}"] != workers*each {
		t.Errorf("merged %v and %v of %d", got["counter a_total{x=all}"], got["histogram h_count{}"], workers*each)
	}
}

func TestASteadyWriteAllocatesNothing(t *testing.T) {
	b := start(t, openWriter(t, t.TempDir(), "1"), gathered(t, many(t, 100)), bridge.Options{})
	write(t, b)
	if n := testing.AllocsPerRun(10, func() { write(t, b) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestAFileIsAsPythonNamesThings(t *testing.T) {
	dir := t.TempDir()
	g := script(t, counterOf(1)+`; name:"plain" type:COUNTER metric:{counter:{value:2}}; name:"_total" type:COUNTER metric:{counter:{value:2}};`+histogramOf(3, 4, 1, 2))
	write(t, start(t, openWriter(t, dir, "1"), g, bridge.Options{}))
	var got []string
	for _, kind := range []string{"counter", "histogram"} {
		file, err := multiproc.Inspect(filepath.Join(dir, kind+"_1.db"))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range file.Entries {
			got = append(got, fmt.Sprintf("%s %s %v %v", e.Family, e.Sample, e.Labels, e.Value))
		}
	}
	want := []string{
		"a a_total [] 1", "plain plain [] 2", "_total _total [] 2",
		"h h_sum [] 4", "h h_bucket [{le 1.0}] 2", "h h_bucket [{le +Inf}] 1",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("entries (-want +got):\n%s", diff)
	}
}
