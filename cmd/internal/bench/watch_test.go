package main

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"
)

// TestRunOfWatch measures the real programs, for as short as can be.
func TestRunOfWatch(t *testing.T) {
	if testing.Short() || runtime.GOOS != "linux" {
		t.Skip("builds and runs the sidecar, which watches on Linux, for some seconds")
	}
	needPython(t)
	none := []string{"--only=watch", "--watch-window=0", "--watch-scrapes=0", "--watch-deaths=0", "--pairs=0"}
	for name, tc := range map[string]struct {
		args  string
		needs string
		want  []string
	}{
		"rest":    {"--watch-window=200ms", "/usr/bin/gunicorn", []string{"watch, 16 workers of gunicorn at rest, 4989 merged series", "| 0 | 2 | "}},
		"scrapes": {"--watch-scrapes=2", "", []string{"watch, scrapes of 500 workers", "| 2 | "}},
		"deaths":  {"--watch-deaths=2", "/usr/bin/gunicorn", []string{"| workers of gunicorn, load average", "| 2 | "}},
		"deaths without gunicorn": {"--watch-deaths=1 --gunicorn=/nowhere/gunicorn --pairs=5", "", []string{
			"no gunicorn at /nowhere/gunicorn", "and no pairs", "| workers of forker.py, load average", "| 1 | "}},
		"pairs": {"--pairs=5 --pair-time=50ms", "/usr/bin/wrk", []string{"load: wrk", "| runs of 0.05 s in turns", "by Student's t"}},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := exec.LookPath(tc.needs); tc.needs != "" && err != nil {
				t.Skip(err)
			}
			var out bytes.Buffer
			if err := run(t.Context(), append(none, strings.Fields(tc.args)...), &out, io.Discard); err != nil {
				t.Error(err)
			}
			for _, want := range tc.want {
				if !strings.Contains(out.String(), want) {
					t.Errorf("output lacks %q:\n%s", want, &out)
				}
			}
			if n := strings.Count(out.String(), "| watch, ") + strings.Count(out.String(), "| supervise, "); n != 1 {
				t.Errorf("output has %d tables, want that which was asked for:\n%s", n, &out)
			}
		})
	}
}

// The margin of the second is t(4) ln 2 / √5 = 2.776 · 0.310, in logarithms.
func TestRatioInterval(t *testing.T) {
	nan := math.NaN()
	for name, tc := range map[string]struct {
		with, without []float64
		want          interval
	}{
		"runs that are all alike":                 {[]float64{90, 180, 9}, []float64{100, 200, 10}, interval{0.9, 0.9, 0.9}},
		"the bounds of twice as much and of half": {[]float64{2, 1, 2, 1, 1}, []float64{1, 2, 1, 2, 1}, interval{1, 0.42, 2.36}},
		"one pair has no interval":                {[]float64{1}, []float64{1}, interval{nan, nan, nan}},
		"a run that lacks its other":              {[]float64{1, 2, 3}, []float64{1, 2}, interval{nan, nan, nan}},
	} {
		t.Run(name, func(t *testing.T) {
			got := ratioInterval(tc.with, tc.without)
			if text, want := fmt.Sprintf("%.2f", got), fmt.Sprintf("%.2f", tc.want); text != want {
				t.Errorf("= %s, want %s", text, want)
			}
		})
	}
}

// The values are those of any table of the distribution.
func TestStudent(t *testing.T) {
	for freedom, want := range map[float64]float64{4: 2.776, 9: 2.262, 19: 2.093, 100: 1.984} {
		if got := student975(freedom); math.Abs(got-want) > 0.002 {
			t.Errorf("of %v degrees of freedom = %.4f, want %v", freedom, got, want)
		}
	}
}

func TestReportOfWatch(t *testing.T) {
	load := under{"1.50", "2.25"}
	rest := func(cpu float64, rss int64) *restResult {
		return &restResult{
			server: "gunicorn", workers: 16, series: 4989, window: 100 * time.Second, scrapes: 8, cpu: ms(cpu)[0],
			memory: memory{rss << 20, 30 << 20}, atEnd: memory{20 << 20, 30 << 20}, load: load,
		}
	}
	for name, tc := range map[string]struct {
		report report
		want   []string
	}{
		"a sidecar that costs little": {report{rest: rest(400, 25)}, []string{
			"| all collectors, load average 1.50 to 2.25 | 100 | 8 | 0.400 | 25.0 | 20.0 | 30.0 |\n",
			"- the sidecar in at most 25 MiB: 25.0 MiB: yes\n", "- less than 0.5 % of a core: 0.400 %: yes\n",
		}},
		"one that costs much": {report{rest: rest(500, 26)}, []string{"26.0 MiB: no\n", "0.500 %: no\n"}},
		"fast scrapes": {report{crowd: &crowdResult{500, ms(50, 20, 10), memory{rss: 1 << 20}, load}}, []string{
			"| 3 | 20.0 | 50.0 | 50.0 | 1.0 |\n", "- within 50ms at the 99th percentile: 50.0 ms: yes\n",
		}},
		"slow scrapes": {report{crowd: &crowdResult{500, ms(50.1), memory{}, load}}, []string{": 50.1 ms: no\n"}},
		"deaths that are known soon, and late": {report{watchDeaths: &watchDeathResult{"gunicorn", append(ms(hundred()...), ms(1000)...), load}}, []string{
			"| workers of gunicorn, load average 1.50 to 2.25 | 101 | 51.0 | 100 | 1000 |\n", "percentile: 100 ms: yes\n",
		}},
		"deaths that are known late": {report{watchDeaths: &watchDeathResult{"gunicorn", ms(101), load}}, []string{"percentile: 101 ms: no\n"}},
		"a sidecar that is not felt": {report{pairs: &pairsResult{[]float64{100, 200}, []float64{97, 194}, 2, 3, ms(40)[0], load}}, []string{
			"| runs of 2 s in turns, load average 1.50 to 2.25 | 2 | 146 | 150 | 3 | 1.00 | 0.970 | 0.970 to 0.970 |\n", "0.970: yes\n",
		}},
		"one that is": {report{pairs: &pairsResult{[]float64{100, 200}, []float64{96, 192}, 2, 0, 0, load}}, []string{"0.960: no\n"}},
	} {
		t.Run(name, func(t *testing.T) {
			var b strings.Builder
			if err := tc.report.write(&b); err != nil {
				t.Fatal(err)
			}
			for _, want := range tc.want {
				if !strings.Contains(b.String(), want) {
					t.Errorf("lacks %q:\n%s", want, b.String())
				}
			}
			if n := strings.Count(b.String(), "|---|"); n != 1 {
				t.Errorf("it has %d tables, want what was measured:\n%s", n, b.String())
			}
		})
	}
}
