package supervisor

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	Shim()
	goleak.VerifyTestMain(m)
}

// start starts a shell that runs a script, as worker 3.
func start(t *testing.T, s *Spawner, c Command, script string) Process {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c.Args, c.Shim = []string{"sh", "-c", script}, program
	c.Env = append(c.Env, "PATH="+os.Getenv("PATH"), "LISTEN_FDS=9", "PREFORK_WORKER_ID=9", "KEPT=1")
	p, err := s.Launch(c, Birth{Slot: 3})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// end waits for the end of a process, lets go of it, and returns how it has ended.
func end(p Process) Status {
	defer p.Reap()
	return p.Wait()
}

func spawner(t *testing.T) *Spawner {
	t.Helper()
	s := NewSpawner()
	go s.Run()
	t.Cleanup(s.Close)
	return s
}

func TestEveryExitCodeAndSignalIsToldApart(t *testing.T) {
	s := spawner(t)
	for code := range 256 {
		if got := end(start(t, s, Command{}, fmt.Sprintf("exit %d", code))); got != (Status{Code: code}) {
			t.Errorf("exit %d: %+v", code, got)
		}
	}
	for number := syscall.Signal(1); number < 32; number++ {
		switch number {
		case syscall.SIGCHLD, syscall.SIGCONT, syscall.SIGSTOP, syscall.SIGTSTP, syscall.SIGTTIN, syscall.SIGTTOU, syscall.SIGURG, syscall.SIGWINCH:
			continue // none of them ends a process
		}
		if signal.Ignored(number) {
			continue // as under nohup: what is ignored here is ignored there
		}
		p := start(t, s, Command{}, "ulimit -c 0; kill -"+strconv.Itoa(int(number))+" $$; sleep 10")
		if got := end(p); got != (Status{Code: -1, Signal: number}) {
			t.Errorf("%v: %+v", number, got)
		}
	}
}

// pipe returns both ends of a pipe.
func pipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = r.Close(), w.Close() })
	return r, w
}

// output runs a script, and returns what it printed.
func output(t *testing.T, c Command, script string) string {
	t.Helper()
	r, w := pipe(t)
	c.Stdout = w
	status := end(start(t, spawner(t), c, script))
	_ = w.Close()
	b, err := io.ReadAll(r)
	if err != nil || status != (Status{}) {
		t.Errorf("%s: %+v, %v", script, status, err)
	}
	return string(b)
}

func TestWhatAWorkerFinds(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	const script = `echo "$KEPT $PREFORK_WORKER_ID $NOTIFY_SOCKET $WATCHDOG_USEC $LISTEN_FDS $LISTEN_FDNAMES $(($LISTEN_PID - $$))"; for fd in 3 4 5 6; do [ -e /proc/$$/fd/$fd ] && echo $fd; done; true`
	sockets := Command{Notify: "/n", Watchdog: time.Second, Files: []*os.File{f, f}, Names: []string{"http", "admin"}}
	if got, want := output(t, sockets, script), "1 3 /n 1000000 2 http:admin 0\n3\n4\n"; got != want {
		t.Errorf("with sockets: %q, want %q", got, want)
	}
	if got, want := output(t, Command{}, `echo "$LISTEN_FDS$LISTEN_PID$NOTIFY_SOCKET$WATCHDOG_USEC."; [ -e /proc/$$/fd/3 ] || echo none`), ".\nnone\n"; got != want {
		t.Errorf("without: %q, want %q", got, want)
	}
}

func TestAWorkerLeadsAGroupThatEndsWithIt(t *testing.T) {
	r, w := pipe(t)
	s := spawner(t)
	p := start(t, s, Command{Stdout: w}, `sleep 1000 & read -r _ _ _ _ group _ </proc/$$/stat; echo $group $!; trap "" TERM; exit 0`)
	pid := p.PID()
	if got := end(p); got != (Status{}) {
		t.Errorf("ended with %+v", got)
	}
	_ = w.Close() // the sleeper has it as well: reading ends when it has ended
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(b))
	if len(fields) != 2 || fields[0] != strconv.Itoa(pid) {
		t.Errorf("group and sleeper %q, want the group %d", b, pid)
	}
}

