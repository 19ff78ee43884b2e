package e2e

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// isFree fails the test when somebody has the address.
func isFree(t *testing.T, address string) {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Error(err)
		return
	}
	_ = l.Close()
}

// What a master that is killed leaves is no successor, and ends.
func TestOrphanedWorkersAreNoServer(t *testing.T) {
	for name, b := range breeds() {
		t.Run(name, func(t *testing.T) {
			w := b.run(t)
			w.awaitWorkers(t, workers, nil)
			left := w.workers(t)
			must(t, syscall.Kill(w.masters(t)[0], syscall.SIGKILL))
			if status := w.status(t); status != 128+int(syscall.SIGKILL) {
				t.Errorf("status %d, want 137", status)
			}
			awaitEnd(t, left)
			isFree(t, w.address)
		})
	}
}

// Who asks us to stop means both masters.
func TestAStopEndsTheSuccessorToo(t *testing.T) {
	for _, name := range []string{"gunicorn", "unicorn"} {
		t.Run(name, func(t *testing.T) {
			w := breeds()[name].run(t)
			w.awaitWorkers(t, workers, nil)
			old := w.masters(t)[0]
			w.sends(t, syscall.SIGUSR2)
			pids := append(childrenOf(t, w.successor(t, old)), old)
			w.sends(t, syscall.SIGTERM)
			if status := w.status(t); status != 0 {
				t.Errorf("status %d, want 0", status)
			}
			awaitEnd(t, pids)
			isFree(t, w.address)
		})
	}
}

// A successor is one before it has workers.
func TestASuccessorThatIsStillStartingIsTheServer(t *testing.T) {
	for name, tc := range map[string]struct{ file, config, variable string }{
		"gunicorn": {"config.py", `
import os, time
def on_starting(server):
    while 'GUNICORN_PID' in os.environ and not os.path.exists(os.environ['GATE']):
        time.sleep(.01)
def post_worker_init(worker):
    worker.log.info('Application is loaded')
`, "GUNICORN_PID="},
		"unicorn": {"config.rb", `
worker_processes 3
listen ENV.fetch('LISTEN')
before_fork { |_server, _worker| sleep 0.01 while ENV['UNICORN_FD'] && !File.exist?(ENV.fetch('GATE')) }
`, "UNICORN_FD="},
	} {
		t.Run(name, func(t *testing.T) {
			b, config := breeds()[name], filepath.Join(t.TempDir(), tc.file)
			must(t, os.WriteFile(config, []byte(tc.config), 0o644))
			for i, word := range b.words {
				if word == "--config" || word == "--config-file" {
					b.words[i+1] = config
				}
			}
			w := b.run(t)
			w.awaitWorkers(t, workers, nil)
			old, next := w.masters(t)[0], 0
			w.sends(t, syscall.SIGUSR2)
			await(t, "another master", func() bool {
				for _, pid := range childrenOf(t, old) {
					environ, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
					if strings.Contains(string(environ), tc.variable) {
						next = pid
					}
				}
				return next != 0
			})
			must(t, syscall.Kill(old, b.handsOn))
			w.goesOn(t, next)
			must(t, os.WriteFile(w.gate, nil, 0o644))
			w.awaitWorkers(t, workers, nil)
			w.sends(t, syscall.SIGTERM)
			if status := w.status(t); status != 0 {
				t.Errorf("status %d, want 0", status)
			}
		})
	}
}

// wrap starts the program around a shell script, which finds a directory of its own as $0, and waits until
// it has written what it says there.
func wrap(t *testing.T, script, says string, flags ...string) (e *exporter, dir string) {
	t.Helper()
	dir = t.TempDir()
	web := freeAddress(t)
	cmd := command(slices.Concat([]string{"run", "--web.listen-address=" + web}, flags, []string{"--", "sh", "-c", script, dir})...)
	e = &exporter{process: start(t, cmd), client: newClient(t, "tcp", web), address: web}
	await(t, "the server", func() bool { return strings.Contains(e.output(t, e.stdout), says) })
	return e, dir
}

// pidsIn returns the process ids that a server has written to a file of its directory.
func pidsIn(t *testing.T, dir string) (pids []int) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, "pids"))
	must(t, err)
	for _, field := range strings.Fields(string(b)) {
		pid, err := strconv.Atoi(field)
		must(t, err)
		pids = append(pids, pid)
	}
	return pids
}

func TestWhatAServerLeavesInItsGroupEnds(t *testing.T) {
	for name, script := range map[string]string{
		"a program that waits":        `sleep 1000 & echo $! >$0/pids; echo ready; exit 5`,
		"several":                     `sleep 1000 & echo $! >$0/pids; sleep 1000 & echo $! >>$0/pids; echo ready; exit 5`,
		"a helper that forks":         `sh -c '(while :; do sleep 0.01; done) & echo $! $$ >$0/pids; echo ready; wait' $0 & until [ -s $0/pids ]; do sleep 0.01; done; exit 5`,
		"one that others had started": `(sleep 1000 & echo $! >$0/pids); echo ready; exit 5`,
	} {
		t.Run(name, func(t *testing.T) {
			e, dir := wrap(t, script, "ready")
			if status := e.status(t); status != 5 {
				t.Errorf("status %d, want 5", status)
			}
			awaitEnd(t, pidsIn(t, dir))
		})
	}
}

