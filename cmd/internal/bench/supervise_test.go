package main

import (
	"bufio"
	"bytes"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"
)

// TestRunOfSupervise measures the real programs, for as short as can be.
func TestRunOfSupervise(t *testing.T) {
	if testing.Short() || runtime.GOOS != "linux" {
		t.Skip("builds and runs supervise, which needs Linux, for some seconds")
	}
	for name, tc := range map[string]struct {
		args  string
		needs string
		want  []string
	}{
		"deaths": {"--deaths=3 --requests=0 --births=0", "", []string{
			"| workers with a socket of --listen | 3 |", "| workers without | 3 |", "- workers without are followed within 50ms",
		}},
		"requests": {"--deaths=0 --requests=1000 --births=0", "/usr/bin/wrk", []string{
			"load: wrk", "| with signals to the master |", "| 1 | 1 | 1 | 1 |\n", "| as long without any |", "| 0 | 0 | 0 | 0 |\n",
		}},
		"births": {"--deaths=0 --requests=0 --births=100", "", []string{"| 0 | – |", "- as many descriptors at the end"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := exec.LookPath(tc.needs); tc.needs != "" && err != nil {
				t.Skip(err)
			}
			var out bytes.Buffer
			if err := run(t.Context(), append(strings.Fields(tc.args), "--only=supervise"), &out, io.Discard); err != nil {
				t.Error(err)
			}
			for _, want := range tc.want {
				if !strings.Contains(out.String(), want) {
					t.Errorf("output lacks %q:\n%s", want, &out)
				}
			}
			if strings.Contains(out.String(), "data set") {
				t.Errorf("output has the tables of other parts:\n%s", &out)
			}
		})
	}
}

// masterThatSays returns a master whose metrics are always the same.
func masterThatSays(t *testing.T, workers int, text string) *master {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		reply(w, []byte(text), identity)
	}))
	e := newExporter(server.Listener.Addr().String())
	t.Cleanup(func() {
		_ = e.close()
		server.Close()
	})
	return &master{e, workers}
}

const fourWorkersRun = "prefork_workers{state=\"running\"} 4\nprefork_workers{state=\"stopping\"} 0\n"

func TestRequestsAddUp(t *testing.T) {
	const inProgress = "prefork_worker_requests_in_progress{worker_id=\"0\"} 0\n"
	for name, tc := range map[string]struct {
		counted string
		want    string // part of the error; "" for none
	}{
		"as many as wrk was answered":          {"{worker_id=\"0\"} 60\nprefork_worker_requests_total{worker_id=\"1\"} 40\n", ""},
		"and those that were under way":        {"{worker_id=\"0\"} 118\n", ""},
		"one that was answered is not counted": {"{worker_id=\"0\"} 99\n", "counted 99 requests: want 100"},
		"one is counted that nobody has sent":  {"{worker_id=\"0\"} 119\n", "to 118"},
	} {
		t.Run(name, func(t *testing.T) {
			m := &loadedMaster{master: masterThatSays(t, 4, fourWorkersRun+inProgress+requestsTotal+tc.counted)}
			err := m.counted(t.Context(), wrkResult{answered: 100, read: 2})
			if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error = %v, want %q", err, tc.want)
			}
		})
	}
}

func TestDeathsAddUp(t *testing.T) {
	for name, tc := range map[string]struct {
		counted string
		want    string
	}{
		"all that were killed": {"{code=\"\",signal=\"KILL\"} 7\n", ""},
		"one is missing":       {"{code=\"\",signal=\"KILL\"} 6\n", "7 workers were killed, and these ends counted: map[prefork_worker_exits_total{code=\"\",signal=\"KILL\"}:6]"},
		"another has ended": {"{code=\"\",signal=\"KILL\"} 7\nprefork_worker_exits_total{code=\"1\",signal=\"\"} 1\n",
			`prefork_worker_exits_total{code="1",signal=""}:1`},
	} {
		t.Run(name, func(t *testing.T) {
			err := masterThatSays(t, 4, fourWorkersRun+"prefork_worker_exits_total"+tc.counted).killed(t.Context(), 7)
			if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error = %v, want %q", err, tc.want)
			}
		})
	}
}

func TestBirthsAddUp(t *testing.T) {
	m := masterThatSays(t, 4, fourWorkersRun+"prefork_worker_exits_total{code=\"0\",signal=\"\"} 9\n")
	err := m.lookAt(t.Context(), &birthPoint{births: 10})
	if err == nil || !strings.Contains(err.Error(), "9 ends of workers counted, and 10 heard of") {
		t.Errorf("error = %v", err)
	}
}

func TestAMasterRests(t *testing.T) {
	for name, tc := range map[string]struct {
		seen metrics
		want bool
	}{
		"all run":                    {metrics{`prefork_workers{state="running"}`: 4}, true},
		"one is missing":             {metrics{`prefork_workers{state="running"}`: 3}, false},
		"one is not ready yet":       {metrics{`prefork_workers{state="running"}`: 3, `prefork_workers{state="starting"}`: 1}, false},
		"one more is on its way out": {metrics{`prefork_workers{state="running"}`: 4, `prefork_workers{state="stopping"}`: 1}, false},
		"a metric with a longer name is another": {
			metrics{`prefork_workers{state="running"}`: 4, "prefork_workers_target": 4}, true},
	} {
		t.Run(name, func(t *testing.T) {
			if got := (&master{workers: 4}).rests(tc.seen); got != tc.want {
				t.Errorf("rests = %v, want %v", got, tc.want)
			}
		})
	}
}

