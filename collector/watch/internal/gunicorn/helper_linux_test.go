package gunicorn

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-exporter/prefork_exporter/collector/internal/procfs"
	"go.uber.org/goleak"
)

const (
	pythonPath   = "/usr/bin/python3" // Debian's: others do not see Debian's gunicorn
	gunicornPath = "/usr/bin/gunicorn"
	nobody       = 65534
	longest      = 60 * time.Second // how long a test waits for anything before it fails
)

var proc = procfs.New("/proc")

func TestMain(m *testing.M) {
	if pids := os.Getenv(asObserver); pids != "" {
		observe(pids)
		return
	}
	goleak.VerifyTestMain(m)
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// await waits until ok.
func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.NewTimer(longest)
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline.C:
			t.Fatalf("waited %s in vain for %s", longest, what)
		case <-tick.C:
		}
	}
}

// need skips the test where a program is missing, or fails it where none may be.
func need(t *testing.T, path, pkg string) {
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

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("not root: this needs processes of several users, or namespaces")
	}
}

// exists says whether there is such a file.
func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// server is a real gunicorn, Debian's unless PREFORK_GUNICORN names a directory with
// another one. Everything it is told to write is in dir.
type server struct {
	t    *testing.T
	cmd  *exec.Cmd
	pid  int // of the master
	dir  string
	log  string
	http string
	done chan struct{}
}

// launch says how a server is started.
type launch struct {
	args, env []string
	under     []string // the command that starts it; none: the test itself
	bare      bool     // without the tests' configuration file and application
}

// start starts a server, and stops it at the end of the test.
func start(t *testing.T, how launch) *server {
	t.Helper()
	need(t, gunicornPath, "gunicorn")
	need(t, pythonPath, "python3")
	dir, err := os.MkdirTemp("", "gunicorn-")
	must(t, err)
	t.Cleanup(func() { must(t, os.RemoveAll(dir)) })
	must(t, os.Chmod(dir, 0o777)) // for other users' workers
	s := &server{t: t, dir: dir, log: filepath.Join(dir, "log"), http: filepath.Join(dir, "http"), done: make(chan struct{})}
	s.cmd = s.command(how)
	s.run()
	s.pid = s.cmd.Process.Pid
	if len(how.under) > 0 {
		await(t, "the master", func() bool {
			children, err := proc.Children(s.cmd.Process.Pid)
			if err == nil && len(children) == 1 {
				s.pid = children[0]
			}
			return err == nil && len(children) == 1 && s.logged("Listening at")
		})
	}
	return s
}

func (s *server) command(how launch) *exec.Cmd {
	testdata, err := filepath.Abs("testdata")
	must(s.t, err)
	words := slices.Concat(how.under, []string{pythonPath})
	other := os.Getenv("PREFORK_GUNICORN")
	if other == "" {
		words = append(words, gunicornPath)
	} else {
		words = append(words, "-m", "gunicorn")
	}
	words = append(words, "--bind", "unix:"+s.http, "--pythonpath", testdata)
	if !how.bare {
		words = append(words, "--config", filepath.Join(testdata, "conf.py"))
	}
	words = append(slices.Concat(words, how.args), "app:application")
	cmd := exec.Command(words[0], words[1:]...)
	cmd.Dir = s.dir
	cmd.Env = append([]string{
		"PATH=/usr/bin:/bin", "HOME=" + s.dir, "LANG=C.UTF-8", "PYTHONDONTWRITEBYTECODE=1", "DIR=" + s.dir,
		"PYTHONPATH=" + other, "XDG_RUNTIME_DIR=" + s.dir,
	}, how.env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	return cmd
}

// run starts the command on a thread that lasts as long as it: for the kernel that is the
// parent.
func (s *server) run() {
	s.t.Helper()
	log, err := os.Create(s.log)
	must(s.t, err)
	s.cmd.Stdout, s.cmd.Stderr = log, log
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := s.cmd.Start()
		started <- err
		if err == nil {
			_ = s.cmd.Wait()
			close(s.done)
		}
	}()
	err = <-started
	_ = log.Close()
	must(s.t, err)
	s.t.Cleanup(s.end)
}

func (s *server) end() {
	_ = syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL)
	<-s.done
	if s.t.Failed() {
		log, _ := os.ReadFile(s.log)
		s.t.Logf("gunicorn wrote:\n%s", log)
	}
}

func (s *server) logged(text string) bool {
	log, _ := os.ReadFile(s.log)
	return strings.Contains(string(log), text)
}

// workers waits until there are so many children of the master that are ready.
func (s *server) workers(n int) []int {
	s.t.Helper()
	var ready []int
	await(s.t, fmt.Sprintf("%d workers", n), func() bool {
		children, err := proc.Children(s.pid)
		must(s.t, err)
		ready = slices.DeleteFunc(children, func(pid int) bool { return !exists(s.file("ready", pid)) || gone(pid) })
		return len(ready) == n
	})
	return ready
}

func gone(pid int) bool {
	stat, err := proc.Stat(pid)
	return err != nil || stat.Gone()
}

// file is what a process, by the id that it knows itself, has written.
func (s *server) file(what string, pid int) string {
	return filepath.Join(s.dir, fmt.Sprintf("%s.%d", what, pid))
}

// own returns which file a worker says that its heartbeat is.
func (s *server) own(pid int) (id fileID) {
	s.t.Helper()
	b, err := os.ReadFile(s.file("own", pid))
	must(s.t, err)
	_, err = fmt.Sscan(string(b), &id.device, &id.inode)
	must(s.t, err)
	return id
}

// heartbeat opens that of a worker.
func (s *server) heartbeat(pid int) *Heartbeat {
	s.t.Helper()
	h, err := OpenHeartbeat(proc, s.pid, pid)
	must(s.t, err)
	s.t.Cleanup(func() { must(s.t, h.Close()) })
	return h
}

// id returns which file it is.
func (h *Heartbeat) id(t *testing.T) fileID {
	t.Helper()
	info, err := h.file.Stat()
	must(t, err)
	return idOf(info)
}

// keepBusy has a worker answer a request until the gate is opened.
func (s *server) keepBusy(name string) (gate string) {
	s.t.Helper()
	gate = filepath.Join(s.dir, name)
	conn, err := net.Dial("unix", s.http)
	must(s.t, err)
	s.t.Cleanup(func() { _ = conn.Close() })
	_, err = fmt.Fprintf(conn, "GET /wait?%s HTTP/1.0\r\n\r\n", gate)
	must(s.t, err)
	await(s.t, "the request to be taken", func() bool { return exists(gate + ".taken") })
	return gate
}

// signOf returns the last sign of life that is known.
func signOf(t *testing.T, h *Heartbeat) time.Time {
	t.Helper()
	sign, ok := h.LastSign()
	if !ok {
		t.Fatal("no sign of life is known")
	}
	return sign
}
