package collector

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"math"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
)

// Clocks are those of synctest's bubbles: they stand still but for what waits.

func TestABadCollectorCostsItselfOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		var log bytes.Buffer
		set := NewSet(slog.New(slog.NewTextHandler(&log, nil)), map[string]Collector{
			"works": gives("works"),
			"fails": fake(func(_ context.Context, out *Output) error {
				out.Add(testMetric("before_the_error"))
				return errors.New("no such thing")
			}),
			"hangs": fake(func(ctx context.Context, out *Output) error {
				out.Add(testMetric("before_the_end"))
				<-ctx.Done()
				<-release // and longer
				out.Add(testMetric("too_late"))
				return nil
			}),
			"panics": fake(func(_ context.Context, out *Output) error {
				out.Add(testMetric("before_the_panic"))
				panic("out of its mind")
			}),
		}, 10*time.Second)
		const want = `# HELP prefork_scrape_collector_duration_seconds Time that the collector took for this scrape.
# TYPE prefork_scrape_collector_duration_seconds gauge
prefork_scrape_collector_duration_seconds{collector="fails"} 0
prefork_scrape_collector_duration_seconds{collector="hangs"} 10
prefork_scrape_collector_duration_seconds{collector="panics"} 0
prefork_scrape_collector_duration_seconds{collector="works"} 0
# HELP prefork_scrape_collector_success Whether the collector gave all it has to this scrape.
# TYPE prefork_scrape_collector_success gauge
prefork_scrape_collector_success{collector="fails"} 0
prefork_scrape_collector_success{collector="hangs"} 0
prefork_scrape_collector_success{collector="panics"} 0
prefork_scrape_collector_success{collector="works"} 1
# HELP test_before_the_error A test.
# TYPE test_before_the_error gauge
test_before_the_error 1
# HELP test_works A test.
# TYPE test_works gauge
test_works 1
`
		for range 2 { // the second time while the first one's straggler is still there
			s, err := set.Gather(t.Context(), set.Names())
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, textOf(t, s.Families())); diff != "" {
				t.Errorf("scrape differs (-want +got):\n%s", diff)
			}
		}
		close(release)
		synctest.Wait()
		for _, line := range []string{
			`collector=fails err="no such thing"`, `collector=hangs err="context deadline exceeded" after=10s`,
			`collector=panics err="panic: out of its mind"`, "set_test.go", // of the panic's stack
		} {
			if strings.Count(log.String(), line) < 2 {
				t.Errorf("no two times %q in the log:\n%s", line, log.String())
			}
		}
		if strings.Contains(log.String(), "collector=works") {
			t.Errorf("the log blames the collector that works:\n%s", log.String())
		}
	})
}

func TestAValueWithoutItsLabelsCostsItsCollectorOnly(t *testing.T) {
	for name, labels := range map[string][]string{"none": nil, "too many": {"alive", "dead"}} {
		t.Run(name, func(t *testing.T) {
			set := NewSet(quiet(), map[string]Collector{"works": gives("works"), "fails": fake(func(_ context.Context, out *Output) error {
				out.Add(Describe("prefork_multiproc_files").Value(1, labels...))
				return nil
			})}, time.Minute)
			s, err := set.Gather(t.Context(), set.Names())
			if err != nil {
				t.Fatal(err)
			}
			want := []string{"prefork_scrape_collector_duration_seconds", "prefork_scrape_collector_success", "test_works"}
			if got := names(s.Families()); !slices.Equal(got, want) {
				t.Errorf("families %v, want %v", got, want)
			}
		})
	}
}

