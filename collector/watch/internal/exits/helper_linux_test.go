package exits

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/prefork-exporter/prefork_exporter/collector/internal/procfs"
)

// What the test binary does instead of testing, and where it finds a master that was
// started before it.
const (
	helper    = "EXITS_HELPER"
	inherited = "EXITS_INSIDE"

	noPause = "GORACE=atexit_sleep_ms=0" // else each of them would end a second late
)

func TestMain(m *testing.M) {
	switch os.Getenv(helper) {
	case "master":
		serve(os.NewFile(3, "requests"), os.NewFile(4, "answers"))
		os.Exit(0)
	case "leaderless":
		leaderless()
	case "hiding":
		hiding()
	}
	goleak.VerifyTestMain(m)
}

// request is what a master is asked to do, and answer what has come of it.
type request struct {
	Script string // for a new child, which the shell runs; or
	Go     bool   // end the input of all children; or
	Reap   int    // wait for this child

	AtOnce  bool   // wait for the new child at once
	UID     uint32 // of the new child
	Program string // of the new child, of ours: leaderless or hiding
}

type answer struct {
	PID    int
	Status uint32
	Err    string
}

// master is a process that has children, which are no children of the test.
type master struct {
	t   *testing.T
	in  *json.Encoder
	out *json.Decoder
}

// newMaster starts one, or takes that which was started for this process.
func newMaster(t *testing.T) *master {
	t.Helper()
	if os.Getenv(inherited) == "with a master" {
		return &master{t, json.NewEncoder(os.NewFile(3, "requests")), json.NewDecoder(os.NewFile(4, "answers"))}
	}
	requests, answers := startMaster(t)
	return &master{t, json.NewEncoder(requests), json.NewDecoder(answers)}
}

func startMaster(t *testing.T) (requests, answers *os.File) {
	t.Helper()
	theirIn, requests := pipe(t)
	answers, theirOut := pipe(t)
	cmd := exec.Command("/proc/self/exe")
	cmd.Dir = t.TempDir() // of core files
	cmd.Env = append(os.Environ(), helper+"=master", inherited+"=", noPause)
	cmd.ExtraFiles = []*os.File{theirIn, theirOut}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_, _ = theirIn.Close(), theirOut.Close()
	t.Cleanup(func() {
		_, _ = requests.Close(), answers.Close()
		_ = cmd.Wait()
	})
	return requests, answers
}

func pipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	return r, w
}

func (m *master) ask(r request) answer {
	m.t.Helper()
	var a answer
	if err := errors.Join(m.in.Encode(r), m.out.Decode(&a)); err != nil {
		m.t.Fatal(err)
	}
	if a.Err != "" {
		m.t.Fatalf("the master: %s", a.Err)
	}
	return a
}

// start starts a child, by default one that waits until its input ends and exits with 0.
func (m *master) start(r request) Process {
	m.t.Helper()
	a := m.ask(r)
	s, err := procfs.New("/proc").Stat(a.PID)
	if err != nil && !r.AtOnce {
		m.t.Fatal(err)
	}
	return Process{a.PID, s.Start}
}

func (m *master) script(s string) Process { return m.start(request{Script: "read x; " + s}) }

// release ends the input of all children.
func (m *master) release() { m.t.Helper(); m.ask(request{Go: true}) }

func (m *master) reap(p Process) unix.WaitStatus {
	m.t.Helper()
	return unix.WaitStatus(m.ask(request{Reap: p.PID}).Status)
}

// serve is the master. It ends with its input.
func serve(in io.Reader, out io.Writer) {
	requests, answers := json.NewDecoder(in), json.NewEncoder(out)
	gate, release, _ := os.Pipe()
	waited := sync.Map{} // of children to channels of statuses
	for {
		var r request
		if requests.Decode(&r) != nil {
			return
		}
		var a answer
		switch {
		case r.Go:
			_, _ = release.Close(), gate.Close()
			gate, release, _ = os.Pipe()
		case r.Reap != 0:
			if status, ok := waited.Load(r.Reap); ok {
				a.Status = <-status.(chan uint32)
			} else {
				a.Status = waitFor(r.Reap)
			}
		default:
			a = fork(r, gate)
			if r.AtOnce {
				status := make(chan uint32, 1)
				waited.Store(a.PID, status)
				go func() { status <- waitFor(a.PID) }()
			}
		}
		_ = answers.Encode(a)
	}
}

