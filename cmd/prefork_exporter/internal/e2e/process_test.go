package e2e

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// nobody is a user who owns nothing.
const nobody = 65534

// patience is how long a test waits for anything before it fails.
const patience = 60 * time.Second

// await waits until ok.
func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	awaitNil(t, what, func() error {
		if !ok() {
			return errors.New("not yet")
		}
		return nil
	})
}

// awaitNil waits until try returns no error.
func awaitNil(t *testing.T, what string, try func() error) {
	t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for err := try(); err != nil; err = try() {
		select {
		case <-deadline.C:
			t.Fatalf("waited %s in vain for %s: %v", patience, what, err)
		case <-tick.C:
		}
	}
}

// must fails the test on an error.
func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// peer is a part of a Debian package that a test runs.
type peer struct{ path, pkg string }

// need skips the test where a peer is missing, or fails it where none may be.
func need(t *testing.T, peers ...peer) {
	t.Helper()
	for _, p := range peers {
		_, err := os.Stat(p.path)
		if err == nil {
			continue
		}
		fault := fmt.Sprintf("no %s: it comes with Debian's package %s, which `make test` installs", p.path, p.pkg)
		if os.Getenv("PREFORK_REQUIRE_PEERS") != "" {
			t.Fatal(fault)
		}
		t.Skip(fault)
	}
}

// process is a child that leads a process group of its own.
type process struct {
	cmd    *exec.Cmd
	stdout string        // the file that takes its output
	stderr string        // likewise
	done   chan struct{} // closed when it has ended
	stop   syscall.Signal
}

// start starts cmd in an environment of its own: env, and what every program
// needs. The end of the test ends it and its children.
func start(t *testing.T, cmd *exec.Cmd, env ...string) *process {
	t.Helper()
	p := newProcess(t, cmd)
	stdout, stderr := create(t, p.stdout), create(t, p.stderr)
	cmd.Stdout, cmd.Stderr = stdout, stderr
	p.launch(t, env)
	_, _ = stdout.Close(), stderr.Close()
	return p
}

// startPiped is start, but what cmd writes to are pipes, which lead into the files.
func startPiped(t *testing.T, cmd *exec.Cmd, env ...string) *process {
	t.Helper()
	p := newProcess(t, cmd)
	through := func(path string) *os.File {
		r, w := openPipe(t)
		f := create(t, path)
		go func() {
			_, _ = io.Copy(f, r)
			_ = f.Close()
		}()
		return w
	}
	stdout, stderr := through(p.stdout), through(p.stderr)
	cmd.Stdout, cmd.Stderr = stdout, stderr
	p.launch(t, env)
	_, _ = stdout.Close(), stderr.Close()
	return p
}

func newProcess(t *testing.T, cmd *exec.Cmd) *process {
	t.Helper()
	dir := t.TempDir()
	return &process{
		cmd: cmd, stdout: filepath.Join(dir, "stdout"), stderr: filepath.Join(dir, "stderr"),
		done: make(chan struct{}), stop: syscall.SIGTERM,
	}
}

// launch starts the process, whose streams are open.
func (p *process) launch(t *testing.T, env []string) {
	t.Helper()
	p.cmd.Env = environment(filepath.Dir(p.stdout), env)
	if p.cmd.SysProcAttr == nil {
		p.cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	p.cmd.SysProcAttr.Setpgid = !p.cmd.SysProcAttr.Setsid // the leader of a session leads a group already
	endWithParent(p.cmd.SysProcAttr)
	started := make(chan error)
	go p.run(started)
	must(t, <-started)
	t.Cleanup(func() { p.end(t) })
}

// run runs the process until it ends. For the kernel the thread is the parent,
// so it has to last as long.
func (p *process) run(started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := p.cmd.Start()
	started <- err
	if err == nil {
		_ = p.cmd.Wait() // ProcessState tells all
		close(p.done)
	}
}

// openPipe returns a pipe that the end of the test closes.
func openPipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	must(t, err)
	t.Cleanup(func() { _, _ = r.Close(), w.Close() })
	return r, w
}

func create(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.Create(path)
	must(t, err)
	return f
}