func TestParseBirth(t *testing.T) {
	for words, want := range map[string]birth{
		"123456789 42 7": {123456789, 42, 7},
		"123456789 42":   {}, // a worker without a slot
		"":               {},
	} {
		got, err := parseBirth(words)
		if got != want || (err == nil) != (want != birth{}) {
			t.Errorf("birth %q = %v, %v; want %v", words, got, err, want)
		}
	}
}

func TestDisturbances(t *testing.T) {
	for requests, want := range map[int]int{1: 1, 40_000: 2, 100_000: 5, 1_000_000: 5} {
		if got := disturbances(requests); got != want {
			t.Errorf("of each signal %d for %d requests, want %d", got, requests, want)
		}
	}
}

// Whether a process is still the same program is seen from outside.
func TestImageChangesWithAnExec(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("reads /proc")
	}
	cmd := exec.Command("/bin/sh", "-c", "echo 1; read -r line; exec /bin/sh -c 'echo 2; read -r line'")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(out)
	seen := func() string {
		if _, err := lines.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
		i, err := image(cmd.Process.Pid)
		if err != nil {
			t.Fatal(err)
		}
		return i
	}
	before := seen()
	if again, err := image(cmd.Process.Pid); err != nil || again != before {
		t.Errorf("another image of the same program (%v)", err)
	}
	if _, err := io.WriteString(in, "\n"); err != nil {
		t.Fatal(err)
	}
	if seen() == before {
		t.Error("the same image after an exec")
	}
	if err := in.Close(); err != nil {
		t.Error(err)
	}
	_ = cmd.Wait() // the end of its input is a fault to read
}

func TestReportOfSupervise(t *testing.T) {
	at := func(births int, perSecond float64, files int, rss int64) birthPoint {
		return birthPoint{births, perSecond, files, memory{rss << 20, 15 << 20}, 9 << 20, 20 << 20}
	}
	for name, tc := range map[string]struct {
		report report
		want   []string
	}{
		"nothing was measured": {report{setup: []string{"kernel: Linux"}}, []string{"- kernel: Linux\n"}},
		"successors in time, and late": {report{deaths: []deathResult{{"some", ms(3, 1, 2)}, {"others", ms(51)}}}, []string{
			"| some | 3 | 2.00 | 3.00 | 3.00 |\n| others | 1 | 51.0 | 51.0 | 51.0 |\n",
			"- some are followed within 50ms at the median: 2.00 ms: yes\n",
			"- others are followed within 50ms at the median: 51.0 ms: no\n",
		}},
		"all requests answered": {report{loads: []loadResult{
			{"with signals", wrkResult{answered: 100, perSecond: 12.5}, signalCounts{1, 2, 3, 4, 0}},
		}}, []string{"| with signals | 100 | 0 | 12.5 | 1 | 2 | 3 | 4 |\n", "- no request fails: 0 did: yes\n"}},
		"requests that failed, and a signal that was ignored": {report{loads: []loadResult{
			{"with signals", wrkResult{answered: 100, read: 2, refused: 1}, signalCounts{1, 1, 1, 5, 5}},
		}}, []string{
			"| 3: connect 0, read 2, write 0, timeout 0, status 1 |", "- no request fails: 3 did: no\n", "- 5 times USR2 had no effect\n",
		}},
		"a master that stays as it is": {report{births: []birthPoint{at(0, math.NaN(), 62, 4), at(1000, 400, 62, 10), at(10000, 300, 62, 11)}},
			[]string{
				"| 0 | – | 62 | 4.0 | 9.0 | 15.0 | 20.0 |\n| 1000 | 400 | 62 | 10.0 |",
				"- the master in at most 12 MiB: 11.0 MiB: yes\n",
				"- its memory flat, the end within 10 % of the row before: 1.10 ×: yes\n",
				"- as many descriptors at the end as at the start: 62 and 62: yes\n",
			}},
		"a master that grows": {report{births: []birthPoint{at(0, math.NaN(), 62, 4), at(1000, 400, 62, 10), at(10000, 300, 63, 13)}},
			[]string{"13.0 MiB: no\n", "1.30 ×: no\n", "63 and 62: no\n"}},
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
			if strings.Contains(b.String(), "data set") {
				t.Errorf("it has tables of what was not measured:\n%s", b.String())
			}
		})
	}
}

func TestAwaitEndsWithTheMaster(t *testing.T) {
	m := &master{newExporter("127.0.0.1:1"), 1}
	close(m.gone)
	began := time.Now()
	if err := m.rest(t.Context()); err == nil || !strings.Contains(err.Error(), "the master has ended") {
		t.Errorf("error = %v after %v", err, time.Since(began))
	}
}