func TestAScrapeEndsAtTheFirstOfItsDeadlines(t *testing.T) {
	for name, tc := range map[string]struct {
		set, request time.Duration // 0: none
		want         time.Duration
	}{
		"the set's":                      {10 * time.Second, 0, 10 * time.Second},
		"the set's, before the client's": {time.Second, time.Minute, time.Second},
		"the client's":                   {time.Minute, 2500 * time.Millisecond, 2500 * time.Millisecond},
	} {
		for kind, hang := range map[string]fake{
			"a collector that obeys": func(ctx context.Context, _ *Output) error {
				<-ctx.Done()
				return ctx.Err()
			},
			"a collector that waits for another minute": func(ctx context.Context, _ *Output) error {
				<-ctx.Done()
				<-time.After(time.Minute)
				return nil
			},
		} {
			t.Run(name+", "+kind, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					set := NewSet(quiet(), map[string]Collector{"hangs": hang, "works": gives("works")}, tc.set)
					ctx := t.Context()
					if tc.request > 0 {
						var cancel context.CancelFunc
						ctx, cancel = context.WithTimeout(ctx, tc.request)
						defer cancel()
					}
					start := time.Now()
					s, err := set.Gather(ctx, set.Names())
					if err != nil {
						t.Fatal(err)
					}
					if passed := time.Since(start); passed != tc.want {
						t.Errorf("the scrape took %v, want %v", passed, tc.want)
					}
					if got := names(s.Families()); !slices.Contains(got, "test_works") {
						t.Errorf("families %v, want test_works among them", got)
					}
					<-time.After(2 * time.Minute) // the last one is done
				})
			})
		}
	}
}

func TestAScrapeEndsWithItsClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		set := NewSet(quiet(), map[string]Collector{"hangs": fake(func(ctx context.Context, _ *Output) error {
			<-ctx.Done()
			return ctx.Err()
		})}, time.Hour)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			if s, err := set.Gather(ctx, set.Names()); err != nil || len(s.Families()) != 2 {
				t.Errorf("Gather = %v, %v; want what it knows of the collector", s, err)
			}
		}()
		synctest.Wait()
		cancel()
		<-done
	})
}

func TestAScrapeDoesNotWaitWhenAllIsThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		set := NewSet(quiet(), map[string]Collector{"a": gives("a"), "b": gives("b")}, time.Hour)
		if _, err := set.Gather(t.Context(), set.Names()); err != nil || time.Since(start) != 0 {
			t.Errorf("the scrape took %v, %v; want no time", time.Since(start), err)
		}
	})
}

func TestCollectorsRunSideBySide(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		meet := make(chan struct{}) // each waits for the other
		set := NewSet(quiet(), map[string]Collector{
			"sends": fake(func(_ context.Context, out *Output) error {
				meet <- struct{}{}
				return gives("sends")(nil, out)
			}),
			"receives": fake(func(_ context.Context, out *Output) error {
				<-meet
				return gives("receives")(nil, out)
			}),
		}, time.Hour)
		if s, err := set.Gather(t.Context(), set.Names()); err != nil || len(s.Families()) != 4 {
			t.Errorf("families %v, %v; want those of both", names(s.Families()), err)
		}
	})
}

func TestOnlyTheCollectorsThatAreNamedRun(t *testing.T) {
	set := NewSet(quiet(), map[string]Collector{"a": gives("a"), "b": gives("b"), "c": gives("c")}, time.Minute)
	for name, tc := range map[string]struct{ names, want []string }{
		"all":  {set.Names(), []string{"test_a", "test_b", "test_c"}},
		"two":  {[]string{"c", "a"}, []string{"test_a", "test_c"}},
		"none": {nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := set.Gather(t.Context(), tc.names)
			if err != nil {
				t.Fatal(err)
			}
			got := slices.DeleteFunc(names(s.Families()), func(name string) bool { return !strings.HasPrefix(name, "test_") })
			if !slices.Equal(got, tc.want) {
				t.Errorf("families %v, want %v", got, tc.want)
			}
		})
	}
}

func TestAScrapeIsAlwaysInTheSameOrder(t *testing.T) {
	collectors := map[string]Collector{}
	for _, name := range []string{"a", "b", "c", "d", "e", "f"} {
		collectors[name] = fake(func(_ context.Context, out *Output) error {
			out.Add(testMetric("of_" + name))
			out.AddFamilies(&dto.MetricFamily{
				Name: new("family_of_" + name), Type: new(dto.MetricType_GAUGE), Metric: []*dto.Metric{{Gauge: &dto.Gauge{Value: new(1.)}}},
			})
			return nil
		})
	}
	set := NewSet(quiet(), collectors, time.Minute)
	var before string
	for range 20 {
		s, err := set.Gather(t.Context(), set.Names())
		if err != nil {
			t.Fatal(err)
		}
		families := s.Families()
		if got := names(families); !slices.IsSorted(got) {
			t.Fatalf("families %v are not sorted", got)
		}
		for _, f := range families {
			for _, m := range f.GetMetric() {
				m.Gauge.Value = new(0.) // a time that passed differs
			}
		}
		text := textOf(t, families)
		if before != "" && text != before {
			t.Fatalf("two scrapes differ:\n%s", cmp.Diff(before, text))
		}
		before = text
	}
}

