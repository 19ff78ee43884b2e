package e2e

import (
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/prefork-exporter/prefork_exporter/registry"
)

// demonstration is the program as a demo.
type demonstration struct {
	*exporter
	temporary, home string
	pids            []int // of what it has started, the master first
}

// startDemo starts a demo, and waits until it says that it serves.
func startDemo(t *testing.T, args ...string) *demonstration {
	t.Helper()
	web, temporary := freeAddress(t), openDir(t)
	words := append([]string{"demo", "--listen=" + freeAddress(t), "--web.listen-address=" + web}, args...)
	p := start(t, command(words...), "TMPDIR="+temporary)
	d := &demonstration{exporter: &exporter{process: p, client: newClient(t, "tcp", web), address: web}, temporary: temporary, home: filepath.Dir(p.stdout)}
	await(t, "a demo that serves", func() bool {
		if !d.running() {
			t.Fatalf("it ended before: %s", d.output(t, d.stderr))
		}
		return strings.Contains(d.output(t, d.stdout), "Ctrl-C ends it all")
	})
	d.pids = d.children(t)
	if len(d.pids) != 1 {
		t.Fatalf("children %d, want the master alone", d.pids)
	}
	d.pids = append(d.pids, childrenOf(t, d.pids[0])...)
	return d
}

// ends waits for the end of the demo, which is to have that status, and of all that it has started.
func (d *demonstration) ends(t *testing.T, status int) {
	t.Helper()
	if got := d.status(t); got != status {
		t.Errorf("status %d, want %d: %s", got, status, d.output(t, d.stderr))
	}
	awaitEnd(t, d.pids)
}

// leavesNothing fails the test when there are files of the demo, beside those that the test has made.
func (d *demonstration) leavesNothing(t *testing.T) {
	t.Helper()
	if names := fileNames(t, d.temporary); len(names) > 0 {
		t.Errorf("the temporary directory has %q", names)
	}
	if names := fileNames(t, d.home); !slices.Equal(names, []string{"stderr", "stdout"}) {
		t.Errorf("the home directory has %q", names)
	}
}

// unseen are the families that a demo cannot have, or that stay at zero there.
func unseen() map[string]string {
	return map[string]string{
		"prefork_worker_state":                       "nobody writes it yet",
		"prefork_worker_cpu_percent":                 "nobody writes it yet",
		"prefork_worker_restart_count_total":         "is for masters that write files",
		"prefork_master_worker_restart_count_total":  "is for masters that write files",
		"prefork_multiproc_dropped_samples_total":    "every format holds what workers write",
		"prefork_restart_loop":                       "a demo is no restart loop",
		"prefork_workers_saturated_seconds_total":    "some worker may be idle whenever anybody looks",
		"prefork_cgroup_oom_kills_total":             "a demo has enough memory",
		"prefork_cgroup_memory_bytes":                "the machine may have no control groups",
		"prefork_cgroup_memory_limit_bytes":          "there may be no limit",
		"prefork_cgroup_cpu_throttled_seconds_total": "there may be no limit",
		"prefork_listen_queue_length":                "workers accept sooner than anybody looks",
		"prefork_listen_queue_peak":                  "workers accept sooner than anybody looks",
		"prefork_listen_queue_wait_seconds_total":    "workers accept sooner than anybody looks",
		"prefork_listen_queue_oldest_seconds":        "workers accept sooner than anybody looks",
		"prefork_listen_queue_full_seconds_total":    "a queue is as long as the kernel allows",
		"prefork_listen_queue_drops_total":           "a queue is as long as the kernel allows",
	}
}

// moves are what has to be more than zero at some time: all families, and these series.
func moves() map[string]func(scraped) float64 {
	facts := map[string]func(scraped) float64{}
	for _, d := range registry.Definitions() {
		if _, is := unseen()[d.Name]; is || d.Stability == registry.Planned {
			continue
		}
		name := d.Name
		if d.Type == registry.Histogram {
			name += "_count"
		}
		facts[name] = func(s scraped) float64 { return s.sum(name) }
	}
	for _, reason := range []string{"exit_code", "clean", "signal", "timeout", "reload", "max_requests", "max_memory", "max_lifetime"} {
		s := series("prefork_master_worker_restart_total", "reason", reason)
		facts[s] = func(got scraped) float64 { return got.samples[s] }
	}
	for _, s := range []string{
		series("prefork_worker_exits_total", "code", "", "signal", "KILL"),
		series("prefork_worker_exits_total", "code", "0", "signal", ""),
		series("prefork_worker_exits_total", "code", "1", "signal", ""),
		series("prefork_master_reloads_total", "result", "success"),
		series("prefork_worker_requests_total", "worker_id", "4"), // there for a while
	} {
		facts[s] = func(got scraped) float64 { return got.samples[s] }
	}
	for _, typ := range []string{"Panic", "RequestError", "TimeoutError"} {
		facts["failures: "+typ] = func(got scraped) (n float64) {
			for s, v := range got.samples {
				if isOf(s, `prefork_worker_failed_requests_total"`) && strings.Contains(s, `error_type="`+typ+`"`) {
					n += v
				}
			}
			return n
		}
	}
	return facts
}