func fork(r request, stdin *os.File) answer {
	attr := &syscall.ProcAttr{Env: os.Environ(), Files: []uintptr{stdin.Fd(), 2, 2}}
	if r.UID != 0 {
		attr.Sys = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: r.UID, Gid: r.UID}}
	}
	program, argv := "/bin/sh", []string{"sh", "-c", "ulimit -c unlimited; " + r.Script}
	if r.Program != "" {
		program, argv = "/proc/self/exe", []string{r.Program}
		attr.Env = []string{helper + "=" + r.Program, noPause}
	}
	pid, err := syscall.ForkExec(program, argv, attr)
	if err != nil {
		return answer{Err: err.Error()}
	}
	return answer{PID: pid}
}

func waitFor(pid int) uint32 {
	var status syscall.WaitStatus
	for {
		if _, err := syscall.Wait4(pid, &status, 0, nil); err != syscall.EINTR {
			return uint32(status)
		}
	}
}

// leaderless is a process whose first thread ends with 3, and that ends with 7 when its
// input does.
func leaderless() {
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(7)
	}()
	runtime.LockOSThread()
	if unix.Gettid() == unix.Getpid() {
		_, _, _ = unix.Syscall(unix.SYS_EXIT, 3, 0, 0)
	}
	go leaderless() // this goroutine keeps its thread, so that another comes to run on the first
	select {}
}

// hiding is a process that may be traced until its input ends, and not when it ends itself.
func hiding() {
	_, _ = io.Copy(io.Discard, os.Stdin)
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		os.Exit(0)
	}
	os.Exit(7)
}

// inside runs the test that calls it once more, in other circumstances, and returns false
// there. A master that is started before has none of them.
func inside(t *testing.T, attr *syscall.SysProcAttr, withMaster bool) (outside bool) {
	t.Helper()
	if os.Getenv(inherited) != "" {
		return false
	}
	if attr != nil && os.Getuid() != 0 {
		t.Skip("needs root, to be in another namespace or of another user")
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=60s")
	cmd.Env = append(os.Environ(), inherited+"=alone", noPause)
	cmd.SysProcAttr = attr
	if withMaster {
		requests, answers := startMaster(t)
		cmd.Env = append(os.Environ(), inherited+"=with a master", noPause)
		cmd.ExtraFiles = []*os.File{requests, answers}
	}
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Fatal(err)
	}
	return true
}

var nobody = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}

// mountProc mounts the proc of our PID namespace, which nobody else sees.
func mountProc(t *testing.T) {
	t.Helper()
	err := errors.Join(unix.Mount("none", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""), unix.Mount("proc", "/proc", "proc", 0, ""))
	if err != nil {
		t.Fatal(err)
	}
}

func logTo(t *testing.T) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func open(t *testing.T, without ways) *Watcher {
	t.Helper()
	w, err := Open(Options{Logger: logTo(t), Poll: 5 * time.Millisecond, without: without})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	switch only := (infos | connectors | zombies) &^ without; {
	case only == infos && w.ways&infos == 0:
		t.Skip("needs Linux 6.15")
	case only == connectors && w.events == nil:
		t.Skip("needs the proc connector: the first namespaces, and Linux 6.6 or CAP_NET_ADMIN")
	}
	return w
}

func add(t *testing.T, w *Watcher, p Process) {
	t.Helper()
	if err := w.Add(p); err != nil {
		t.Fatal(err)
	}
}

// next waits for one death.
func next(t *testing.T, w *Watcher) Death {
	t.Helper()
	select {
	case d, open := <-w.Deaths():
		if !open {
			t.Fatal("the watcher was closed")
		}
		return d
	case <-time.After(30 * time.Second):
		t.Fatal("no death was told")
	}
	panic("unreachable")
}

// await waits until it is so.
func await(t *testing.T, what string, so func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !so(); {
		if time.Now().After(deadline) {
			t.Fatalf("waited for %s in vain", what)
		}
		runtime.Gosched()
	}
}

func awaitZombie(t *testing.T, p Process) {
	t.Helper()
	await(t, "process "+strconv.Itoa(p.PID)+" to end", func() bool {
		s, err := procfs.New("/proc").Stat(p.PID)
		return err == nil && s.Gone()
	})
}

// text tells a status.
func text(s unix.WaitStatus) string {
	if s.Signaled() {
		return fmt.Sprintf("signal %d, core %t", s.Signal(), s.CoreDump())
	}
	return fmt.Sprintf("exit %d", s.ExitStatus())
}