func TestAFamilyOfTwoCollectorsIsOne(t *testing.T) {
	feature := func(names ...string) fake {
		return func(_ context.Context, out *Output) error {
			for _, name := range names {
				out.Add(gauge(Describe("prefork_feature_available"), 1, name, ""))
			}
			return nil
		}
	}
	h := newHandler(t, HandlerOptions{}, map[string]Collector{"one": feature("a", "c"), "other": feature("b", "d")})
	const want = `# HELP prefork_feature_available Whether a feature can be had here (1), or why not (0).
# TYPE prefork_feature_available gauge
prefork_feature_available{feature="a",reason=""} 1
prefork_feature_available{feature="b",reason=""} 1
prefork_feature_available{feature="c",reason=""} 1
prefork_feature_available{feature="d",reason=""} 1
`
	if diff := cmp.Diff(want, string(ask(t, h, http.MethodGet, "/metrics?name[]=prefork_feature_available").body)); diff != "" {
		t.Errorf("text (-want +got):\n%s", diff)
	}
	set := NewSet(quiet(), map[string]Collector{"one": feature("a", "c"), "other": feature("b", "d")}, time.Minute)
	s, err := set.Gather(t.Context(), set.Names())
	if err != nil {
		t.Fatal(err)
	}
	if got := textOf(t, s.Families()[:1]); got != want {
		t.Errorf("families:\n%s", got)
	}
}

func TestMetricsThatContradictEachOtherCostThemselvesOnly(t *testing.T) {
	other := prometheus.MustNewConstMetric(prometheus.NewDesc("test_a", "Another help.", nil, nil), prometheus.GaugeValue, 1)
	for name, bad := range map[string]prometheus.Metric{
		"the same metric twice": testMetric("a"),
		"another help":          other,
		"a metric in error":     prometheus.NewInvalidMetric(prometheus.NewInvalidDesc(errors.New("x")), errors.New("cannot be made")),
	} {
		t.Run(name, func(t *testing.T) {
			set := NewSet(quiet(), map[string]Collector{"good": gives("a"), "fine": gives("b"), "bad": fake(func(_ context.Context, out *Output) error {
				out.Add(bad)
				return nil
			})}, time.Minute)
			s, err := set.Gather(t.Context(), set.Names())
			if err == nil || !strings.HasPrefix(err.Error(), "gather: ") {
				t.Errorf("Gather = %v, want what is wrong", err)
			}
			got := names(s.Families())
			for _, want := range []string{"test_a", "test_b", "prefork_scrape_collector_success"} {
				if !slices.Contains(got, want) {
					t.Errorf("families %v, want %s among them", got, want)
				}
			}
		})
	}
}

// names returns the names of families.
func names(families []*dto.MetricFamily) []string {
	var all []string
	for _, f := range families {
		all = append(all, f.GetName())
	}
	return all
}

func TestTheTextOfTheCatalogueIsWhatClientGolangWouldWrite(t *testing.T) {
	gauges, counters := Describe("prefork_feature_available"), Describe("prefork_multiproc_file_errors_total")
	s, err := scrape(&Output{metrics: []prometheus.Metric{
		counter(counters, 7, "open"), gauge(gauges, 1, "state", ""), gauge(gauges, 0, "liveness", "a \"reason\"\\\nof two lines"),
		counter(counters, 12345.5, "list"), gauge(Describe("prefork_up"), math.Inf(1)),
	}})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range []expfmt.Format{expfmt.FmtText, expfmt.FmtOpenMetrics_1_0_0} {
		openMetrics := f.FormatType() == expfmt.TypeOpenMetrics
		var got, want bytes.Buffer
		if err := s.writeText(&got, openMetrics, query{}); err != nil {
			t.Fatal(err)
		}
		e := expfmt.NewEncoder(&want, f)
		for _, family := range s.Families() {
			if err := e.Encode(family); err != nil {
				t.Fatal(err)
			}
		}
		text := strings.NewReplacer(" 7.0\n", " 7\n", " 1.0\n", " 1\n", " 0.0\n", " 0\n").Replace(want.String()) // both are right
		if diff := cmp.Diff(text, got.String()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", f, diff)
		}
	}
}
