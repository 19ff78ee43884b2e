package supervisor

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Command is what workers run.
type Command struct {
	Args   []string // the program, found as a shell finds it, and its arguments
	Env    []string // of the worker, without what it gets from us
	Notify string   // path of the socket that it may speak to; empty: none
	// Watchdog is within which time it should give signs of life there; zero: need not.
	Watchdog time.Duration

	// Files are listening sockets that the worker inherits, and Names what they are
	// called, by sd_listen_fds(3).
	Files []*os.File
	Names []string

	// Extra are files that it inherits behind the sockets, without being told.
	Extra []*os.File

	Stdout, Stderr *os.File
	Shim           string // this program, which becomes the worker's when called as shimName
}

// Spawner launches processes from one thread, which lasts as long as it does: when
// the parent of a process is gone, and for the kernel that is a thread, the process
// is killed. It is safe for concurrent use.
type Spawner struct {
	jobs chan func()
	done chan struct{}
}

// NewSpawner starts a spawner. It ends with Close, and with this program.
func NewSpawner() *Spawner {
	s := &Spawner{jobs: make(chan func()), done: make(chan struct{})}
	go func() {
		defer close(s.done)
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		for job := range s.jobs {
			job()
		}
	}()
	return s
}

// Close ends the spawner, and kills what it has launched that still lives.
func (s *Spawner) Close() {
	close(s.jobs)
	<-s.done
}

// Launch starts a worker as the leader of a process group of its own: what a
// terminal sends to ours does not reach it twice.
func (s *Spawner) Launch(c Command, b Birth) (Process, error) {
	path, err := exec.LookPath(c.Args[0])
	if err != nil {
		return nil, fmt.Errorf("start a worker: %w", err)
	}
	cmd := &exec.Cmd{
		Path: path, Args: c.Args, Env: c.environment(b), ExtraFiles: slices.Concat(c.Files, c.Extra), Stdout: c.Stdout, Stderr: c.Stderr,
		SysProcAttr: &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL},
	}
	if len(c.Files) > 0 {
		cmd.Path, cmd.Args = c.Shim, slices.Concat([]string{shimName, path}, c.Args)
	}
	started := make(chan error)
	s.jobs <- func() { started <- cmd.Start() }
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start a worker: %w", err)
	}
	return &child{cmd}, nil
}

// environment is what a worker finds.
func (c Command) environment(b Birth) []string {
	ours := []string{"LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "PREFORK_WORKER_ID"}
	env := slices.DeleteFunc(slices.Clone(c.Env), func(pair string) bool {
		return slices.ContainsFunc(ours, func(name string) bool { return len(pair) > len(name) && pair[:len(name)+1] == name+"=" })
	})
	env = append(env, "PREFORK_WORKER_ID="+strconv.Itoa(b.Slot))
	if c.Notify != "" {
		env = append(env, "NOTIFY_SOCKET="+c.Notify)
	}
	if c.Watchdog > 0 {
		env = append(env, "WATCHDOG_USEC="+strconv.FormatInt(c.Watchdog.Microseconds(), 10))
	}
	if len(c.Files) > 0 {
		env = append(env, "LISTEN_FDS="+strconv.Itoa(len(c.Files)), "LISTEN_FDNAMES="+strings.Join(c.Names, ":"))
	}
	return env
}

// child is a process of ours.
type child struct{ cmd *exec.Cmd }

// PID implements [Process].
func (c *child) PID() int { return c.cmd.Process.Pid }

// Signal implements [Process].
func (c *child) Signal(s syscall.Signal) { _ = c.cmd.Process.Signal(s) }

// Wait implements [Process]. What the worker has left of its process group is killed
// before its id is free: it would hold the sockets.
func (c *child) Wait() Status {
	pid := c.PID()
	for {
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if err != unix.EINTR {
			break
		}
	}
	_ = unix.Kill(-pid, unix.SIGKILL)
	_ = c.cmd.Wait() // how it ended is told apart below
	status, ok := c.cmd.ProcessState.Sys().(syscall.WaitStatus)
	switch {
	case ok && status.Signaled():
		return Status{Code: -1, Signal: status.Signal()}
	case ok:
		return Status{Code: status.ExitStatus()}
	}
	return Status{Code: -1}
}
