package e2e

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// master is the program as a master of example workers.
type master struct {
	*exporter
	workers *client // of any worker
	listen  string
}

// startMaster starts a master of so many workers, and waits until its sidecar serves.
func startMaster(t *testing.T, workers int, args ...string) *master {
	t.Helper()
	listen, web := freeAddress(t), freeAddress(t)
	words := slices.Concat([]string{
		"supervise", "--workers=" + strconv.Itoa(workers), "--listen=" + listen, "--web.listen-address=" + web,
	}, args, []string{"--", workerProgram, "--drain=300ms"})
	m := &master{exporter: startExporterCommand(t, web, command(words...)), workers: newClient(t, "tcp", listen), listen: listen}
	m.workers.once = true
	m.awaitWorkers(t, workers)
	return m
}

// awaitWorkers waits until so many workers run, and none beside them.
func (m *master) awaitWorkers(t *testing.T, n int) {
	t.Helper()
	await(t, fmt.Sprintf("%d workers", n), func() bool {
		got, err := m.tryScrape("")
		return err == nil && got.samples[series("prefork_workers", "state", "running")] == float64(n) && got.sum("prefork_workers") == float64(n)
	})
}

// pids returns the process ids of the workers, by slot.
func (m *master) pids(t *testing.T) map[string]int {
	t.Helper()
	pids := map[string]int{}
	for slot := range 10 {
		if pid, ok := m.scrape(t).samples[series("prefork_worker_pid", "worker_id", strconv.Itoa(slot))]; ok {
			pids[strconv.Itoa(slot)] = int(pid)
		}
	}
	return pids
}

func TestAMasterKeepsItsWorkersAndTheirCounts(t *testing.T) {
	m := startMaster(t, 3)
	counters := rising{}
	answered := 0.0
	for n := range 10 {
		for range 20 {
			if _, err := m.workers.get("/fast"); err == nil {
				answered++
			}
		}
		victim := m.pids(t)[strconv.Itoa(n%3)]
		must(t, syscall.Kill(victim, syscall.SIGKILL))
		await(t, "the count of its death", func() bool {
			return m.scrape(t).samples[series("prefork_worker_exits_total", "code", "", "signal", "KILL")] == float64(n+1)
		})
		must(t, counters.see(m.scrape(t).samples))
	}
	await(t, "three workers again", func() bool { return len(m.pids(t)) == 3 })
	got := m.scrape(t)
	for s, want := range map[string]float64{
		series("prefork_workers_target"):                                             3,
		series("prefork_master_worker_restart_total", "reason", "signal"):            10,
		series("prefork_worker_restart_total", "worker_id", "0", "reason", "signal"): 4,
		series("prefork_restart_loop"):                                               0,
		series("prefork_multiproc_file_errors_total", "reason", "reserved"):          0,
	} {
		if got.samples[s] != want {
			t.Errorf("%s is %v, want %v", s, got.samples[s], want)
		}
	}
	if total := got.sum("prefork_worker_requests_total"); total != answered {
		t.Errorf("%v requests counted, %v answered", total, answered)
	}
	for slot := range 3 {
		if v := got.samples[series("prefork_worker_memory_bytes", "worker_id", strconv.Itoa(slot))]; v < 1<<20 {
			t.Errorf("worker %d has %v bytes", slot, v)
		}
	}
}

// All workers are replaced, and there are more and less of them.
func TestAMasterReplacesWorkersUnderLoadAndLosesNoRequest(t *testing.T) {
	m := startMaster(t, 2)
	before := m.pids(t)
	stop := post(t, m.listen)
	m.signal(syscall.SIGHUP)
	await(t, "the reload", func() bool {
		return m.scrape(t).samples[series("prefork_master_reloads_total", "result", "success")] == 1
	})
	m.signal(syscall.SIGTTIN)
	m.awaitWorkers(t, 3)
	m.signal(syscall.SIGTTOU)
	m.awaitWorkers(t, 2)
	for slot, pid := range m.pids(t) {
		if pid == before[slot] {
			t.Errorf("worker %s was not replaced", slot)
		}
	}
	answered := stop()
	if total := m.scrape(t).sum("prefork_worker_requests_total"); total != float64(answered) {
		t.Errorf("%v requests counted, %v answered", total, answered)
	}
	if n := m.scrape(t).samples[series("prefork_master_worker_restart_total", "reason", "reload")]; n != 2 {
		t.Errorf("%v restarts for the reload, want 2", n)
	}
}

func TestLiveGaugesEndWithAWorkerThatIsKilled(t *testing.T) {
	m := startMaster(t, 1)
	c := newClient(t, "tcp", m.listen)
	var group sync.WaitGroup
	group.Go(func() { _, _ = c.get("/hang") }) // until its worker is gone
	await(t, "the request", func() bool { return m.scrape(t).sum("prefork_worker_requests_in_progress") == 1 })
	must(t, syscall.Kill(m.pids(t)["0"], syscall.SIGKILL))
	group.Wait()
	m.awaitWorkers(t, 1)
	if n := m.scrape(t).sum("prefork_worker_requests_in_progress"); n != 0 {
		t.Errorf("%v requests in progress, of a worker that is dead", n)
	}
}