// A launch asks for the descriptors that it hands on. That must not make them blocking
// for those that have them already.
func TestALaunchLeavesTheSocketsOfOthersAlone(t *testing.T) {
	sockets, err := Listen([]string{"127.0.0.1:0", "unix:" + filepath.Join(t.TempDir(), "s")}, false)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = sockets.Close() }()
	files, names, err := sockets.For(0)
	if err != nil {
		t.Fatal(err)
	}
	nonblocking := func() (all []bool) {
		for _, f := range files {
			flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFL, 0)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, flags&unix.O_NONBLOCK != 0)
		}
		return all
	}
	for _, f := range files { // as a worker does
		if err := unix.SetNonblock(int(f.Fd()), true); err != nil {
			t.Fatal(err)
		}
	}
	end(start(t, spawner(t), Command{Files: files, Names: names}, "exit 0"))
	if got := nonblocking(); !slices.Equal(got, []bool{true, true}) {
		t.Errorf("not blocking: %v", got)
	}
}

// What a worker says last counts, though it has ended already when it is heard.
func TestTheLastWordsOfAWorkerAreHeard(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	ear, err := NewEar(path)
	if err != nil {
		t.Fatal(err)
	}
	var heard int
	done := make(chan bool)
	go func() {
		ear.Listen(func(int, Said) { heard++ })
		close(done)
	}()
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		if _, err := conn.Write([]byte("READY=1")); err != nil {
			t.Fatal(err)
		}
	}
	ear.Flush()
	if err := errors.Join(conn.Close(), os.Remove(path), ear.Close()); err != nil {
		t.Error(err)
	}
	<-done
	if heard != 20 {
		t.Errorf("heard %d of 20", heard)
	}
	ear.Flush() // nobody listens: it gives up
}

// Where the kernel has no handles of processes, or lets nobody have them.
func TestAProcessWithoutAHandleIsWaitedForToo(t *testing.T) {
	c := start(t, spawner(t), Command{}, "exit 7").(*child)
	_ = c.handle.Close()
	c.handle = nil
	if got := end(c); got != (Status{Code: 7}) {
		t.Errorf("ended with %+v", got)
	}
}

func TestAProcessThatIsNotOursHasEndedSomehow(t *testing.T) {
	if got := newChild(1, false, spawner(t)).Wait(); got != (Status{Code: -1}) {
		t.Errorf("ended with %+v", got)
	}
}

// What is said meanwhile waits in the socket, for us or for who takes that over.
func TestAnEarThatIsPausedHandsOnNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	ear, err := NewEar(path)
	if err != nil {
		t.Fatal(err)
	}
	var heard atomic.Int64
	done := make(chan bool)
	go func() {
		ear.Listen(func(int, Said) { heard.Add(1) })
		close(done)
	}()
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	ear.Pause()
	if _, err := conn.Write([]byte("READY=1")); err != nil {
		t.Fatal(err)
	}
	ear.Flush() // which gives up: nobody listens
	if n := heard.Load(); n != 0 {
		t.Errorf("heard %d in a pause", n)
	}
	ear.Resume()
	ear.Flush()
	if n := heard.Load(); n != 1 {
		t.Errorf("heard %d after it, want 1", n)
	}
	if err := errors.Join(conn.Close(), ear.Close()); err != nil {
		t.Error(err)
	}
	<-done
}

func TestWorkersEndWithTheirSpawner(t *testing.T) {
	s := NewSpawner()
	go s.Run()
	p := start(t, s, Command{}, `trap "" TERM; sleep 1000`)
	s.Close()
	if got := end(p); got != (Status{Code: -1, Signal: syscall.SIGKILL}) {
		t.Errorf("ended with %+v", got)
	}
}

func TestWhatCannotBeStarted(t *testing.T) {
	s := spawner(t)
	plain := filepath.Join(t.TempDir(), "plain")
	if err := os.WriteFile(plain, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct{ program, want string }{
		"nothing of that name": {"no-such-program", "executable file not found"},
		"nothing at that path": {"/no/such/program", "no such file or directory"},
		"a file that may not":  {plain, "permission denied"},
		"a directory":          {"/tmp", "is a directory"},
	} {
		if p, err := s.Launch(Command{Args: []string{tc.program}}, Birth{}); p != nil || err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v; want %q", name, err, tc.want)
		}
	}
}

