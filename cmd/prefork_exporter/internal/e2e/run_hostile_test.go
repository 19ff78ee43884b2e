package e2e

import (
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// activated returns gunicorn as it runs under us when systemd has opened its socket.
func activated() breed {
	const activate = "/usr/bin/systemd-socket-activate"
	b := breeds()["gunicorn"]
	b.peers = append(b.peers, peer{activate, "systemd"})
	b.under = []string{activate, "--listen=$LISTEN"}
	for _, name := range []string{"GATE", "FAMILY", "PATH", "HOME"} {
		b.under = append(b.under, "--setenv="+name)
	}
	return b
}

// The USR2 of gunicorn 20.1 fails with such sockets, under us or not.
func TestSocketsThatArePassedToUsAreTheServers(t *testing.T) {
	w := activated().run(t)
	w.awaitWorkers(t, workers, nil)
	if n := listeners(t, w.address); n != 1 {
		t.Errorf("%d sockets, want 1", n)
	}
	stop := w.load(t)
	w.isReloaded(t, w.reload)
	w.isScaled(t)
	stop()
	w.finishes(t)
}

func TestPassedSocketsStayOpenWhileAServerIsStartedAgain(t *testing.T) {
	w := activated().run(t, "--restart=always")
	w.awaitWorkers(t, workers, nil)
	stop := w.load(t)
	must(t, syscall.Kill(w.masters(t)[0], syscall.SIGTERM)) // not by us: it ends by itself
	w.tells(t, 1, "prefork_master_restarts_total", "reason", "clean")
	w.awaitWorkers(t, workers, nil)
	stop()
}

// What the server tells whoever has started us it tells by itself.
func TestTheServerSpeaksToWhoeverHasStartedUs(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	ear, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	must(t, err)
	defer func() { _ = ear.Close() }()
	cmd := command("run", "--web.listen-address="+freeAddress(t), "--", pythonPath, "-c", `
import os, socket
socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b'READY=1', os.environ['NOTIFY_SOCKET'])
print('LISTEN_PID' in os.environ)
`)
	e := start(t, cmd, "NOTIFY_SOCKET="+path, "LISTEN_PID=1", "LISTEN_FDS=1")
	words := make([]byte, 100)
	n, err := ear.Read(words)
	must(t, err)
	if got := string(words[:n]); got != "READY=1" {
		t.Errorf("it said %q", got)
	}
	if status, out := e.status(t), e.output(t, e.stdout); status != 0 || out != "False\n" {
		t.Errorf("status %d, sockets that are others': %q", status, out)
	}
}

func TestASidecarThatDiesUnderRunIsReplaced(t *testing.T) {
	e, _ := wrap(t, `trap "" USR1; echo ready; sleep 1000 & wait`, "ready")
	w := ward{exporter: e}
	w.awaitPage(t, e.process, "/-/healthy")
	e.signal(syscall.SIGUSR1)
	w.tells(t, 1, "prefork_master_signals_total", "signal", "USR1")
	began := w.scrape(t).samples[series("prefork_master_start_time_seconds")]
	server := w.masters(t)[0]
	for _, pid := range e.children(t) {
		if pid != server {
			must(t, syscall.Kill(pid, syscall.SIGKILL))
		}
	}
	e.CloseIdleConnections()
	w.tells(t, 1, "prefork_master_signals_total", "signal", "USR1")
	w.tells(t, began, "prefork_master_start_time_seconds")
}

// A log that nobody reads holds up the server, and not us.
func TestAServerThatFloodsAPipeIsStopped(t *testing.T) {
	web := freeAddress(t)
	cmd := command("run", "--web.listen-address="+web, "--", "sh", "-c", "exec yes")
	r, w, err := os.Pipe()
	must(t, err)
	defer func() { _ = r.Close() }()
	cmd.Stdout, cmd.Stderr = w, w
	cmd.Env = environment(t.TempDir(), nil)
	must(t, cmd.Start())
	_ = w.Close()
	c := newClient(t, "tcp", web)
	awaitNil(t, "the sidecar", func() error {
		_, err := c.get("/-/healthy")
		return err
	})
	must(t, cmd.Process.Signal(syscall.SIGTERM))
	_ = cmd.Wait() // ProcessState tells all
	if status := cmd.ProcessState.ExitCode(); status != 128+int(syscall.SIGTERM) {
		t.Errorf("status %d, want 143", status)
	}
}

func TestAServerThatFloodsIsReadWhole(t *testing.T) {
	const much = 20 << 20
	cmd := command("run", "--web.listen-address="+freeAddress(t), "--", "sh", "-c", "yes | head -c 20971520; exit 4")
	cmd.Env = environment(t.TempDir(), nil)
	out, err := cmd.Output()
	if n, status := len(out), cmd.ProcessState.ExitCode(); n != much || status != 4 {
		t.Errorf("%d bytes and status %d, %v; want %d and 4", n, status, err, much)
	}
}

func TestAServerThatIgnoresAStop(t *testing.T) {
	const script = `trap "echo got TERM" TERM; trap "" INT; echo ready; while :; do sleep 0.01; done`
	t.Run("is told of each", func(t *testing.T) {
		e, _ := wrap(t, script, "ready")
		for n := range 3 {
			e.signal(syscall.SIGTERM)
			e.signal(syscall.SIGINT)
			await(t, "the server to hear of it", func() bool { return strings.Count(e.output(t, e.stdout), "got TERM") == n+1 })
		}
		e.signal(syscall.SIGUSR1) // which ends it
		if status := e.status(t); status != 128+int(syscall.SIGUSR1) {
			t.Errorf("status %d, want 138", status)
		}
	})
	t.Run("is killed when it takes too long", func(t *testing.T) {
		e, _ := wrap(t, script, "ready", "--stop-timeout=100ms", "--restart=always")
		e.signal(syscall.SIGTERM)
		if status := e.status(t); status != 128+int(syscall.SIGKILL) {
			t.Errorf("status %d, want 137", status)
		}
	})
}

func TestAServerWhoseWrapperIsKilledStops(t *testing.T) {
	w := breeds()["gunicorn"].run(t)
	w.awaitWorkers(t, workers, nil)
	pids := append(w.children(t), w.workers(t)...)
	w.signal(syscall.SIGKILL)
	w.status(t)
	awaitEnd(t, pids)
	isFree(t, w.address)
}

// onTerminal starts a command on a terminal, and returns what types there.
func onTerminal(t *testing.T, words ...string) (p *process, keyboard io.Writer) {
	t.Helper()
	const script = "/usr/bin/script"
	need(t, peer{script, "bsdutils"})
	r, w, err := os.Pipe()
	must(t, err)
	t.Cleanup(func() { _, _ = r.Close(), w.Close() })
	cmd := exec.Command(script, "--quiet", "--return", "--flush", "--command", "exec "+strings.Join(words, " "), "/dev/null")
	cmd.Stdin = r
	return start(t, cmd), w
}

// interrupt is what Ctrl-C types.
const interrupt = "\x03"

func TestAnInterruptOfTheTerminalReachesTheServerOnce(t *testing.T) {
	file := filepath.Join(t.TempDir(), "server")
	must(t, os.WriteFile(file, []byte(`trap "echo got INT" INT; trap "exit 7" USR1; echo ready; while :; do sleep 0.01; done`), 0o644))
	web := freeAddress(t)
	p, keyboard := onTerminal(t, program, "run", "--web.listen-address="+web, "--", "sh", file)
	await(t, "the server", func() bool { return strings.Contains(p.output(t, p.stdout), "ready") })
	e := &exporter{process: p, client: newClient(t, "tcp", web)}
	e.awaitPage(t, p, "/-/healthy")
	for n := range 3 {
		_, err := io.WriteString(keyboard, interrupt)
		must(t, err)
		await(t, "the server to be interrupted", func() bool { return strings.Count(p.output(t, p.stdout), "got INT") == n+1 })
	}
	w := ward{exporter: e}
	w.tells(t, 0, "prefork_master_signals_total", "signal", "INT")
	us := p.children(t)
	must(t, syscall.Kill(us[0], syscall.SIGUSR1))
	if status := p.status(t); status != 7 {
		t.Errorf("status %d, want 7", status)
	}
}

// The terminal is ours while no server runs.
func TestAnInterruptOfTheTerminalEndsTheWaitForARestart(t *testing.T) {
	p, keyboard := onTerminal(t, program, "run", "--restart=always", "--web.listen-address="+freeAddress(t), "--", "sh", "-c", "'exit 5'")
	await(t, "the end of the server", func() bool { return strings.Contains(p.output(t, p.stdout), "a restart waits") })
	_, err := io.WriteString(keyboard, interrupt)
	must(t, err)
	if status := p.status(t); status != 5 {
		t.Errorf("status %d, want 5", status)
	}
}

func TestAServerThatATerminalEndsIsNotStartedAgain(t *testing.T) {
	p, keyboard := onTerminal(t, program, "run", "--restart=always", "--web.listen-address="+freeAddress(t), "--", "sh", "-c",
		`'trap "exit 0" INT; echo ready; read line; echo read $line; while :; do sleep 0.01; done'`)
	await(t, "the server", func() bool { return strings.Contains(p.output(t, p.stdout), "ready") })
	_, err := io.WriteString(keyboard, "words\n")
	must(t, err)
	await(t, "the server to read", func() bool { return strings.Contains(p.output(t, p.stdout), "read words") })
	_, err = io.WriteString(keyboard, interrupt)
	must(t, err)
	if status := p.status(t); status != 0 {
		t.Errorf("status %d, want 0", status)
	}
}
