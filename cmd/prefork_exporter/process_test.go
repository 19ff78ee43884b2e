//go:build unix

package main

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// process is the program as a process of its own.
type process struct {
	cmd  *exec.Cmd
	logs *bufio.Scanner // of stderr
}

// start runs the program by way of a shell that tells it what systemd would.
func start(t *testing.T, files []*os.File, args ...string) *process {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	argv := append([]string{"-c", `LISTEN_PID=$$ exec "$0" "$@"`, os.Args[0]}, args...)
	p := &process{cmd: exec.CommandContext(ctx, "/bin/sh", argv...)}
	p.cmd.Env = append(os.Environ(), asProgram+"=1", "LISTEN_FDS=1", "HOME=")
	p.cmd.ExtraFiles = files
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.logs = bufio.NewScanner(stderr)
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return p
}

// await reads the log up to a line that has text in it.
func (p *process) await(t *testing.T, text string) {
	t.Helper()
	for p.logs.Scan() {
		if strings.Contains(p.logs.Text(), text) {
			return
		}
	}
	t.Fatalf("the log ends without %q: %v", text, p.logs.Err())
}

// end returns the exit code, once the log has ended.
func (p *process) end(t *testing.T) int {
	t.Helper()
	for p.logs.Scan() {
	}
	var exit *exec.ExitError
	if err := p.cmd.Wait(); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return p.cmd.ProcessState.ExitCode()
}

func TestProcessWithSystemdsSocketAndSignals(t *testing.T) {
	clearEnvironment(t)
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	passed, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	url := "http://" + l.Addr().String() + "/healthz"
	_ = l.Close()
	p := start(t, []*os.File{passed}, "--web.systemd-socket", "--multiproc.dir="+t.TempDir())
	_ = passed.Close()
	p.await(t, "Started prefork_exporter")
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Minute}
	resp, err := c.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if err != nil || string(body) != "healthy\n" {
		t.Errorf("over systemd's socket: %q, %v", body, err)
	}
	for _, s := range []struct {
		signal os.Signal
		log    string
	}{{syscall.SIGHUP, "The configuration was read again"}, {syscall.SIGTERM, "Stopping"}} {
		if err := p.cmd.Process.Signal(s.signal); err != nil {
			t.Fatal(err)
		}
		p.await(t, s.log)
	}
	if code := p.end(t); code != exitOK {
		t.Errorf("exit code %d after SIGTERM, want 0", code)
	}
}

func TestProcessThatIsUsedWrongly(t *testing.T) {
	clearEnvironment(t)
	p := start(t, nil, "--foo")
	p.await(t, "prefork_exporter: unknown flag: --foo")
	if code := p.end(t); code != exitUsage {
		t.Errorf("exit code %d, want 2", code)
	}
}
