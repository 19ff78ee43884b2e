package main

import (
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// ms makes durations of milliseconds.
func ms(values ...float64) []time.Duration {
	var out []time.Duration
	for _, v := range values {
		out = append(out, time.Duration(v*float64(time.Millisecond)))
	}
	return out
}

// smallReport has one data set, in the order in which turns leave it: ours before the library.
func smallReport() *report {
	r := newReport()
	r.setup = []string{"kernel: Linux"}
	r.absent = []string{"Ruby files are left out: no Ruby"}
	d := allDatasets()[2]
	put := func(v variant, wall, cpu float64) {
		r.add(d, v, cost{ms(wall)[0], ms(cpu)[0]}, memory{30 << 20, 40 << 20})
	}
	put(variant{ours, pythonFiles, warm, zstandard}, 12, 20)
	put(variant{ours, pythonFiles, warm, identity}, 10, 16)
	put(variant{"client", pythonFiles, warm, gzipped}, 840, 830)
	put(variant{"client", pythonFiles, warm, identity}, 800, 800)
	put(variant{ours, pythonFiles, first, identity}, 100, 150)
	r.sizes = []size{{d, pythonFiles, 100 << 20, 3072}}
	return r
}

func TestReport(t *testing.T) {
	var b strings.Builder
	r := smallReport()
	r.writeTable(&b)
	r.writeSizes(&b)
	want := `
| data set | contender | wall ms | CPU ms | RSS MiB | peak MiB | wall × | CPU × |
|---|---|--:|--:|--:|--:|--:|--:|
| D3 | client, warm, identity | 800 | 800 | 30.0 | 40.0 | – | – |
| D3 | client, warm, gzip | 840 | 830 | 30.0 | 40.0 | – | – |
| D3 | prefork_exporter on Python files, warm, identity | 10.0 | 16.0 | 30.0 | 40.0 | 80.0 | 50.0 |
| D3 | prefork_exporter on Python files, warm, zstd | 12.0 | 20.0 | 30.0 | 40.0 | 70.0 | 41.5 |
| D3 | prefork_exporter on Python files, first, identity | 100 | 150 | 30.0 | 40.0 | – | – |

| data set | written by | processes | files | used MiB | warm ns per used byte |
|---|---|--:|--:|--:|--:|
| D3 | Python | 512 | 3072 | 100.0 | 0.095 |
`
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Error(diff)
	}
}

func TestReportTargets(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*report)
		want   string
	}{
		"a ratio that is reached": {func(*report) {},
			"| warm scrape of D3 against Python's library | ≥ 60 × | 80.0 | 50.0 | – | – | yes |"},
		"a ratio that is not": {func(r *report) {
			r.tallies[key{"D3", variant{ours, pythonFiles, warm, identity}}].walls = ms(16)
		}, "| warm scrape of D3 against Python's library | ≥ 60 × | 50.0 | 50.0 | – | – | no |"},
		"a ratio without its data set": {func(*report) {},
			"| warm scrape of D1 against Python's library | ≥ 10 × | – | – | – | – | not measured |"},
		"memory, by its peak": {func(*report) {}, "at its peak: 40.0 MiB (RSS 30.0 MiB): yes"},
		"memory that the soak drove up": {func(r *report) {
			r.soak = &soakResult{"D3", []soakPoint{{10, memory{31 << 20, 50 << 20}, 9}}}
		}, "at its peak: 50.0 MiB (RSS 31.0 MiB): no"},
		"no soak":   {func(*report) {}, "the end within 10 % of the middle: not measured"},
		"no growth": {func(*report) {}, "– ns and 0.095 ns, – ×: not measured"},
		"growth": {func(r *report) {
			d4 := allDatasets()[3]
			r.add(d4, variant{ours, pythonFiles, warm, identity}, cost{wall: ms(40)[0]}, memory{})
			r.sizes = append(r.sizes, size{d4, pythonFiles, 100 << 20, 12288})
		}, "0.381 ns and 0.095 ns, 4.00 ×: no"},
		"a flat soak": {func(r *report) {
			r.soak = &soakResult{"D3", []soakPoint{
				{10, memory{20 << 20, 20 << 20}, 9}, {50, memory{30 << 20, 30 << 20}, 9},
				{100, memory{31 << 20, 31 << 20}, 9},
			}}
		}, "30.0 MiB and 31.0 MiB, 1.03 ×: yes"},
	} {
		t.Run(name, func(t *testing.T) {
			r := smallReport()
			tc.change(r)
			var b strings.Builder
			r.writeTargets(&b)
			if !strings.Contains(b.String(), tc.want) {
				t.Errorf("lacks %q:\n%s", tc.want, b.String())
			}
		})
	}
}

func TestReportParts(t *testing.T) {
	r := smallReport()
	r.limited = []limitResult{
		{dataset: "D2", impossible: errors.Join(errors.New("none is writable"), errors.New("read-only"))},
		{dataset: "D3", files: pythonFiles, version: 2, first: time.Second, walls: ms(4, 1, 3, 2), throttled: 7},
	}
	r.soak = &soakResult{"D3", []soakPoint{{10, memory{1 << 20, 2 << 20}, 11}}}
	var b strings.Builder
	if err := r.write(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"- kernel: Linux\n- Ruby files are left out: no Ruby\n",
		"D2 under a CPU limit: not possible here: none is writable; read-only\n",
		"4 scrapes, one every 500ms: first 1000 ms, then p50 2.00 ms, p99 4.00 ms, worst 4.00 ms; throttled in 7 periods",
		"given up after 4 scrapes of 100.\n",
		"| 10 | 1.0 | 2.0 | 11 |\n",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("lacks %q:\n%s", want, b.String())
		}
	}
}

func TestPercentile(t *testing.T) {
	for name, tc := range map[string]struct {
		of   []time.Duration
		p    int
		want float64
	}{
		"none":                             {nil, 50, 0},
		"one":                              {ms(5), 99, 5},
		"the middle of three in any order": {ms(3, 1, 2), 50, 2},
		"the lower one of an even number":  {ms(4, 1, 3, 2), 50, 2},
		"the last but one of a hundred":    {ms(hundred()...), 99, 99},
		"the worst":                        {ms(hundred()...), 100, 100},
	} {
		t.Run(name, func(t *testing.T) {
			if got := percentile(tc.of, tc.p); got != ms(tc.want)[0] {
				t.Errorf("= %v, want %v ms", got, tc.want)
			}
		})
	}
}

func hundred() []float64 {
	var out []float64
	for i := range 100 {
		out = append(out, float64(i+1))
	}
	return out
}

func TestRatio(t *testing.T) {
	if got := ratio(time.Second, 10*time.Millisecond); got != 100 {
		t.Errorf("ratio = %v, want 100", got)
	}
	if got := ratio(time.Second, 0); !math.IsNaN(got) {
		t.Errorf("ratio to nothing = %v, want NaN", got)
	}
}

func TestNumber(t *testing.T) {
	for v, want := range map[float64]string{0.0123: "0.012", 1.234: "1.23", 12.34: "12.3", 1234.5: "1234"} {
		if got := number(v); got != want {
			t.Errorf("number(%v) = %s, want %s", v, got, want)
		}
	}
}