func TestTheEarHearsWhoSpeaks(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	ear, err := NewEar(path)
	if err != nil {
		t.Fatal(err)
	}
	type word struct {
		pid  int
		said Said
	}
	heard := make(chan word, 10)
	done := make(chan bool)
	go func() {
		ear.Listen(func(pid int, said Said) { heard <- word{pid, said} })
		close(done)
	}()
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	for words, want := range map[string]Said{
		"READY=1":                {Ready: true},
		"READY=1\nSTATUS=fine\n": {Ready: true},
		"WATCHDOG=1":             {Alive: true},
		"STOPPING=1\nX_PREFORK_REASON=max_requests": {Stopping: true, Reason: ReasonMaxRequests},
		"READY=0\nREADY\n=\n\x00\xff":               {},
		"":                                          {},
	} {
		if _, err := conn.Write([]byte(words)); err != nil {
			t.Fatal(err)
		}
		if got := <-heard; got != (word{os.Getpid(), want}) {
			t.Errorf("%q: %+v, want %+v", words, got, want)
		}
	}
	// Files that nobody asked for, and more words than anybody says.
	before := descriptors(t)
	for range 50 {
		raw, err := conn.SyscallConn()
		if err == nil {
			err = raw.Control(func(fd uintptr) {
				err = unix.Sendmsg(int(fd), bytes.Repeat([]byte("x"), 2*maxWords), unix.UnixRights(0), nil, 0)
			})
		}
		if err != nil {
			t.Fatal(err)
		}
		<-heard
	}
	if after := descriptors(t); after > before {
		t.Errorf("%d descriptors, and %d before", after, before)
	}
	_ = conn.Close()
	if err := ear.Close(); err != nil {
		t.Error(err)
	}
	<-done
	if _, err := os.Stat(path); err == nil {
		t.Error("the path is still there")
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// The whole: real processes that speak, die and are followed.
func TestRealWorkersAreKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	ear, err := NewEar(path)
	if err != nil {
		t.Fatal(err)
	}
	s := spawner(t)
	reports := make(chan Report, 1000)
	c := Command{Notify: path}
	o := Options{
		Workers: 3, Backoff: Backoff{Max: time.Second}, // each run is a good one
		StopTimeout: 10 * time.Second, AbortTimeout: time.Second, ReadyAfter: time.Minute,
		StartTimeout: time.Minute, Logger: discard(), Report: func(r Report) { reports <- r },
		Launch: func(b Birth) (Process, error) {
			program, err := os.Executable()
			if err != nil {
				return nil, err
			}
			c := c
			c.Args = []string{program, "-test.run=TestTheWorkerOfTests"}
			c.Env = append(os.Environ(), "SUPERVISOR_TEST_WORKER=1")
			return s.Launch(c, b)
		},
	}
	v := New(o)
	go ear.Listen(func(pid int, said Said) { _ = v.Hear(pid, said) })
	over := make(chan error, 1)
	go func() { over <- v.Run(t.Context()) }()
	await := func(what string, ok func(r Report) bool) Report {
		t.Helper()
		timer := time.NewTimer(time.Minute)
		defer timer.Stop()
		for {
			select {
			case r := <-reports:
				if ok(r) {
					return r
				}
			case <-timer.C:
				t.Fatalf("waited in vain for %s", what)
			}
		}
	}
	running := func(n int) func(r Report) bool {
		return func(r Report) bool {
			return len(r.Workers) == n && !slices.ContainsFunc(r.Workers, func(w WorkerReport) bool { return w.State != Running })
		}
	}
	r := await("three that run", running(3))
	for range 20 {
		victim := r.Workers[time.Now().Nanosecond()%3].PID
		if err := syscall.Kill(victim, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		await("its death", func(r Report) bool {
			return !slices.ContainsFunc(r.Workers, func(w WorkerReport) bool { return w.PID == victim })
		})
		r = await("its successor", running(3))
	}
	if want := []ExitReport{{Code: -1, Signal: 9, Count: 20}}; !slices.Equal(r.Exits, want) || r.Births != 23 {
		t.Errorf("exits %+v after %d births, want %+v after 23", r.Exits, r.Births, want)
	}
	if err := v.Obey(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	if err := <-over; err != nil {
		t.Error(err)
	}
	_ = ear.Close()
}
