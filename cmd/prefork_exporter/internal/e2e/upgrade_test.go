package e2e

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// upgrade has a newer program take over, and waits until that tells of it.
func (m *master) upgrade(t *testing.T) {
	t.Helper()
	replaced := series("prefork_master_restarts_total", "reason", "reload")
	before := m.scrape(t).samples[replaced]
	m.signal(syscall.SIGUSR2)
	await(t, "the newer program", func() bool {
		m.CloseIdleConnections()
		got, err := m.tryScrape("")
		return err == nil && got.samples[replaced] == before+1
	})
}

func TestAMasterIsReplacedUnderLoadAndLosesNoRequest(t *testing.T) {
	m := startMaster(t, 2)
	before := m.pids(t)
	stop := post(t, m.listen)
	for range 3 {
		m.upgrade(t)
	}
	if after := m.pids(t); !maps.Equal(before, after) {
		t.Errorf("workers %v, and %v before", after, before)
	}
	m.signal(syscall.SIGHUP)
	await(t, "a reload by the newer program", func() bool {
		return m.scrape(t).samples[series("prefork_master_reloads_total", "result", "success")] == 1
	})
	m.signal(syscall.SIGTTOU)
	m.awaitWorkers(t, 1)
	answered := stop()
	if total := m.scrape(t).sum("prefork_worker_requests_total"); total != float64(answered) {
		t.Errorf("%v requests counted, %v answered", total, answered)
	}
	for signal, want := range map[string]float64{"USR2": 3, "HUP": 1, "TTOU": 1, "TTIN": 0} {
		if n := m.scrape(t).samples[series("prefork_master_signals_total", "signal", signal)]; n != want {
			t.Errorf("%v times %s, want %v", n, signal, want)
		}
	}
}

// An end that nobody sees while one program takes the place of another is found.
func TestDeathsAroundAnUpgradeAreCounted(t *testing.T) {
	m := startMaster(t, 3)
	exits := series("prefork_worker_exits_total", "code", "", "signal", "KILL")
	for n := range 5 {
		pids := m.pids(t)
		m.signal(syscall.SIGUSR2)
		time.Sleep(time.Duration(n) * 7 * time.Millisecond) // before, during and after it
		must(t, syscall.Kill(pids["1"], syscall.SIGKILL))
		await(t, fmt.Sprintf("the newer program, and death %d", n+1), func() bool {
			m.CloseIdleConnections()
			got, err := m.tryScrape("")
			return err == nil && got.samples[exits] == float64(n+1) &&
				got.samples[series("prefork_master_restarts_total", "reason", "reload")] == float64(n+1) &&
				got.samples[series("prefork_workers", "state", "running")] == 3
		})
	}
}

// insist sends a signal until it has its effect: one of a thousand may be lost with the
// program that it reaches.
func (m *master) insist(t *testing.T, signal syscall.Signal, what string, effect func() bool) {
	t.Helper()
	again := time.Now()
	await(t, what, func() bool {
		if !time.Now().Before(again) {
			m.signal(signal)
			again = time.Now().Add(3 * time.Second)
		}
		return effect()
	})
}

// Go programs can be ended by a TERM for some milliseconds when they start, which is no
// graceful stop, but one.
func TestAStopAroundAnUpgradeStops(t *testing.T) {
	for wait := range 10 {
		m := startMaster(t, 1)
		pids := m.children(t)
		m.signal(syscall.SIGUSR2)
		time.Sleep(time.Duration(wait) * 5 * time.Millisecond) // before, during and after it
		m.insist(t, syscall.SIGTERM, "the end", func() bool { return !m.running() })
		how := m.cmd.ProcessState.Sys().(syscall.WaitStatus)
		if status := how.ExitStatus(); status != 0 && how.Signal() != syscall.SIGTERM {
			t.Errorf("%d ms after USR2, TERM: status %d, want 0\n%s", wait*5, status, tail(m.output(t, m.stderr)))
		}
		awaitEnd(t, pids)
	}
}

