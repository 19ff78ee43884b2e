package collector

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/prefork-exporter/prefork_exporter/collector/internal/procfs"
	"github.com/prefork-exporter/prefork_exporter/collector/watch"
)

// usage is what a process says of itself.
type usage struct {
	Voluntary, Involuntary int64
	User, System           float64
	Files, Threads         int
}

// beChild does what a test wants: obey it, or measure a process.
func beChild(task string) error {
	if pid, ok := strings.CutPrefix(task, "measure "); ok {
		return printMeasured(pid)
	}
	c := child{leave: make(chan struct{}), out: json.NewEncoder(os.Stdout)}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		verb, argument, _ := strings.Cut(lines.Text(), " ")
		n, _ := strconv.Atoi(argument)
		if err := c.obey(verb, n); err != nil {
			return fmt.Errorf("%s: %w", lines.Text(), err)
		}
		if err := c.report(); err != nil {
			return err
		}
	}
	return lines.Err()
}

// child is a process that does as it is told, and keeps what it has.
type child struct {
	out    *json.Encoder
	leave  chan struct{}
	files  []*os.File
	memory [][]byte
	conns  []net.Conn
}

func (c *child) obey(verb string, n int) error {
	switch verb {
	case "report":
	case "threads":
		c.begin(n)
	case "leave": // ends all threads
		close(c.leave)
		c.leave = make(chan struct{})
	case "open":
		for range n {
			f, err := os.Open(os.DevNull)
			if err != nil {
				return err
			}
			c.files = append(c.files, f)
		}
	case "touch": // so many MiB of its own
		return c.mapped(-1, n, unix.MAP_PRIVATE|unix.MAP_ANON)
	case "share": // so many MiB of descriptor 3
		return c.mapped(3, n, unix.MAP_SHARED)
	case "accept": // at descriptor 3
		l, err := net.FileListener(os.NewFile(3, "listener"))
		if err != nil {
			return err
		}
		one, err := l.Accept()
		c.conns = append(c.conns, one)
		return err
	default:
		return errors.New("unknown")
	}
	return nil
}

// begin starts threads, each of which sleeps some times, and then waits for the end.
func (c *child) begin(n int) {
	done, leave := make(chan struct{}), c.leave
	for i := range n {
		go func() {
			runtime.LockOSThread() // which ends with it
			for range 10 * (i + 1) {
				_ = unix.Nanosleep(&unix.Timespec{Nsec: 1000}, nil)
			}
			done <- struct{}{}
			<-leave
		}()
	}
	for range n {
		<-done
	}
}

func (c *child) mapped(fd, mebibytes, flags int) error {
	b, err := unix.Mmap(fd, 0, mebibytes<<20, unix.PROT_READ|unix.PROT_WRITE, flags)
	for i := 0; i < len(b); i += os.Getpagesize() {
		b[i] = 1
	}
	c.memory = append(c.memory, b)
	return err
}

func (c *child) report() error {
	var r unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &r); err != nil {
		return err
	}
	files, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return err
	}
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	return c.out.Encode(usage{
		Voluntary: r.Nvcsw, Involuntary: r.Nivcsw, User: float64(r.Utime.Nano()) / 1e9, System: float64(r.Stime.Nano()) / 1e9,
		Files: len(files) - 1, Threads: len(threads), // without the one that was listed
	})
}

// peer is such a process, seen by the test.
type peer struct {
	watch.Worker
	t       *testing.T
	stdin   io.Writer
	answers *json.Decoder
}

// newPeer starts a process, which has files from descriptor 3 on.
func newPeer(t *testing.T, files ...*os.File) *peer {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), asChild+"=obey")
	cmd.Stderr = os.Stderr
	cmd.ExtraFiles = files
	stdin, err := cmd.StdinPipe()
	must(t, err)
	stdout, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	p := &peer{t: t, stdin: stdin, answers: json.NewDecoder(stdout)}
	p.tell("report")
	p.Worker = workerOf(t, cmd.Process.Pid, "0")
	return p
}

// workerOf returns a process as a worker that runs.
func workerOf(t *testing.T, pid int, slot string) watch.Worker {
	t.Helper()
	s, err := procfs.New("/proc").Stat(pid)
	must(t, err)
	return watch.Worker{Slot: slot, PID: pid, Start: s.Start, State: "running", Born: time.Now()}
}

// tell has the process do something, and returns what it says of itself afterwards.
func (p *peer) tell(command string) (u usage) {
	p.t.Helper()
	_, err := io.WriteString(p.stdin, command+"\n")
	must(p.t, err)
	must(p.t, p.answers.Decode(&u))
	return u
}

// must fails the test on an error.
func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// await waits until ok.
func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	const patience = 60 * time.Second
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline.C:
			t.Fatalf("waited %s in vain for %s", patience, what)
		case <-tick.C:
		}
	}
}

// printMeasured prints what is told of a process. Where proc is mounted is in the environment.
func printMeasured(pid string) error {
	n, err := strconv.Atoi(pid)
	if err != nil {
		return err
	}
	state := watch.State{Workers: []watch.Worker{{Slot: "0", PID: n, State: "running"}}}
	c := NewWorker(WorkerOptions{Source: known(state), Proc: os.Getenv("COLLECTOR_TEST_PROC")})
	defer func() { _ = c.Close() }()
	c.shares.tick()
	var out Output
	if err := c.Update(context.Background(), &out); err != nil {
		return err
	}
	for _, m := range out.metrics {
		v, ok := m.(value)
		if !ok {
			return errors.New("a value of no catalogue")
		}
		if _, err := os.Stdout.Write(v.appendText(nil)); err != nil {
			return err
		}
	}
	return nil
}

// asNobody runs this program as a user without privileges, who measures a process.
func asNobody(t *testing.T, proc string, pid int) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("wants root, which can become another user")
	}
	cmd := exec.Command(program(t))
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=measure %d", asChild, pid), "COLLECTOR_TEST_PROC="+proc)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return string(out)
}

// program returns this program, where every user can run it.
func program(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "collector-")
	must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	must(t, os.Chmod(dir, 0o755))
	from, err := os.Open("/proc/self/exe")
	must(t, err)
	defer func() { _ = from.Close() }()
	path := filepath.Join(dir, "child")
	to, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o755)
	must(t, err)
	_, err = io.Copy(to, from)
	must(t, errors.Join(err, to.Close()))
	return path
}
