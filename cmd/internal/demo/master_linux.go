package demo

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Master is a master as our child. It leads a process group of its own, so that what a
// terminal sends to ours, Ctrl-C for one, does not reach it beside our own signal. When
// this process is killed it gets a TERM. All methods are safe for concurrent use.
type Master struct {
	cmd   *exec.Cmd
	log   string
	ended chan struct{}
}

// Start starts a master whose output, and that of its workers, goes to a file.
func Start(args, env []string, log string) (*Master, error) {
	file, err := os.OpenFile(log, os.O_CREATE|os.O_EXCL|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("make the master's log: %w", err)
	}
	m := &Master{log: log, ended: make(chan struct{}), cmd: &exec.Cmd{
		Path: args[0], Args: args, Env: env, Stdout: file, Stderr: file,
		SysProcAttr: &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM},
	}}
	started := make(chan error)
	go m.run(started)
	if err := errors.Join(<-started, file.Close()); err != nil {
		return nil, fmt.Errorf("start the master: %w", err)
	}
	return m, nil
}

// run runs the master until it ends. For the kernel its parent is the thread that started
// it, so that thread has to last as long.
func (m *Master) run(started chan<- error) {
	runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
	err := m.cmd.Start()
	started <- err
	if err == nil {
		_ = m.cmd.Wait() // Status tells
		close(m.ended)
	}
}

// PID returns the id of its process.
func (m *Master) PID() int { return m.cmd.Process.Pid }

// Ended is closed when the master has ended.
func (m *Master) Ended() <-chan struct{} { return m.ended }

// Signal sends a signal to the master, unless that has ended.
func (m *Master) Signal(s os.Signal) { _ = m.cmd.Process.Signal(s) }

// ErrHurried is returned when somebody did not want to wait.
var ErrHurried = errors.New("stop the master: another signal came, and it was killed")

// Stop ends the master, if it has not ended: by a TERM, and by a KILL, which its workers
// get as well then, when that takes too long, or too long for somebody in a hurry.
func (m *Master) Stop(within time.Duration, hurry <-chan os.Signal) error {
	m.Signal(syscall.SIGTERM)
	timer := time.NewTimer(within)
	defer timer.Stop()
	var err error
	select {
	case <-m.ended:
		return nil
	case <-timer.C:
		err = fmt.Errorf("stop the master: it did not end within %v, and was killed", within)
	case <-hurry:
		err = ErrHurried
	}
	m.Signal(syscall.SIGKILL)
	<-m.ended
	return err
}

// Status returns how the master has ended, as a shell has it: its exit code, or 128 and
// the number of the signal that ended it.
func (m *Master) Status() int {
	<-m.ended
	status := m.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if status.Signaled() {
		return 128 + int(status.Signal())
	}
	return status.ExitStatus()
}

// KillWorker kills a process if it is a child of the master: a process id that was read a
// moment ago may be somebody else's by now.
func (m *Master) KillWorker(pid int) {
	p, err := os.FindProcess(pid) // holds on to the process, where the kernel can
	if err != nil {
		return
	}
	defer func() { _ = p.Release() }()
	if parent(pid) == m.PID() {
		_ = p.Kill()
	}
}

// parent returns the id of a process's parent, or zero.
func parent(pid int) int {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0
	}
	// pid (name) state parent: a name may have blanks and brackets.
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	if len(fields) < 2 {
		return 0
	}
	parent, _ := strconv.Atoi(fields[1])
	return parent
}

// LastWords returns the last lines of the log.
func (m *Master) LastWords() string {
	f, err := os.Open(m.log)
	if err != nil {
		return ""
	}
	defer func() { _ = f.Close() }()
	const most = 2000
	size, _ := f.Seek(0, io.SeekEnd)
	from, _ := f.Seek(max(0, size-most), io.SeekStart)
	text, _ := io.ReadAll(f)
	if from > 0 {
		_, rest, _ := strings.Cut(string(text), "\n") // the first line is a part of one
		return rest
	}
	return string(text)
}