// What a request does to its worker is seen from outside, and between scrapes.
func TestAWorkerIsSeenToBeBusy(t *testing.T) {
	m := startMaster(t, 2)
	features := m.scrape(t)
	for _, feature := range []string{"worker_busy", "worker_descriptors"} {
		if v, ok := features.samples[series("prefork_feature_available", "feature", feature, "reason", "")]; !ok || v != 1 {
			t.Errorf("%s cannot be had", feature)
		}
	}
	await(t, "memory shares of both", func() bool {
		got := m.scrape(t)
		return got.sum("prefork_worker_memory_uss_bytes") > 2<<20 && got.sum("prefork_worker_memory_pss_bytes") >= got.sum("prefork_worker_memory_uss_bytes")
	})
	busy := func() float64 { return m.scrape(t).sum("prefork_worker_busy") }
	var group sync.WaitGroup
	hang := func() { // a request that lasts until its worker is gone
		c := newClient(t, "tcp", m.listen)
		group.Go(func() { _, _ = c.get("/hang") })
	}
	hang()
	await(t, "a busy worker", func() bool { return busy() == 1 })
	await(t, "a busy time", func() bool { return m.scrape(t).sum("prefork_workers_busy_seconds_total") > .5 })
	if saturated := m.scrape(t).sum("prefork_workers_saturated_seconds_total"); saturated != 0 {
		t.Errorf("saturated for %v s with one of two busy", saturated)
	}
	for busy() < 2 { // one that is busy may take another one
		hang()
		await(t, "all requests", func() bool { return m.scrape(t).sum("prefork_worker_requests_in_progress") >= 2 })
	}
	await(t, "a saturated time", func() bool { return m.scrape(t).sum("prefork_workers_saturated_seconds_total") > 0 })
	for _, pid := range m.pids(t) {
		must(t, syscall.Kill(pid, syscall.SIGKILL))
	}
	group.Wait()
	await(t, "the count of their deaths", func() bool {
		return m.scrape(t).samples[series("prefork_worker_exits_total", "code", "", "signal", "KILL")] == 2
	})
	m.awaitWorkers(t, 2)
	if got := m.scrape(t); got.sum("prefork_worker_busy") != 0 || got.sum("prefork_worker_open_fds") < 6 {
		t.Errorf("%v busy workers, with %v files", got.sum("prefork_worker_busy"), got.sum("prefork_worker_open_fds"))
	}
}

// The sidecar is a child like others: what it told is told again by the next one.
func TestASidecarThatDiesCostsScrapesOnly(t *testing.T) {
	m := startMaster(t, 1)
	must(t, syscall.Kill(m.pids(t)["0"], syscall.SIGKILL))
	exits := series("prefork_worker_exits_total", "code", "", "signal", "KILL")
	await(t, "the count of a death", func() bool { return m.scrape(t).samples[exits] == 1 })
	m.awaitWorkers(t, 1)
	worker := m.pids(t)["0"]
	for _, pid := range m.children(t) {
		if pid != worker {
			must(t, syscall.Kill(pid, syscall.SIGKILL))
		}
	}
	m.CloseIdleConnections()
	await(t, "another sidecar that knows", func() bool {
		got, err := m.tryScrape("")
		return err == nil && got.samples[exits] == 1 && m.pids(t)["0"] == worker
	})
	if _, err := m.workers.get("/fast"); err != nil {
		t.Error(err)
	}
}

func TestNothingOutlivesAMasterThatIsKilled(t *testing.T) {
	m := startMaster(t, 2)
	pids := m.children(t)
	if len(pids) != 3 {
		t.Fatalf("%d children, want two workers and a sidecar", len(pids))
	}
	m.signal(syscall.SIGKILL)
	m.status(t)
	awaitEnd(t, pids)
}

func TestAMasterStops(t *testing.T) {
	for name, tc := range map[string]struct {
		signal   syscall.Signal
		answered bool
	}{
		"when requests are done": {syscall.SIGTERM, true},
		"at once":                {syscall.SIGQUIT, false},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			m := startMaster(t, 1, "--multiproc.dir="+dir)
			var group sync.WaitGroup
			group.Go(func() {
				if _, err := m.workers.get("/slow?seconds=0.5"); (err == nil) != tc.answered {
					t.Errorf("error %v, answered %v wanted", err, tc.answered)
				}
			})
			await(t, "the request", func() bool { return m.scrape(t).sum("prefork_worker_requests_in_progress") == 1 })
			m.signal(tc.signal)
			if status := m.status(t); status != 0 {
				t.Errorf("status %d, want 0", status)
			}
			group.Wait()
			if _, err := m.workers.do(http.MethodGet, "/fast"); err == nil {
				t.Error("somebody still answers")
			}
		})
	}
}

