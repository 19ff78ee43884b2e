package multiproc

import (
	"bytes"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/prefork-exporter/prefork_exporter/multiproc/fixture"
	"github.com/prefork-exporter/prefork_exporter/multiproc/fixture/exposition"
)

// flat returns the present samples of a snapshot, by series.
func flat(t testing.TB, s *Snapshot) map[string]float64 {
	t.Helper()
	out := map[string]float64{}
	for _, f := range s.Families {
		for i, sample := range f.Samples {
			v := s.Values[f.First+i]
			if !Present(v) {
				continue
			}
			b := labels.NewBuilder(labels.EmptyLabels())
			b.Set("__name__", f.Name+sample.Part.Suffix())
			for _, l := range sample.Labels {
				b.Set(l.Name, l.Value)
			}
			if sample.Part == PartBucket {
				b.Set("le", sample.Bound)
			}
			series := exposition.Series(b.Labels())
			if _, twice := out[series]; twice {
				t.Errorf("series %s twice", series)
			}
			out[series] = v
		}
	}
	return out
}

// merged merges one directory with a new merger, which has no limit on labels:
// a fixture has one of two and a half megabytes.
func merged(t testing.TB, s Source) map[string]float64 {
	t.Helper()
	limits := DefaultLimits()
	limits.LabelBytes = 4 << 20
	m := New(Options{Limits: limits})
	defer m.Close()
	m.SetSources([]Source{s})
	snap, err := m.Merge(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return flat(t, snap)
}

// sameValues compares samples exactly, but for NaN, which equals itself.
func sameValues(t *testing.T, got, want map[string]float64) {
	t.Helper()
	if diff := cmp.Diff(want, got, cmpopts.EquateNaNs()); diff != "" {
		t.Errorf("samples differ (-want +got):\n%s", diff)
	}
}

func TestMergeEqualsTheClientsOwnMerge(t *testing.T) {
	for _, path := range fixture.Scenarios(t) {
		t.Run(filepath.Dir(path), func(t *testing.T) {
			dir := fixture.Unpack(t, path)
			if sub := filepath.Join(dir, "db"); exists(sub) {
				dir = sub
			}
			expected := "expected.txt"
			if strings.Contains(path, "utf8names") {
				expected = "expected.allow-utf-8.txt" // names as they are; the renderers escape them
			}
			want, err := exposition.Samples(fixture.Read(t, filepath.Join(filepath.Dir(path), expected)), exposition.Text)
			if err != nil {
				t.Fatal(err)
			}
			sameValues(t, merged(t, Source{Path: dir, Direct: clientRuby()}), byDesign(path, want))
		})
	}
}

// clientRuby is what the process that wrote the DirectFileStore's fixture knew
// of its metrics.
func clientRuby() map[string]DirectMetric {
	direct := map[string]DirectMetric{
		"jobs":                    {Type: "counter"},
		"cmax_total":              {Type: "counter", Aggregation: "max"},
		"batch_size":              {Type: "histogram", Buckets: []float64{1, 5, 10}},
		"request_latency_seconds": {Type: "histogram", Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}},
	}
	for _, a := range []string{"sum", "min", "max", "all", "most_recent"} {
		direct["g_"+a] = DirectMetric{Type: "gauge", Aggregation: a}
		direct["gn_"+a] = DirectMetric{Type: "gauge", Aggregation: a}
	}
	return direct
}

// byDesign puts right what upstream's collectors get wrong: Python's cuts the id
// worker_1 to "wor", Ruby's copies escapes of JSON that are none in the text
// format.
func byDesign(path string, want map[string]float64) map[string]float64 {
	var change *strings.Replacer
	switch {
	case strings.Contains(path, "pidnames"):
		change = strings.NewReplacer(`pid="wor"`, `pid="worker_1"`)
	case strings.Contains(path, filepath.Join("ruby-prometheus-client-mmap-0.16.2", "weird")):
		change = strings.NewReplacer(`v="\\r\n"`, `v="\r\n"`, `v="\\t"`, `v="\t"`, `v="\\u0001"`, `v="\x01"`)
	default:
		return want
	}
	out := map[string]float64{}
	for series, v := range want {
		out[change.Replace(series)] = v
	}
	return out
}

func TestAMetricThatNoMapKnowsIsSaidOnce(t *testing.T) {
	dir := fixture.Unpack(t, "client_ruby-4.2.5/basic/db.tar.gz")
	if sub := filepath.Join(dir, "db"); exists(sub) {
		dir = sub
	}
	var log bytes.Buffer
	m := New(Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	defer m.Close()
	m.SetSources([]Source{{Path: dir, Direct: map[string]DirectMetric{"g_sum": {Type: "gauge", Aggregation: "sum"}}}})
	for range 2 {
		watched{t, m}.samples()
	}
	for metric, want := range map[string]int{"g_max": 1, "g_sum": 0} {
		if n := strings.Count(log.String(), "metric="+metric+" "); n != want {
			t.Errorf("logged %d times that %s is in no map, want %d:\n%s", n, metric, want, log.String())
		}
	}
}