const stubborn = `sh -c 'trap "" TERM; echo $$ >$0/pids; echo ready; while :; do sleep 0.01; done' $0 & until [ -s $0/pids ]; do sleep 0.01; done; exit 5`

func TestWhatDoesNotEndByATermIsKilled(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes ten seconds")
	}
	e, dir := wrap(t, stubborn, "ready")
	if status := e.status(t); status != 5 {
		t.Errorf("status %d, want 5", status)
	}
	awaitEnd(t, pidsIn(t, dir))
}

func TestWhoeverIsInAHurryNeedNotWaitForWhatIsLeft(t *testing.T) {
	e, dir := wrap(t, stubborn, "ready", "--restart=always")
	await(t, "the end of the server", func() bool {
		return len(e.children(t)) > 0 && e.output(t, e.stderr) != "" && strings.Contains(e.output(t, e.stderr), "the server has ended")
	})
	e.signal(syscall.SIGTERM) // no restart
	e.signal(syscall.SIGINT)  // and at once
	if status := e.status(t); status != 5 {
		t.Errorf("status %d, want 5", status)
	}
	awaitEnd(t, pidsIn(t, dir))
}

func TestADaemonOutlivesItsServer(t *testing.T) {
	e, dir := wrap(t, `setsid sh -c 'echo $$ >$0/pids; exec sleep 1000' $0 & until [ -s $0/pids ]; do sleep 0.01; done; echo ready; exit 5`, "ready")
	if status := e.status(t); status != 5 {
		t.Errorf("status %d, want 5", status)
	}
	if err := syscall.Kill(pidsIn(t, dir)[0], syscall.SIGKILL); err != nil {
		t.Errorf("the daemon has ended: %v", err)
	}
}

// A server that is killed is there again, and counts on.
func TestAServerThatDiesIsStartedAgain(t *testing.T) {
	for name, b := range breeds() {
		t.Run(name, func(t *testing.T) {
			w := b.run(t, "--restart=on-failure")
			w.awaitWorkers(t, workers, nil)
			if err := w.ask("/"); err != nil {
				t.Error(err)
			}
			old := w.workers(t)
			must(t, syscall.Kill(w.masters(t)[0], syscall.SIGKILL))
			w.awaitWorkers(t, workers, old)
			w.tells(t, 1, "prefork_master_restarts_total", "reason", "signal")
			awaitEnd(t, old)
			awaitNil(t, "an answer", func() error { return w.ask("/") })
			w.finishes(t)
		})
	}
}

func TestAWaitForARestartIsSeenAndEnded(t *testing.T) {
	e, _ := wrap(t, `trap "" HUP TERM; echo ready; exit 3`, "ready", "--restart=on-failure")
	await(t, "a wait that is told", func() bool {
		got, err := e.tryScrape("")
		return err == nil && got.samples[series("prefork_restart_backoff_seconds")] > 0
	})
	e.signal(syscall.SIGHUP)
	await(t, "a restart", func() bool {
		got, err := e.tryScrape("")
		return err == nil && got.samples[series("prefork_master_restarts_total", "reason", "exit_code")] > 0 &&
			got.samples[series("prefork_master_signals_total", "signal", "HUP")] == 1
	})
	e.signal(syscall.SIGTERM)
	if status := e.status(t); status != 3 {
		t.Errorf("status %d, want that of the last server: 3", status)
	}
}

// unshared is the command that makes us the first process of a PID namespace.
func unshared() []string {
	return []string{"unshare", "--map-root-user", "--pid", "--fork", "--kill-child", "--mount-proc"}
}

func TestTheFirstProcessOfAContainerGoesOnWithASuccessor(t *testing.T) {
	for _, name := range []string{"gunicorn", "unicorn"} {
		t.Run(name, func(t *testing.T) {
			b := breeds()[name]
			b.under, b.init = unshared(), true
			w := b.run(t)
			w.awaitWorkers(t, workers, nil)
			w.handsOver(t)
			w.isReloaded(t, b.reload)
			w.finishes(t)
		})
	}
}

func TestTheFirstProcessOfAContainerEndsAsItsServerDoes(t *testing.T) {
	for script, want := range map[string]int{"exit 7": 7, "kill -KILL $$": 137, "(sleep 1000 &); setsid sleep 1000 & exit 3": 3} {
		words := append(unshared(), program, "run", "--web.listen-address="+freeAddress(t), "--", "sh", "-c", script)
		cmd := exec.Command(words[0], words[1:]...)
		cmd.Env = environment(t.TempDir(), nil)
		out, _ := cmd.CombinedOutput()
		if got := cmd.ProcessState.ExitCode(); got != want {
			t.Errorf("%s: %d, want %d\n%s", script, got, want, tail(string(out)))
		}
	}
}