func TestADemoMovesEveryFamilyAndLeavesNothing(t *testing.T) {
	d := startDemo(t, "--round=12s", "--rate=50")
	todo, counters := moves(), rising{}
	awaitNil(t, "every family to move", func() error {
		got, err := d.tryScrape("")
		if err != nil {
			return err
		}
		of := maps.Clone(got.samples)
		maps.DeleteFunc(of, func(s string, _ float64) bool { // the sidecar's own begin anew with it
			return isOf(s, "prefork_exporter_") || isOf(s, "prefork_multiproc_") || isOf(s, "prefork_listen_") ||
				isOf(s, "prefork_worker_context_switches_") || isOf(s, "prefork_workers_busy_") || isOf(s, "prefork_workers_saturated_")
		})
		for s, before := range counters { // of who has just ended a new sidecar says nothing rather than less
			if _, there := of[s]; !there && isOf(s, "prefork_worker_cpu_seconds_") {
				of[s] = before
			}
		}
		if err := counters.see(of); err != nil {
			t.Fatal(err)
		}
		maps.DeleteFunc(todo, func(_ string, value func(scraped) float64) bool { return value(got) > 0 })
		if len(todo) > 0 {
			return fmt.Errorf("not yet: %q", slices.Collect(maps.Keys(todo)))
		}
		return nil
	})
	d.pids = append(d.pids, childrenOf(t, d.pids[0])...)
	d.signal(syscall.SIGINT)
	d.ends(t, 0)
	d.leavesNothing(t)
	out := d.output(t, d.stdout)
	for _, want := range []string{
		program + " supervise --workers=4", " -- ", "http://" + d.address + "/metrics", "kill -HUP ", "GET /hang", "requests were answered",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("it did not print %q:\n%s", want, out)
		}
	}
}

func TestADemoStops(t *testing.T) {
	for name, tc := range map[string]struct {
		signal syscall.Signal
		status int
		clean  bool
	}{
		"when it is told to":          {syscall.SIGTERM, 0, true},
		"when its terminal is closed": {syscall.SIGHUP, 0, true},
		"when it is killed":           {syscall.SIGKILL, -1, false},
	} {
		t.Run(name, func(t *testing.T) {
			d := startDemo(t)
			d.signal(tc.signal)
			d.ends(t, tc.status)
			if tc.clean {
				d.leavesNothing(t)
			}
		})
	}
}

func TestADemoStopsWhenNobodyReads(t *testing.T) {
	temporary := openDir(t)
	script := `"$0" demo --web.listen-address=127.0.0.1:0 --listen=127.0.0.1:0 --round=10s | head -n 1`
	p := start(t, exec.Command("/bin/sh", "-c", script, program), "TMPDIR="+temporary)
	if status := p.status(t); status != 0 {
		t.Errorf("status %d, want 0", status)
	}
	if out := p.output(t, p.stdout); !strings.HasPrefix(out, program+" supervise ") {
		t.Errorf("the first line is %q", out)
	}
	d := &demonstration{exporter: &exporter{process: p}, temporary: temporary, home: filepath.Dir(p.stdout)}
	d.leavesNothing(t)
}

func TestADemoEndsAsItsMasterDoes(t *testing.T) {
	for name, tc := range map[string]struct {
		signal syscall.Signal
		status int
		want   string
	}{
		"well":   {syscall.SIGTERM, 0, ""},
		"killed": {syscall.SIGKILL, 128 + 9, "The master has ended with status 137. Its log ends with:\n"},
	} {
		t.Run(name, func(t *testing.T) {
			d := startDemo(t)
			must(t, syscall.Kill(d.pids[0], tc.signal))
			d.ends(t, tc.status)
			d.leavesNothing(t)
			if got := d.output(t, d.stderr); !strings.HasPrefix(got, tc.want) || tc.want == "" && got != "" {
				t.Errorf("it wrote %q, want %q", tail(got), tc.want)
			}
		})
	}
}

func TestWhatADemoRefuses(t *testing.T) {
	taken := freeAddress(t)
	l, err := net.Listen("tcp", taken)
	must(t, err)
	defer func() { _ = l.Close() }()
	alone := filepath.Join(t.TempDir(), "prefork_exporter")
	b, err := os.ReadFile(program)
	must(t, err)
	must(t, os.WriteFile(alone, b, 0o755))
	for name, tc := range map[string]struct {
		program string
		args    []string
		status  int
		want    string
	}{
		"no example worker":                   {alone, nil, 1, "find prefork_worker: it is neither in " + filepath.Dir(alone)},
		"an example worker that is not there": {program, []string{"--worker=/no/such/worker"}, 2, "--worker: "},
		"an address of metrics that is taken": {program, []string{"--web.listen-address=" + taken}, 1, "address already in use: stop the other program"},
		"an address of workers that is taken": {program, []string{"--web.listen-address=127.0.0.1:0", "--listen=" + taken}, 1, "choose another --listen"},
		"an argument":                         {program, []string{"now"}, 2, `unknown command "now"`},
		"help, which is no fault at all":      {program, []string{"--help"}, 0, "It prints the command"},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := command(append([]string{"demo"}, tc.args...)...)
			cmd.Path = tc.program
			temporary := openDir(t)
			cmd.Env = environment(t.TempDir(), []string{"TMPDIR=" + temporary})
			out, _ := cmd.CombinedOutput()
			if status := cmd.ProcessState.ExitCode(); status != tc.status || !strings.Contains(string(out), tc.want) {
				t.Errorf("status %d: %s\nwant %d and %q", status, tail(string(out)), tc.status, tc.want)
			}
			if names := fileNames(t, temporary); len(names) > 0 {
				t.Errorf("the temporary directory has %q", names)
			}
		})
	}
}
