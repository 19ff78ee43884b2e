package collector

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/prefork-exporter/prefork_exporter/collector/internal/procfs"
	"github.com/prefork-exporter/prefork_exporter/collector/watch"
)

// Applications that answer when there is a file.
const (
	pythonApp = `import os, time
def application(environ, start_response):
    while not os.path.exists(os.environ["GATE"]):
        time.sleep(.01)
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
`
	rubyApp = `run lambda { |env|
  sleep 0.01 until File.exist?(ENV["GATE"])
  [200, {"Content-Length" => "2"}, ["ok"]]
}
`
)

// A server is asked by two clients at once, each of which has a worker of its own.
func TestWhichWorkersOfRealServersAreBusy(t *testing.T) {
	const python, ruby = "/usr/bin/python3", "/usr/bin/ruby"
	for name, words := range map[string][]string{
		"gunicorn":          {python, "/usr/bin/gunicorn", "--workers=2", "--bind=$LISTEN", "app"},
		"gunicorn, gthread": {python, "/usr/bin/gunicorn", "--workers=2", "--worker-class=gthread", "--worker-connections=2", "--threads=1", "--bind=$LISTEN", "app"},
		"uWSGI": {"/usr/bin/uwsgi-core", "--plugin", "python3", "--http-socket", "$LISTEN", "--master", "--processes", "2", "--die-on-term",
			"--need-app", "--disable-logging", "--wsgi-file", "app.py"},
		"unicorn": {ruby, "/usr/bin/unicorn", "--no-default-middleware", "--config-file", "unicorn.rb", "config.ru"},
		"puma":    {ruby, "/usr/bin/puma", "--workers", "2", "--threads", "1:1", "--bind", "tcp://$LISTEN", "config.ru"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newRealServer(t, words)
			c := NewWorker(WorkerOptions{Source: sourceFunc(s.state)})
			t.Cleanup(func() { must(t, c.Close()) })
			busy := func() string {
				return valueOf(t, c, `prefork_worker_busy{worker_id="0"}`) + valueOf(t, c, `prefork_worker_busy{worker_id="1"}`)
			}
			await(t, "two idle workers", func() bool { return busy() == "00" })
			first := s.ask(t)
			await(t, "a busy worker", func() bool { got := busy(); return got == "01" || got == "10" })
			second := s.ask(t)
			if name != "gunicorn, gthread" { // which may take both
				await(t, "two busy workers", func() bool { return busy() == "11" })
			}
			must(t, os.WriteFile(s.gate, nil, 0o644))
			for _, c := range []net.Conn{first, second} {
				r, err := http.ReadResponse(bufio.NewReader(c), nil)
				if err != nil || r.StatusCode != http.StatusOK {
					t.Fatalf("%v, %v", r, err)
				}
				must(t, r.Body.Close())
			}
			await(t, "two idle workers again", func() bool { return busy() == "00" })
		})
	}
}

// realServer is a server with two workers.
type realServer struct {
	proc          procfs.FS
	master        int
	address, gate string
}

func newRealServer(t *testing.T, words []string) *realServer {
	t.Helper()
	for _, word := range words {
		if _, err := os.Stat(word); filepath.IsAbs(word) && err != nil {
			if os.Getenv("PREFORK_REQUIRE_PEERS") != "" {
				t.Fatalf("wants %s", word)
			}
			t.Skipf("wants %s", word)
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	s := &realServer{proc: procfs.New("/proc"), address: l.Addr().String()}
	must(t, l.Close())
	dir := t.TempDir()
	s.gate = filepath.Join(dir, "gate")
	for name, text := range map[string]string{
		"app.py": pythonApp, "config.ru": rubyApp, "unicorn.rb": fmt.Sprintf("worker_processes 2\nlisten %q\n", s.address),
	} {
		must(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
	}
	for i, word := range words {
		words[i] = strings.ReplaceAll(word, "$LISTEN", s.address)
	}
	cmd := exec.Command(words[0], words[1:]...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GATE="+s.gate)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	must(t, cmd.Start())
	s.master = cmd.Process.Pid
	t.Cleanup(func() {
		_ = syscall.Kill(-s.master, syscall.SIGKILL)
		_ = cmd.Wait()
	})
	await(t, "a server that listens", func() bool {
		c, err := net.Dial("tcp", s.address)
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	})
	return s
}

// state returns the master's children as its workers.
func (s *realServer) state() watch.State {
	state := watch.State{Master: s.master}
	pids, _ := s.proc.PIDs()
	for _, pid := range pids {
		if stat, err := s.proc.Stat(pid); err == nil && stat.Parent == s.master {
			slot := fmt.Sprint(len(state.Workers))
			state.Workers = append(state.Workers, watch.Worker{Slot: slot, PID: pid, Start: stat.Start, State: "running"})
		}
	}
	return state
}

// ask sends a request over a connection that may be kept.
func (s *realServer) ask(t *testing.T) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", s.address)
	must(t, err)
	t.Cleanup(func() { _ = c.Close() })
	_, err = fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	must(t, err)
	return c
}
