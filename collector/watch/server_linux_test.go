package watch

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// theProcess finds a process.
type theProcess struct{ find func() (int, error) }

func (p theProcess) Find() (int, error) { return p.find() }

// server is a real one that is watched.
type server struct {
	*Watcher
	t       *testing.T
	cmd     *exec.Cmd
	ended   chan struct{}
	address string
	log     string
}

func needPeer(t *testing.T, path, pkg string) {
	t.Helper()
	if _, err := os.Stat(path); err == nil {
		return
	}
	fault := fmt.Sprintf("no %s: it comes with Debian's package %s, which `make test` installs", path, pkg)
	if os.Getenv("PREFORK_REQUIRE_PEERS") != "" {
		t.Fatal(fault)
	}
	t.Skip(fault)
}

// await waits until it is so, for as long as go test lets it.
func await(t *testing.T, what string, is func() bool) {
	t.Helper()
	for began := time.Now(); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Since(began) > time.Minute {
			t.Fatalf("waited for %s", what)
		}
	}
}

// startServer starts a server in a process group of its own and waits for its workers. The words may have $LISTEN and $TESTDATA.
func startServer(t *testing.T, env []string, words ...string) *server {
	t.Helper()
	return startServerWith(t, func(*exec.Cmd) {}, env, words...)
}

func startServerWith(t *testing.T, prepare func(*exec.Cmd), env []string, words ...string) *server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{t: t, address: l.Addr().String(), ended: make(chan struct{}), log: filepath.Join(t.TempDir(), "log")}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	testdata, err := filepath.Abs("testdata")
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]string{"LISTEN": s.address, "TESTDATA": testdata}
	for i, word := range words {
		words[i] = os.Expand(word, func(name string) string { return names[name] })
	}
	log, err := os.Create(s.log)
	if err != nil {
		t.Fatal(err)
	}
	s.cmd = exec.Command(words[0], words[1:]...)
	s.cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "LISTEN=" + s.address}, env...)
	s.cmd.Dir, s.cmd.Stdout, s.cmd.Stderr = t.TempDir(), log, log
	s.cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true}
	prepare(s.cmd)
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = s.cmd.Wait() // it ends as it does
		close(s.ended)
	}()
	t.Cleanup(func() {
		_ = unix.Kill(-s.cmd.Process.Pid, unix.SIGKILL) // all of it may be gone
		<-s.ended
		_ = log.Close()
		if t.Failed() {
			text, _ := os.ReadFile(s.log)
			t.Logf("the server's log:\n%s", text)
		}
	})
	return s
}

// watched watches a server.
func (s *server) watched(o Options) *server {
	s.t.Helper()
	if o.Master == nil {
		o.Master = theProcess{func() (int, error) { return s.cmd.Process.Pid, nil }}
	}
	s.Watcher = New(o)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := s.Run(ctx); err != nil {
			s.t.Error(err)
		}
	})
	s.t.Cleanup(func() {
		cancel()
		running.Wait()
	})
	return s
}

func (s *server) now() State {
	state, _ := s.State()
	return state
}

// awaitWorkers waits until there are so many, who serve, and the watcher is sure of it.
func (s *server) awaitWorkers(n int) []Worker {
	s.t.Helper()
	await(s.t, fmt.Sprintf("%d workers", n), func() bool {
		state := s.now()
		return len(state.Workers) == n && state.Target == n
	})
	return s.now().Workers
}

// ask sends a request. What is answered, if anything, does not matter.
func (s *server) ask(path string) {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 20 * time.Second}
	r, err := client.Get("http://" + s.address + path)
	if err == nil {
		_ = r.Body.Close()
	}
}

func (s *server) signal(sig unix.Signal) {
	s.t.Helper()
	if err := unix.Kill(s.cmd.Process.Pid, sig); err != nil {
		s.t.Error(err)
	}
}

// awaitDeaths waits for so many, and returns how often each reason and status is among them.
func (s *server) awaitDeaths(n int) string {
	s.t.Helper()
	await(s.t, fmt.Sprintf("%d deaths", n), func() bool { return len(s.now().Deaths) >= n })
	return tally(s.now().Deaths)
}

// tally tells how often each reason and status is among the deaths. How those end who are
// asked to depends on when: gunicorn 20.1 sends SIGTERM again, php-fpm another signal.
func tally(deaths []Death) string {
	count := map[string]int{}
	for _, d := range deaths {
		if d.Reason == reasonShutdown || d.Reason == reasonReload && d.Signal == "TERM" {
			d.Code, d.Signal = "0", ""
		}
		count[strings.TrimSpace(d.Reason+" "+d.Code+d.Signal)]++
	}
	var all []string
	for _, what := range slices.Sorted(maps.Keys(count)) {
		all = append(all, fmt.Sprintf("%d %s", count[what], what))
	}
	return strings.Join(all, ", ")
}

// script returns app.php where php-fpm's user may read it.
func (s *server) script() string {
	s.t.Helper()
	dir := s.t.TempDir()
	file := filepath.Join(dir, "app.php")
	text, err := os.ReadFile("testdata/app.php")
	if err := errors.Join(err, os.Chmod(filepath.Dir(dir), 0o755), os.Chmod(dir, 0o755), os.WriteFile(file, text, 0o644)); err != nil {
		s.t.Fatal(err)
	}
	return file
}

func (s *server) killWorker(slot string, sig unix.Signal) {
	s.t.Helper()
	for _, w := range s.now().Workers {
		if w.Slot == slot {
			if err := unix.Kill(w.PID, sig); err != nil {
				s.t.Error(err)
			}
		}
	}
}