func TestSignalsAroundAnUpgradeAreObeyed(t *testing.T) {
	m := startMaster(t, 1)
	for n := range 12 {
		m.signal(syscall.SIGUSR2)
		time.Sleep(time.Duration(n) * 5 * time.Millisecond) // before, during and after it
		m.signal(syscall.SIGHUP)
		target := m.scrapeSoon(t).samples[series("prefork_workers_target")]
		m.insist(t, syscall.SIGTTIN, "another worker, and the newer program", func() bool {
			got := m.scrapeSoon(t)
			return got.samples[series("prefork_workers_target")] > target &&
				got.samples[series("prefork_master_restarts_total", "reason", "reload")] == float64(n+1)
		})
	}
}

// scrapeSoon returns what the sidecar tells, as soon as there is one.
func (m *master) scrapeSoon(t *testing.T) (got scraped) {
	t.Helper()
	awaitNil(t, "a sidecar", func() (err error) {
		m.CloseIdleConnections()
		if got, err = m.tryScrape(""); err == nil && got.samples[series("prefork_workers_target")] == 0 {
			err = errors.New("it knows nothing yet")
		}
		return err
	})
	return got
}

func TestAnUpgradeDuringAReloadIsBoth(t *testing.T) {
	m := startMaster(t, 3)
	before := m.pids(t)
	stop := post(t, m.listen)
	m.signal(syscall.SIGHUP)
	m.upgrade(t)
	await(t, "the reload", func() bool {
		return m.scrape(t).samples[series("prefork_master_reloads_total", "result", "success")] == 1
	})
	m.awaitWorkers(t, 3)
	for slot, pid := range m.pids(t) {
		if before[slot] == pid {
			t.Errorf("worker %s was not replaced", slot)
		}
	}
	answered := stop()
	if total := m.scrape(t).sum("prefork_worker_requests_total"); total != float64(answered) {
		t.Errorf("%v requests counted, %v answered", total, answered)
	}
}

// copyProgram copies an executable over another, as installers do.
func copyProgram(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	must(t, err)
	must(t, os.WriteFile(to+".new", b, 0o755))
	must(t, os.Rename(to+".new", to))
}

func TestAProgramThatCannotTakeOverGetsNoWorkers(t *testing.T) {
	installed := filepath.Join(t.TempDir(), "prefork_exporter")
	copyProgram(t, program, installed)
	web, listen := freeAddress(t), freeAddress(t)
	cmd := command("supervise", "--listen="+listen, "--web.listen-address="+web, "--", workerProgram, "--drain=10ms")
	cmd.Path = installed
	cmd.Args[0] = installed
	m := &master{exporter: startExporterCommand(t, web, cmd), workers: newClient(t, "tcp", listen), listen: listen}
	m.awaitWorkers(t, 1)
	before := m.pids(t)
	for n, script := range []string{"#!/bin/sh\necho broken; exit 3\n", "no program\n", "#!/bin/sh\nexit 0\n"} {
		must(t, os.WriteFile(installed+".new", []byte(script), 0o755))
		must(t, os.Rename(installed+".new", installed))
		m.signal(syscall.SIGUSR2)
		await(t, "a refusal", func() bool {
			return strings.Count(m.output(t, m.stderr), "the upgrade is given up") == n+1
		})
	}
	killed := before["0"]
	must(t, syscall.Kill(killed, syscall.SIGKILL)) // what starts its successor is still our own program
	await(t, "its successor", func() bool {
		before = m.pids(t)
		return len(before) == 1 && before["0"] != killed
	})
	m.awaitWorkers(t, 1)
	if log := m.output(t, m.stderr); !strings.Contains(log, "exit code 3: broken") || !strings.Contains(log, "exec format error") {
		t.Errorf("the log does not say why:\n%s", tail(log))
	}
	copyProgram(t, program, installed)
	m.upgrade(t)
	if after := m.pids(t); !maps.Equal(before, after) {
		t.Errorf("workers %v, and %v before", after, before)
	}
	if _, err := m.workers.get("/fast"); err != nil {
		t.Error(err)
	}
}

