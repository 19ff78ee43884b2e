package expo

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/prefork-exporter/prefork_exporter/multiproc"
)

// shown is what of a snapshot an exposition has.
type shown struct {
	series  string // joined
	dropped int
}

// counterKey returns the key of a counter's sample that has one label.
func counterKey(name, label, value string) string {
	return keyOf(strings.TrimSuffix(name, "_total"), name, map[string]string{label: value}, "m")
}

func TestHostileTextCannotBreakTheExposition(t *testing.T) {
	long := strings.Repeat("\\\"\n", 10_000)
	plain := func(name string) []string { return []string{counterKey(name, "x", "1")} }
	both := func(series string, dropped int) [2]shown { return [2]shown{{series, dropped}, {series, dropped}} }
	for name, tc := range map[string]struct {
		file string // counter_1.db unless given
		keys []string
		want [2]shown // names as they are, and with underscores
	}{
		"quotes, newlines and backslashes in a value": {
			"", []string{counterKey("a_total", "x", "\"} 1\nb_total{x=\"\\")}, both(`{__name__="a_total", x="\"} 1\nb_total{x=\"\\"}`, 0),
		},
		"a value that ends in a backslash":  {"", []string{counterKey("a_total", "x", `\`)}, both(`{__name__="a_total", x="\\"}`, 0)},
		"a zero byte in a value":            {"", []string{counterKey("a_total", "x", "a\x00b")}, both(`{__name__="a_total", x="a\x00b"}`, 0)},
		"a carriage return in a value":      {"", []string{counterKey("a_total", "x", "a\r\nb")}, both(`{__name__="a_total", x="a\r\nb"}`, 0)},
		"half of a surrogate pair":          {"", []string{`["a", "a_total", {"x": "\ud800"}, "\udfff"]`}, both("{__name__=\"a_total\", x=\"\ufffd\"}", 0)},
		"an escape that JSON has not":       {"", []string{`["a", "a_total", {"x": "\x41"}, "m"]`}, both("", 0)},
		"a value of 30,000 signs to escape": {"", []string{counterKey("a_total", "x", long)}, both(`{__name__="a_total", x="`+strings.Repeat(`\\\"\n`, 10_000)+`"}`, 0)},
		"an exposition as a help text":      {"", []string{keyOf("a", "a_total", nil, "m\n# EOF\nb 1\n\\")}, both(`{__name__="a_total"}`, 0)},
		"a zero byte in a help text":        {"", []string{keyOf("a", "a_total", nil, "\x00\x00m\x00")}, both(`{__name__="a_total"}`, 0)},
		"an empty help text":                {"", []string{keyOf("a", "a_total", nil, "")}, both(`{__name__="a_total"}`, 0)},
		"a help text of blanks and returns": {"", []string{keyOf("a", "a_total", nil, " \t\r")}, both(`{__name__="a_total"}`, 0)},
		"quotes and newlines in a name":     {"", plain("a\"\n\\_total"), [2]shown{{`{__name__="a\"\n\\_total", x="1"}`, 0}, {`{__name__="a____total", x="1"}`, 0}}},
		"a brace in a name":                 {"", plain(`a{b="c"} 1_total`), [2]shown{{`{__name__="a{b=\"c\"} 1_total", x="1"}`, 0}, {`{__name__="a_b__c___1_total", x="1"}`, 0}}},
		"quotes and newlines in a label":    {"", []string{counterKey("a_total", "\"\n\\", "1")}, [2]shown{{`{"\"\n\\"="1", __name__="a_total"}`, 0}, {`{___="1", __name__="a_total"}`, 0}}},
		"a zero byte in a name":             {"", plain("a\x00_total"), [2]shown{{"", 1}, {`{__name__="a__total", x="1"}`, 0}}},
		"a zero byte in a label":            {"", []string{counterKey("a_total", "x\x00", "1")}, [2]shown{{"", 1}, {`{__name__="a_total", x_="1"}`, 0}}},
		"a process id that is no text":      {"gauge_all_\xff.db", plain("a"), both("", 1)},
		"a label that becomes __name__":     {"", []string{counterKey("a_total", "..name..", "b")}, [2]shown{{`{"..name.."="b", __name__="a_total"}`, 0}, {"", 1}}},
		"a name that becomes one of ours":   {"", plain("prefork.up"), [2]shown{{`{__name__="prefork.up", x="1"}`, 0}, {"", 1}}},
		"two labels that become one":        {"", []string{keyOf("a", "a_total", map[string]string{"x.y": "1", "x_y": "2"}, "m")}, [2]shown{{`{__name__="a_total", "x.y"="1", x_y="2"}`, 0}, {"", 1}}},
		"two label sets that become one": {
			"", []string{counterKey("a_total", "x_y", "1"), counterKey("a_total", "x-y", "1"), counterKey("a_total", "x.y", "1")},
			[2]shown{{`{__name__="a_total", "x-y"="1"} {__name__="a_total", "x.y"="1"} {__name__="a_total", x_y="1"}`, 0}, {`{__name__="a_total", x_y="1"}`, 2}},
		},
		"a label set that becomes one before it": {
			"", []string{counterKey("a_total", "x_y", "1"), counterKey("a_total", "x~y", "1"), counterKey("a_total", "x~y", "2")},
			[2]shown{
				{`{__name__="a_total", "x~y"="1"} {__name__="a_total", "x~y"="2"} {__name__="a_total", x_y="1"}`, 0},
				{`{__name__="a_total", x_y="1"} {__name__="a_total", x_y="2"}`, 1},
			},
		},
		"label sets that become one in another order": {
			"", []string{keyOf("a", "a_total", map[string]string{"a.b": "1", "a.c": "2"}, "m"), keyOf("a", "a_total", map[string]string{"a.c": "2", "a~b": "1"}, "m")},
			[2]shown{{`{__name__="a_total", "a.b"="1", "a.c"="2"} {__name__="a_total", "a.c"="2", "a~b"="1"}`, 0}, {`{__name__="a_total", a_b="1", a_c="2"}`, 1}},
		},
		"two families that become one": {
			"", []string{counterKey("a.b_total", "x", "1"), counterKey("a_b_total", "x", "2")},
			[2]shown{{`{__name__="a.b_total", x="1"} {__name__="a_b_total", x="2"}`, 0}, {`{__name__="a_b_total", x="2"}`, 1}},
		},
		"two families that become a third": {
			"", []string{counterKey("a-b_total", "x", "1"), counterKey("a.b_total", "x", "2")},
			[2]shown{{`{__name__="a-b_total", x="1"} {__name__="a.b_total", x="2"}`, 0}, {`{__name__="a_b_total", x="1"}`, 1}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			if tc.file == "" {
				tc.file = "counter_1.db"
			}
			s := mergeFiles(t, map[string][]byte{tc.file: metricFile(3, tc.keys...)})
			for i, scheme := range []model.EscapingScheme{model.NoEscaping, model.UnderscoreEscaping} {
				o := Options{Escaping: scheme, Refuse: func(name string) bool { return strings.HasPrefix(name, "prefork_") }}
				families, lost := Families(s, o)
				protobuf := expfmt.FmtProtoDelim.WithEscapingScheme(scheme)
				if got := show(mustScrape(t, encode(t, families, protobuf), protobuf)); got != tc.want[i].series || lost != tc.want[i].dropped {
					t.Errorf("protobuf, %s: %.300q without %d, want %.300q without %d", scheme, got, lost, tc.want[i].series, tc.want[i].dropped)
				}
				for _, o.OpenMetrics = range []bool{false, true} {
					text, dropped := render(t, s, o)
					if got := show(mustScrape(t, text, contentType(o))); got != tc.want[i].series || dropped != tc.want[i].dropped {
						t.Errorf("%s: %.300q without %d, want %.300q without %d", contentType(o), got, dropped, tc.want[i].series, tc.want[i].dropped)
					}
				}
			}
		})
	}
}

// show returns the series of s in one line.
func show(s scraped) string { return strings.Join(slices.Sorted(maps.Keys(s.Samples)), " ") }

func TestFamiliesThatBecomeOneNeverShareASampleName(t *testing.T) {
	for name, keys := range map[string]map[string]string{
		"a gauge that is called as a histogram's sum": {
			"histogram_1.db": keyOf("a.b", "a.b_sum", nil, "m"), "gauge_max_1.db": keyOf("a_b_sum", "a_b_sum", nil, "m"),
		},
		"a gauge that is called as a histogram": {
			"histogram_1.db": keyOf("a.b", "a.b_sum", nil, "m"), "gauge_max_1.db": keyOf("a_b", "a_b", nil, "m"),
		},
		"a gauge that becomes a histogram's sum": {
			"histogram_1.db": keyOf("a.b", "a.b_sum", nil, "m"), "gauge_max_1.db": keyOf("a~b_sum", "a~b_sum", nil, "m"),
		},
		"a gauge that becomes a histogram": {
			"histogram_1.db": keyOf("a.b", "a.b_sum", nil, "m"), "gauge_max_1.db": keyOf("a~b", "a~b", nil, "m"),
		},
		"a gauge that is called as a summary's count": {
			"summary_1.db": keyOf("a.b", "a.b_count", nil, "m"), "gauge_max_1.db": keyOf("a_b_count", "a_b_count", nil, "m"),
		},
	} {
		t.Run(name, func(t *testing.T) {
			files := map[string][]byte{}
			for file, key := range keys {
				files[file] = metricFile(1, key)
			}
			text, dropped := render(t, mergeFiles(t, files), Options{Escaping: model.UnderscoreEscaping})
			if got := mustScrape(t, text, expfmt.FmtText); dropped != 1 || len(got.Samples) != 1 || len(got.Types) != 1 {
				t.Errorf("dropped %d, %d samples of %d families, want one of each:\n%s", dropped, len(got.Samples), len(got.Types), text)
			}
		})
	}
}

func TestWhatIsNoTextIsLeftOut(t *testing.T) {
	sample := func(name, value string) []multiproc.Sample {
		return []multiproc.Sample{{Labels: []multiproc.Label{{Name: name, Value: value}}}}
	}
	for name, f := range map[string]multiproc.Family{
		"a name":       {Name: "a\xff", Samples: sample("x", "1")},
		"a label":      {Name: "a", Samples: sample("x\xff", "1")},
		"a value":      {Name: "a", Samples: sample("x", "\xff")},
		"half a sign":  {Name: "a", Samples: sample("x", "\xe2\x82")},
		"a whole sign": {Name: "a", Samples: sample("x", "\xe2\x82\xac")},
	} {
		t.Run(name, func(t *testing.T) {
			want := 1
			if name == "a whole sign" {
				want = 0
			}
			s := snapshotOf([]float64{1}, f)
			text, dropped := render(t, s, Options{Escaping: model.NoEscaping})
			mustScrape(t, text, expfmt.FmtText)
			families, lost := Families(s, Options{Escaping: model.NoEscaping})
			encode(t, families, expfmt.FmtProtoDelim.WithEscapingScheme(model.NoEscaping))
			if dropped != want || lost != want {
				t.Errorf("text dropped %d, families %d, want %d", dropped, lost, want)
			}
		})
	}
}

func TestSampleNamesAreEscapedWhole(t *testing.T) {
	s := mergeFiles(t, map[string][]byte{
		"histogram_1.db": metricFile(1, keyOf("h.d", "h.d_bucket", map[string]string{"le": "1", "x.y_z": "1"}, "m"), keyOf("h.d", "h.d_sum", map[string]string{"x.y_z": "1"}, "m")),
		"counter_1.db":   metricFile(1, keyOf("c_d", "c_d_total", nil, "m")),
	})
	for scheme, want := range map[model.EscapingScheme]string{
		model.DotsEscaping: `# HELP c__d m
# TYPE c__d counter
c__d__total 1
# HELP h_dot_d m
# TYPE h_dot_d histogram
h_dot_d__bucket{x_dot_y__z="1",le="1"} 1
h_dot_d__bucket{x_dot_y__z="1",le="+Inf"} 1
h_dot_d__sum{x_dot_y__z="1"} 1
h_dot_d__count{x_dot_y__z="1"} 1
# EOF
`,
		model.ValueEncodingEscaping: `# HELP c_d m
# TYPE c_d counter
c_d_total 1
# HELP U__h_2e_d m
# TYPE U__h_2e_d histogram
U__h_2e_d__bucket{U__x_2e_y__z="1",le="1"} 1
U__h_2e_d__bucket{U__x_2e_y__z="1",le="+Inf"} 1
U__h_2e_d__sum{U__x_2e_y__z="1"} 1
U__h_2e_d__count{U__x_2e_y__z="1"} 1
# EOF
`,
	} {
		if got, dropped := render(t, s, Options{OpenMetrics: true, Escaping: scheme}); string(got) != want || dropped != 0 {
			t.Errorf("%s dropped %d and wrote\n%s\nwant\n%s", scheme, dropped, got, want)
		}
	}
}