func TestWhatAMasterRefuses(t *testing.T) {
	taken := freeAddress(t)
	l, err := net.Listen("tcp", taken)
	must(t, err)
	defer func() { _ = l.Close() }()
	for name, tc := range map[string]struct {
		args   []string
		status int
		want   string
	}{
		"no command":               {[]string{"supervise"}, 2, "want -- and a command"},
		"a command without --":     {[]string{"supervise", "sleep", "1"}, 2, "want -- and a command"},
		"no worker":                {[]string{"supervise", "--workers=0", "--", "sleep"}, 2, "--workers: 0: want a number from 1 to 1000"},
		"less than no worker":      {[]string{"supervise", "--workers=-1", "--", "sleep"}, 2, "want a number from 1 to 1000"},
		"more workers than any":    {[]string{"supervise", "--workers=1001", "--", "sleep"}, 2, "want a number from 1 to 1000"},
		"no time at all":           {[]string{"supervise", "--stop-timeout=0s", "--", "sleep"}, 2, "want more than 0s"},
		"a wait before the start":  {[]string{"supervise", "--backoff-max=-1s", "--", "sleep"}, 2, "want 0s or more"},
		"a storm":                  {[]string{"supervise", "--max-lifetime=1ms", "--", "sleep"}, 2, "want 0s, or 1s or more"},
		"a jitter of nothing":      {[]string{"supervise", "--max-lifetime-jitter=1s", "--", "sleep"}, 2, "want --max-lifetime, too"},
		"ports of nothing":         {[]string{"supervise", "--reuse-port", "--", "sleep"}, 2, "want --listen, too"},
		"no address":               {[]string{"supervise", "--listen=8000", "--", "sleep"}, 2, "want HOST:PORT or unix:/PATH"},
		"a flag of the sidecar":    {[]string{"supervise", "--web.telemetry-path=x", "--", "sleep"}, 2, "--web.telemetry-path"},
		"an address that is taken": {[]string{"supervise", "--listen=" + taken, "--", "sleep"}, 1, "address already in use"},
		"a systemd socket":         {[]string{"supervise", "--web.systemd-socket", "--", "sleep"}, 2, "--web.systemd-socket: not with a server beside"},
		"a check":                  {[]string{"supervise", "--config.check", "--", "/no/such/command"}, 0, "valid"},
		"help":                     {[]string{"supervise", "--help"}, 0, "TTIN adds a worker"},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := command(tc.args...)
			cmd.Env = environment(t.TempDir(), nil)
			out, _ := cmd.CombinedOutput()
			if status := cmd.ProcessState.ExitCode(); status != tc.status || !strings.Contains(string(out), tc.want) {
				t.Errorf("status %d: %s\nwant %d and %q", status, tail(string(out)), tc.status, tc.want)
			}
		})
	}
}

// The targets of a config file stand beside the workers.
func TestAMasterWithAConfigFileServesItsWorkersToo(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config.yml")
	must(t, os.WriteFile(file, []byte("targets:\n  - name: other\n    labels: {app: other}\n    multiproc: {dirs: ["+t.TempDir()+"]}\n"), 0o600))
	m := startMaster(t, 1, "--config.file="+file)
	if _, err := m.workers.get("/fast"); err != nil {
		t.Fatal(err)
	}
	if n := m.scrape(t).sum("prefork_worker_requests_total"); n != 1 {
		t.Errorf("%v requests, want 1", n)
	}
}

func TestFlagsMayStandBeforeTheCommand(t *testing.T) {
	web := freeAddress(t)
	m := &master{exporter: startExporterCommand(t, web, command(
		"--log.level", "debug", "supervise", "--ready-after=10ms", "--web.listen-address="+web, "--", "sleep", "1000",
	))}
	m.awaitWorkers(t, 1)
	m.upgrade(t)
}

// A command that cannot run is no reason to end: it may be there again.
func TestAMasterWaitsForItsCommand(t *testing.T) {
	program := filepath.Join(t.TempDir(), "server")
	web := freeAddress(t)
	m := &master{exporter: startExporterCommand(t, web, command("supervise", "--web.listen-address="+web, "--", program))}
	await(t, "a backoff", func() bool {
		return m.scrape(t).samples[series("prefork_restart_backoff_seconds")] > 0 && m.scrape(t).sum("prefork_workers") == 0
	})
	b, err := os.ReadFile(workerProgram)
	must(t, err)
	must(t, os.WriteFile(program+".new", b, 0o755))
	must(t, os.Rename(program+".new", program))
	m.awaitWorkers(t, 1)
}

func TestAPlainCommandIsAWorkerToo(t *testing.T) {
	web, dir := freeAddress(t), t.TempDir()
	script := `echo "slot $PREFORK_WORKER_ID of $PROMETHEUS_MULTIPROC_DIR"; exec sleep 1000`
	m := &master{exporter: startExporterCommand(t, web, command(
		"supervise", "--workers=2", "--ready-after=100ms", "--multiproc.dir="+dir, "--web.listen-address="+web, "--", "sh", "-c", script,
	))}
	m.awaitWorkers(t, 2)
	if out := m.output(t, m.stdout); !strings.Contains(out, "slot 0 of "+dir) || !strings.Contains(out, "slot 1 of "+dir) {
		t.Errorf("the workers wrote %q", out)
	}
	m.signal(syscall.SIGTERM)
	if status := m.status(t); status != 0 {
		t.Errorf("status %d, want 0", status)
	}
}
