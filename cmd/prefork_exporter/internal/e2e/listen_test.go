package e2e

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// queueOf returns a value of an accept queue, and whether it is there.
func (e *exporter) queueOf(t *testing.T, name, listener string) (float64, bool) {
	t.Helper()
	v, ok := e.scrape(t).samples[series("prefork_listen_queue_"+name, "listener", listener)]
	return v, ok
}

// awaitQueue waits until so many connections wait.
func (e *exporter) awaitQueue(t *testing.T, listener string, n float64) {
	t.Helper()
	await(t, "a queue", func() bool {
		got, ok := e.queueOf(t, "length", listener)
		return ok && got == n
	})
}

// callers are connections that ask for something.
type callers []net.Conn

// call makes so many, each with a request.
func call(t *testing.T, network, address string, n int) (all callers) {
	t.Helper()
	for range n {
		c, err := net.DialTimeout(network, address, patience)
		must(t, err)
		t.Cleanup(func() { _ = c.Close() })
		_, err = c.Write([]byte("GET /fast HTTP/1.0\r\n\r\n"))
		must(t, err)
		all = append(all, c)
	}
	return all
}

// areAnswered fails the test when one is not.
func (c callers) areAnswered(t *testing.T) {
	t.Helper()
	for _, conn := range c {
		must(t, conn.SetReadDeadline(time.Now().Add(patience)))
		answer := make([]byte, len("HTTP/1."))
		if _, err := conn.Read(answer); err != nil || !strings.HasPrefix(string(answer), "HTTP/") {
			t.Errorf("answer %q, %v", answer, err)
		}
	}
}

// stopThreads stops a process, and waits until no thread of it can accept any more. The
// test's end lets it go on, for else it could not end.
func stopThreads(t *testing.T, pid int) {
	t.Helper()
	must(t, syscall.Kill(pid, syscall.SIGSTOP))
	t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGCONT) })
	await(t, "the stop of every thread", func() bool {
		stats, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
		must(t, err)
		return len(stats) > 0 && !slices.ContainsFunc(stats, func(stat string) bool {
			b, err := os.ReadFile(stat)
			return err == nil && !strings.Contains(string(b), ") T ")
		})
	})
}

// queues stops the workers of a server under some requests, and goes on.
func queues(t *testing.T, e *exporter, network, address, listener string, workers func() []int) {
	t.Helper()
	e.awaitQueue(t, listener, 0)
	for _, pid := range workers() {
		stopThreads(t, pid)
	}
	waiting := call(t, network, address, 5)
	e.awaitQueue(t, listener, 5)
	if limit, ok := e.queueOf(t, "limit", listener); !ok || limit < 5 {
		t.Errorf("a limit of %v, %v", limit, ok)
	}
	if peak, _ := e.queueOf(t, "peak", listener); peak != 5 {
		t.Errorf("a peak of %v, want 5", peak)
	}
	_, aged := e.queueOf(t, "oldest_seconds", listener)
	_, counted := e.queueOf(t, "drops_total", listener)
	if tcp := network == "tcp"; aged != tcp || counted != tcp {
		t.Errorf("age %v, drops %v; want both %v", aged, counted, tcp)
	}
	await(t, "time that was waited", func() bool {
		waited, _ := e.queueOf(t, "wait_seconds_total", listener)
		oldest, _ := e.queueOf(t, "oldest_seconds", listener)
		return waited > 1 && (oldest > .2 || !aged)
	})
	for _, pid := range workers() {
		must(t, syscall.Kill(pid, syscall.SIGCONT))
	}
	waiting.areAnswered(t)
	e.awaitQueue(t, listener, 0)
	if oldest, _ := e.queueOf(t, "oldest_seconds", listener); oldest != 0 {
		t.Errorf("the oldest has waited %v s, and nobody waits", oldest)
	}
}

// onlyListener fails the test when the queue of another is told.
func (e *exporter) onlyListener(t *testing.T, listener string) {
	t.Helper()
	for s := range e.scrape(t).samples {
		if isOf(s, "prefork_listen_queue_length") && s != series("prefork_listen_queue_length", "listener", listener) {
			t.Errorf("%s is not of the server", s)
		}
	}
}

func TestTheQueueOfAMasterRisesAndFalls(t *testing.T) {
	for name, args := range map[string][]string{"one socket": nil, "a socket for each worker": {"--reuse-port"}} {
		t.Run(name, func(t *testing.T) {
			m := startMaster(t, 2, args...)
			workers := func() (pids []int) {
				for _, pid := range m.pids(t) {
					pids = append(pids, pid)
				}
				return pids
			}
			queues(t, m.exporter, "tcp", m.listen, "tcp://"+m.listen, workers)
			m.onlyListener(t, "tcp://"+m.listen)
		})
	}
}

func TestTheQueueOfAUnixSocket(t *testing.T) {
	web, path := freeAddress(t), filepath.Join(t.TempDir(), "app.sock")
	m := &master{exporter: startExporterCommand(t, web, command(
		"supervise", "--listen=unix:"+path, "--web.listen-address="+web, "--", workerProgram))}
	m.awaitWorkers(t, 1)
	queues(t, m.exporter, "unix", path, "unix://"+path, func() []int { return []int{m.pids(t)["0"]} })
	m.onlyListener(t, "unix://"+path)
}

func TestTheQueueOfGunicornUnderRun(t *testing.T) {
	w := breeds()["gunicorn"].run(t)
	queues(t, w.exporter, "tcp", w.address, "tcp://"+w.address, func() []int { return w.workers(t) })
	w.onlyListener(t, "tcp://"+w.address)
}

// A plain sidecar knows no server: its sockets are named.
func TestTheQueueOfANamedListener(t *testing.T) {
	web, path := freeAddress(t), filepath.Join(t.TempDir(), "app.sock")
	e := startExporterCommand(t, web, command("--multiproc.dir="+t.TempDir(), "--web.listen-address="+web, "--listen.address=unix:"+path))
	feature := func(reason string) float64 {
		v, ok := e.scrape(t).samples[series("prefork_feature_available", "feature", "listen_queue", "reason", reason)]
		if !ok {
			return -1
		}
		return v
	}
	if got := feature("nobody listens at --listen.address"); got != 0 {
		t.Errorf("the feature is %v, want 0", got)
	}
	l, err := net.Listen("unix", path)
	must(t, err)
	defer func() { _ = l.Close() }()
	call(t, "unix", path, 3)
	e.awaitQueue(t, "unix://"+path, 3)
	if got := feature(""); got != 1 {
		t.Errorf("the feature is %v, want 1", got)
	}
}

// Who may read nothing of the server still measures what is named.
func TestTheQueueForAUserWithoutPrivileges(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("every other test shows it")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer func() { _ = l.Close() }()
	web := freeAddress(t)
	cmd := command("--multiproc.dir="+openDir(t), "--web.listen-address="+web, "--listen.address="+l.Addr().String())
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	e := startExporterCommand(t, web, cmd)
	call(t, "tcp", l.Addr().String(), 3)
	e.awaitQueue(t, "tcp://"+l.Addr().String(), 3)
	await(t, "an age", func() bool {
		oldest, _ := e.queueOf(t, "oldest_seconds", "tcp://"+l.Addr().String())
		return oldest > .1
	})
}
