package expo

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/prefork-exporter/prefork_exporter/multiproc"
	"github.com/prefork-exporter/prefork_exporter/multiproc/fixture"
)

// FuzzText merges a file that holds any text and any key, and renders it in
// every way. Prometheus must be able to read each rendering; with names as they
// are it must read what the snapshot holds, and else as many samples.
func FuzzText(f *testing.F) {
	f.Add("a", "x", "y", "v", "help", 1.5, []byte(`["b", "b_total", {"x": "\ud800"}, "\udfff"]`), uint8(0))
	f.Add("h.ü", "le", "x.y", "1e5", "a\\\n\"b", 3.0, []byte(`["h","h_bucket",["le","x"],[null,1]]`), uint8(2))
	f.Add("a\"\n\\", "\"\n\\", "\x00", "a\x00\r\n\\\"", "\n# EOF\n", -1e300, []byte(`["a\u0000","a\u0000_total",{"\u0000":"\u0000"},"\u0000"]`), uint8(1))
	f.Add("..name..", "..name..", "_", strings.Repeat("\\", 5000), "", 0.0, []byte(`["..","..",{"__":"\x41"},""]`), uint8(3))
	f.Add("a.b", "x_y", "x.y", "\xff\xfe", "\xff", 2.0, []byte(`["a_b","a_b",{"x-y":"1","é":""},"m"]`), uint8(5))
	for i, b := range fixture.Small(f, "client_python-HEAD", ".db", 400) {
		f.Add("a", "x", "y", "v", "help", 1.0, b, uint8(i))
	}
	kinds := []struct{ file, suffix string }{
		{"counter_1.db", "_total"}, {"gauge_all_1.db", ""}, {"histogram_1.db", "_bucket"}, {"summary_1.db", "_sum"},
		{"histogram_1.db", "_count"}, {"gauge_sum_1.db", "_stray"}, {"counter_1.db", ""},
	}
	f.Fuzz(func(t *testing.T, family, label, other, value, help string, v float64, key []byte, kind uint8) {
		k := kinds[int(kind)%len(kinds)]
		pair := map[string]string{label: value, other: "1"}
		dir := t.TempDir()
		b := metricFile(v, keyOf(family, family+k.suffix, pair, help), keyOf("a_b", "a_b"+k.suffix, pair, help),
			keyOf("h", "h"+k.suffix, map[string]string{label: value, "le": "1"}, help), string(key))
		if err := os.WriteFile(filepath.Join(dir, k.file), b, 0o600); err != nil {
			t.Fatal(err)
		}
		checkRenderings(t, merge(t, multiproc.Source{Path: dir, Labels: map[string]string{"site": "a"}}))
	})
}

// checkRenderings renders s in every way that there is.
func checkRenderings(t *testing.T, s *multiproc.Snapshot) {
	t.Helper()
	want, ok := flat(s)
	if !ok {
		return // files may hold two label sets that Prometheus takes for the same
	}
	for _, scheme := range []model.EscapingScheme{
		model.NoEscaping, model.UnderscoreEscaping, model.DotsEscaping, model.ValueEncodingEscaping,
	} {
		for _, o := range []Options{{Escaping: scheme}, {Escaping: scheme, OpenMetrics: true}} {
			if o.OpenMetrics && !OpenMetrics(s.Layout) {
				continue // never offered
			}
			text, dropped := render(t, s, o)
			got := mustScrape(t, text, contentType(o))
			if scheme == model.NoEscaping && !equalValues(got.Samples, want) {
				t.Errorf("%s: samples differ (-want +got):\n%s", contentType(o), cmp.Diff(want, got.Samples, cmpopts.EquateNaNs()))
			}
			if len(got.Samples)+dropped != s.Samples {
				t.Errorf("%s: %d samples and %d dropped, want %d\n%q", contentType(o), len(got.Samples), dropped, s.Samples, text)
			}
		}
		families, _ := Families(s, Options{Escaping: scheme})
		f := expfmt.FmtProtoDelim.WithEscapingScheme(scheme)
		mustScrape(t, encode(t, families, f), f)
	}
}

// flat returns the samples of s that can be written, as Prometheus names them.
// It returns false when it takes two of them for the same.
func flat(s *multiproc.Snapshot) (map[string]float64, bool) {
	out := map[string]float64{}
	for _, f := range s.Families {
		for i, sample := range f.Samples {
			name := f.Name + sample.Part.Suffix()
			b := labels.NewScratchBuilder(0)
			b.Add(model.MetricNameLabel, name)
			good := printable(name)
			for _, l := range sample.Labels {
				b.Add(l.Name, normal(f.Type, l.Name, l.Value))
				good = good && printable(l.Name) && utf8.ValidString(l.Value)
			}
			if sample.Part == multiproc.PartBucket {
				b.Add("le", normal(f.Type, "le", sample.Bound))
			}
			b.Sort()
			series := b.Labels().String()
			if _, twice := out[series]; twice {
				return nil, false
			}
			if good {
				out[series] = s.Values[f.First+i]
			}
		}
	}
	return out, true
}

func printable(name string) bool { return utf8.ValidString(name) && !strings.Contains(name, "\x00") }

// normal returns a label's value as Prometheus's parsers change it: bounds and
// quantiles are written in one way.
func normal(typ multiproc.Type, name, value string) string {
	if !(typ == multiproc.Histogram && name == "le" || typ == multiproc.Summary && name == "quantile") {
		return value
	}
	v, err := strconv.ParseFloat(value, 64)
	if err != nil {
		return value
	}
	text := strconv.FormatFloat(v, 'g', -1, 64)
	if strings.ContainsAny(text, "e.IN") {
		return text
	}
	return text + ".0"
}