// A worker's end with its master does not depend on which program started it.
func TestNothingOutlivesAnUpgradedMasterThatIsKilled(t *testing.T) {
	m := startMaster(t, 2)
	m.upgrade(t)
	must(t, syscall.Kill(m.pids(t)["0"], syscall.SIGKILL)) // the second program starts its successor
	m.awaitWorkers(t, 2)
	m.upgrade(t)
	pids := m.children(t)
	if len(pids) != 3 {
		t.Fatalf("%d children, want two workers and a sidecar", len(pids))
	}
	m.signal(syscall.SIGKILL)
	m.status(t)
	awaitEnd(t, pids)
}

// A newer program begins with signals blocked. Its workers do not.
func TestWorkersOfANewerProgramGetSignals(t *testing.T) {
	m := superviseScript(t, nil, `trap "echo got USR1" USR1; while :; do sleep 0.01; done`)
	m.awaitWorkers(t, 1)
	m.upgrade(t)
	m.signal(syscall.SIGHUP)
	await(t, "the reload", func() bool {
		return m.scrape(t).samples[series("prefork_master_reloads_total", "result", "success")] == 1
	})
	m.awaitWorkers(t, 1)
	m.signal(syscall.SIGUSR1)
	await(t, "the worker to get it", func() bool { return strings.Contains(m.output(t, m.stdout), "got USR1") })
}

func TestLinesOfWorkersBeginWithTheirSlot(t *testing.T) {
	web, more := freeAddress(t), filepath.Join(t.TempDir(), "more")
	script := `echo wrong >&2; printf 'one\ntw'; while [ ! -e "$0" ]; do sleep 0.01; done; printf 'o\n\nlast'; exec sleep 1000`
	m := &master{exporter: startExporterCommand(t, web, command(
		"supervise", "--prefix-output", "--ready-after=10ms", "--web.listen-address="+web, "--", "sh", "-c", script, more,
	))}
	m.awaitWorkers(t, 1)
	await(t, "the first line", func() bool { return m.output(t, m.stdout) == "[0] one\n" })
	m.upgrade(t) // in the middle of a line
	must(t, os.WriteFile(more, nil, 0o600))
	await(t, "the rest of a line", func() bool { return m.output(t, m.stdout) == "[0] one\n[0] two\n[0] \n" })
	m.signal(syscall.SIGTERM)
	if status := m.status(t); status != 0 {
		t.Errorf("status %d, want 0", status)
	}
	if out := m.output(t, m.stdout); !strings.HasSuffix(out, "[0] last\n") {
		t.Errorf("it wrote %q, want the last line, too", out)
	}
	if out := m.output(t, m.stderr); !strings.Contains(out, "[0] wrong\n") {
		t.Errorf("no line of stderr in %q", tail(out))
	}
}

// listeners counts the sockets that listen on an address.
func listeners(t *testing.T, address string) (n int) {
	t.Helper()
	b, err := os.ReadFile("/proc/net/tcp")
	must(t, err)
	var port int
	if _, err := fmt.Sscanf(address, "127.0.0.1:%d", &port); err != nil {
		t.Fatal(err)
	}
	const listening = "0A"
	for line := range strings.Lines(string(b)) {
		fields := strings.Fields(line)
		if strings.HasSuffix(fields[1], fmt.Sprintf(":%04X", port)) && fields[3] == listening {
			n++
		}
	}
	return n
}

func TestWorkersMayHaveSocketsOfTheirOwn(t *testing.T) {
	m := startMaster(t, 3, "--reuse-port")
	slots := map[string]bool{}
	await(t, "answers of all workers", func() bool {
		r, err := m.workers.get("/")
		must(t, err)
		slot, _, _ := strings.Cut(string(r.body), ",")
		slots[slot] = true
		return len(slots) == 3
	})
	m.upgrade(t)
	for _, tc := range []struct {
		signals []syscall.Signal
		workers int
	}{{nil, 3}, {[]syscall.Signal{syscall.SIGTTOU}, 2}, {[]syscall.Signal{syscall.SIGTTIN, syscall.SIGHUP}, 3}} {
		for _, s := range tc.signals {
			m.signal(s)
		}
		m.awaitWorkers(t, tc.workers)
		if n := listeners(t, m.listen); n != tc.workers {
			t.Errorf("%d sockets of %d workers", n, tc.workers)
		}
	}
}
