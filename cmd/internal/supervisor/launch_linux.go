package supervisor

import (
	"cmp"
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

	"golang.org/x/sys/unix"
)

// Command is what workers run.
type Command struct {
	Path   string   // of the program, if Args do not tell
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
	jobs  chan func()
	done  chan struct{}
	freed chan struct{} // told when a process of ours was reaped

	ends sync.WaitGroup // of groups

	mu     sync.Mutex
	ours   map[int]bool      // process ids that somebody waits for
	groups map[int]time.Time // that have to end, and until when
}

// NewSpawner returns a spawner that works while its Run does.
func NewSpawner() *Spawner {
	return &Spawner{
		jobs: make(chan func()), done: make(chan struct{}), freed: make(chan struct{}, 1), ours: map[int]bool{}, groups: map[int]time.Time{},
	}
}

// Run makes the thread that calls it the parent of all that is launched, until Close.
func (s *Spawner) Run() {
	defer close(s.done)
	runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
	for job := range s.jobs {
		job()
	}
}

// do does a job on the parent's thread, and waits for it.
func (s *Spawner) do(job func() error) error {
	done := make(chan error)
	s.jobs <- func() { done <- job() }
	return <-done
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
	s.ends.Wait()
}

// Launch starts a worker as the leader of a process group of its own: what a
// terminal sends to ours does not reach it twice.
func (s *Spawner) Launch(c Command, b Birth) (Process, error) {
	path, err := exec.LookPath(cmp.Or(c.Path, c.Args[0]))
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
	err := s.do(func() error {
		s.mu.Lock() // it is ours before anybody can find it dead
		defer s.mu.Unlock()
		err := cmd.Start()
		if err == nil {
			s.ours[cmd.Process.Pid] = true
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	c := newChild(cmd.Process.Pid, false, s)
	return c, cmd.Process.Release()
}

// adopt returns a child that another program has launched in our place.
func (s *Spawner) adopt(pid int) Process {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ours[pid] = true
	return newChild(pid, true, s)
}

// reapOthers waits for the processes that have ended and that nobody else waits for.
func (s *Spawner) reapOthers() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		info, err := waitID(unix.P_ALL, 0, unix.WNOHANG)
		if pid := int(info.PID); err != nil || pid == 0 || s.ours[pid] {
			return
		}
		_, _ = unix.Wait4(int(info.PID), nil, unix.WNOHANG, nil)
	}
}

// endGroup kills what is left of a process group that was asked to end: after a while,
// or when the spawner ends. It waits for nothing; the channel is closed when the group is
// gone, or will not go.
func (s *Spawner) endGroup(group int, deadline time.Time) (gone <-chan struct{}) {
	over := make(chan struct{})
	if !groupLives(group) {
		close(over)
		return over
	}
	s.mu.Lock()
	s.groups[group] = deadline
	s.mu.Unlock()
	s.ends.Go(func() {
		defer close(over)
		s.awaitGroup(group, deadline)
		s.mu.Lock()
		delete(s.groups, group)
		s.mu.Unlock()
	})
	return over
}

func (s *Spawner) awaitGroup(group int, deadline time.Time) {
	const after, look = time.Second, 50 * time.Millisecond
	tick := time.NewTicker(look)
	defer tick.Stop()
	for time.Since(deadline) < after {
		if time.Now().After(deadline) {
			_ = unix.Kill(-group, unix.SIGKILL)
		}
		select {
		case <-tick.C:
			if !groupLives(group) {
				return
			}
		case <-s.done:
			_ = unix.Kill(-group, unix.SIGKILL)
			return
		}
	}
}

// groupDeadline is until when what an ended process leaves in its group may live on.
func groupDeadline() time.Time { return time.Now().Add(10 * time.Second) }

func groupLives(group int) bool { return unix.Kill(-group, 0) == nil }

// forget notes that a process is no more.
func (s *Spawner) forget(pid int) {
	s.mu.Lock()
	delete(s.ours, pid)
	s.mu.Unlock()
	select {
	case s.freed <- struct{}{}:
	default: // it is told already
	}
}

// environment is what a worker finds.
func (c Command) environment(b Birth) []string {
	ours := []string{"LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "PREFORK_WORKER_ID"}
	env := slices.DeleteFunc(slices.Clone(c.Env), func(pair string) bool {
		return slices.ContainsFunc(ours, func(name string) bool { return len(pair) > len(name) && pair[:len(name)+1] == name+"=" })
	})
	if b.Slot >= 0 {
		env = append(env, "PREFORK_WORKER_ID="+strconv.Itoa(b.Slot))
	}
	if c.Notify != "" {
		env = append(env, "NOTIFY_SOCKET="+c.Notify)
	}
	if c.Watchdog > 0 {
		env = append(env, "WATCHDOG_USEC="+strconv.FormatInt(c.Watchdog.Microseconds(), 10))
	}
	if len(c.Files) > 0 {
		env = append(env, c.listenVariables()...)
	}
	return env
}

// listenVariables tell of the sockets, but whose they are, which the shim knows.
func (c Command) listenVariables() []string {
	return []string{"LISTEN_FDS=" + strconv.Itoa(len(c.Files)), "LISTEN_FDNAMES=" + strings.Join(c.Names, ":")}
}
