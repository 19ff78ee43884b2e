package supervisor

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
	"unsafe"

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

	groups sync.WaitGroup // that have to end

	mu   sync.Mutex
	ours map[int]bool // process ids that somebody waits for
}

// NewSpawner starts a spawner. It ends with Close, and with this program.
func NewSpawner() *Spawner {
	s := &Spawner{jobs: make(chan func()), done: make(chan struct{}), ours: map[int]bool{}}
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
	s.mu.Lock()
	for pid := range s.ours { // the runtime keeps its first thread, should that be ours
		_ = unix.Kill(pid, unix.SIGKILL)
	}
	s.mu.Unlock()
	s.groups.Wait()
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
	p, err := s.start(cmd)
	if err != nil {
		return nil, fmt.Errorf("start a worker: %w", err)
	}
	p.group = true
	return p, nil
}

// start starts a process from the spawner's thread.
func (s *Spawner) start(cmd *exec.Cmd) (*child, error) {
	started := make(chan error)
	s.jobs <- func() {
		s.mu.Lock() // it is ours before anybody can find it dead
		defer s.mu.Unlock()
		err := cmd.Start()
		if err == nil {
			s.ours[cmd.Process.Pid] = true
		}
		started <- err
	}
	if err := <-started; err != nil {
		return nil, err
	}
	return &child{cmd: cmd, spawner: s}, nil
}

// reapOthers waits for the processes that have ended and that nobody else waits for.
func (s *Spawner) reapOthers() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		pid, err := endedChild()
		if err != nil || pid == 0 || s.ours[pid] {
			return
		}
		_, _ = unix.Wait4(pid, nil, unix.WNOHANG, nil)
	}
}

// endedChild returns the id of a child that has ended and that nobody has waited for;
// zero if there is none. It leaves it so.
func endedChild() (int, error) {
	var info unix.Siginfo
	if err := unix.Waitid(unix.P_ALL, 0, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil); err != nil {
		return 0, err
	}
	const pidOffset = 16 // of si_pid, on 64 bit machines
	return int(*(*int32)(unsafe.Add(unsafe.Pointer(&info), pidOffset))), nil
}

// endGroup kills what is left of a process group that was asked to end: after a while,
// or when the spawner ends.
func (s *Spawner) endGroup(group int) {
	const while, look = 10 * time.Second, 50 * time.Millisecond
	tick := time.NewTicker(look)
	defer tick.Stop()
	for range while / look {
		select {
		case <-tick.C:
			if unix.Kill(-group, 0) != nil {
				return // there is none any more
			}
		case <-s.done:
			_ = unix.Kill(-group, unix.SIGKILL)
			return
		}
	}
	_ = unix.Kill(-group, unix.SIGKILL)
}

func (s *Spawner) forget(pid int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.ours, pid)
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
type child struct {
	cmd     *exec.Cmd
	spawner *Spawner
	group   bool // what it leaves of its process group ends with it
}

// PID implements [Process].
func (c *child) PID() int { return c.cmd.Process.Pid }

// Signal implements [Process].
func (c *child) Signal(s syscall.Signal) { _ = c.cmd.Process.Signal(s) }

// Wait implements [Process]. What a worker has left of its process group, whose id
// nobody else gets as long as one is there, has to end as well: it would hold the
// sockets.
func (c *child) Wait() Status {
	pid := c.PID()
	_ = c.cmd.Wait() // how it ended is told apart below
	c.spawner.forget(pid)
	if c.group && unix.Kill(-pid, unix.SIGTERM) == nil {
		c.spawner.groups.Go(func() { c.spawner.endGroup(pid) })
	}
	status, ok := c.cmd.ProcessState.Sys().(syscall.WaitStatus)
	switch {
	case ok && status.Signaled():
		return Status{Code: -1, Signal: status.Signal()}
	case ok:
		return Status{Code: status.ExitStatus()}
	}
	return Status{Code: -1}
}