// environment returns env with what every program needs, and nothing of the
// tests' own environment: that may name metric directories.
func environment(home string, env []string) []string {
	return append(env, "PATH=/usr/bin:/bin", "HOME="+home, "LANG=C.UTF-8", "PYTHONDONTWRITEBYTECODE=1",
		"GORACE=atexit_sleep_ms=0") // the race detector would let every end last a second
}

// end asks the process to stop, so that a master can reap its workers, and
// kills what is left of its group.
func (p *process) end(t *testing.T) {
	p.signal(p.stop)
	timer := time.NewTimer(10 * time.Second)
	defer timer.Stop()
	select {
	case <-p.done:
	case <-timer.C:
	}
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	<-p.done
	if t.Failed() {
		t.Logf("%s wrote:\n%s", p.cmd.Args, tail(p.output(t, p.stdout)+p.output(t, p.stderr)))
	}
}

// tail returns the end of a long text.
func tail(s string) string { return s[max(0, len(s)-4000):] }

func (p *process) signal(s syscall.Signal) { _ = p.cmd.Process.Signal(s) }

// output returns what the process has written so far to stdout or stderr.
func (p *process) output(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Error(err)
	}
	return string(b)
}

// running says whether the process has not ended.
func (p *process) running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// status waits for the end of the process and returns its exit status, or -1
// if a signal ended it.
func (p *process) status(t *testing.T) int {
	t.Helper()
	await(t, "the end of "+filepath.Base(p.cmd.Path), func() bool { return !p.running() })
	return p.cmd.ProcessState.ExitCode()
}

// children returns the pids of the living children of the process.
func (p *process) children(t *testing.T) []int {
	t.Helper()
	return childrenOf(t, p.cmd.Process.Pid)
}

func childrenOf(t *testing.T, parent int) []int {
	t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	must(t, err)
	var pids []int
	for _, stat := range stats {
		b, err := os.ReadFile(stat)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			continue // gone since
		}
		must(t, err)
		// pid (name) state parent: a name may have blanks and brackets.
		fields := strings.Fields(string(b[strings.LastIndex(string(b), ")")+1:]))
		if fields[0] == "Z" || fields[1] != strconv.Itoa(parent) {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(stat)))
		must(t, err)
		pids = append(pids, pid)
	}
	return pids
}

// awaitEnd waits until none of the processes lives.
func awaitEnd(t *testing.T, pids []int) {
	t.Helper()
	await(t, fmt.Sprintf("the end of processes %d", pids), func() bool {
		return !slices.ContainsFunc(pids, func(pid int) bool {
			stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
			return err == nil && !strings.Contains(string(stat), ") Z ")
		})
	})
}

// awaitSuccessors waits until the process has n children, none of them in old.
func (p *process) awaitSuccessors(t *testing.T, n int, old []int) {
	t.Helper()
	await(t, fmt.Sprintf("%d new workers", n), func() bool {
		now := p.children(t)
		return len(now) == n && !slices.ContainsFunc(now, func(pid int) bool { return slices.Contains(old, pid) })
	})
}

// freeAddress returns a loopback address that nobody listens on. It is outside
// of the range that the kernel takes ports from, so nobody gets it by chance.
func freeAddress(t *testing.T) string {
	t.Helper()
	for range 100 {
		address := net.JoinHostPort("127.0.0.1", strconv.Itoa(10_000+rand.IntN(20_000)))
		if l, err := net.Listen("tcp", address); err == nil {
			_ = l.Close()
			return address
		}
	}
	t.Fatal("find a free port: a hundred are taken")
	return ""
}

// openDir returns a new directory that every user can read.
func openDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "e2e-")
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	must(t, err)
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// awaitListener waits until somebody listens on the address of p.
func (p *process) awaitListener(t *testing.T, address string) {
	t.Helper()
	await(t, "a listener on "+address, func() bool {
		if !p.running() {
			t.Fatalf("%s ended before it listened", p.cmd.Args)
		}
		c, err := net.Dial("tcp", address)
		if err != nil {
			return false
		}
		_ = c.Close()
		return true
	})
}
