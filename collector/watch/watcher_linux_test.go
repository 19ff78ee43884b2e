package watch

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// forker is a master that does what it is told.
type forker struct {
	*server
	in  io.Writer
	out *bufio.Scanner
}

func startForker(t *testing.T, env ...string) *forker {
	t.Helper()
	needPeer(t, "/usr/bin/python3", "python3")
	f := &forker{}
	f.server = startServerWith(t, func(c *exec.Cmd) {
		in, err := c.StdinPipe()
		c.Stdout = nil
		out, outErr := c.StdoutPipe()
		if err := errors.Join(err, outErr); err != nil {
			t.Fatal(err)
		}
		f.in, f.out = in, bufio.NewScanner(out)
	}, env, "/usr/bin/python3", "-u", "$TESTDATA/forker.py")
	return f
}

// does has the master do something, and waits until it has.
func (f *forker) does(command string, args ...any) {
	f.t.Helper()
	if _, err := fmt.Fprintf(f.in, command+"\n", args...); err != nil {
		f.t.Fatal(err)
	}
	if !f.out.Scan() {
		f.t.Fatalf("%s: the master has ended: %v", command, f.out.Err())
	}
}

func (s *server) killAll(sig unix.Signal) {
	s.t.Helper()
	for _, w := range s.now().Workers {
		if err := unix.Kill(w.PID, sig); err != nil {
			s.t.Error(err)
		}
	}
}

// sum returns how many deaths were counted.
func (s State) sum() (n float64) {
	for _, e := range s.Exits {
		n += e.Count
	}
	return n
}

func TestAMasterThatIsKilledAndStartedAgain(t *testing.T) {
	first := startForker(t)
	first.does("start 2")
	var pid atomic.Int64
	pid.Store(int64(first.cmd.Process.Pid))
	first.watched(Options{Master: theProcess{func() (int, error) { return int(pid.Load()), nil }}})
	first.awaitWorkers(2)
	first.signal(unix.SIGKILL)
	await(t, "its end", func() bool { return first.now().Master == 0 })
	if state := first.now(); state.Features[0].Name != "master" || state.Features[0].Reason == "" || state.Target >= 0 {
		t.Errorf("%+v, want a reason why there is none, and no target", state)
	}
	left := first.now().Workers
	if len(left) != 2 || left[0].State != "stopping" {
		t.Errorf("%+v, want two workers that are left", left)
	}
	second := startForker(t)
	second.does("start 3")
	const slots = "2 3 4" // since 0 and 1 were not free
	pid.Store(int64(second.cmd.Process.Pid))
	await(t, "the new workers", func() bool { return len(first.now().Workers) == 5 && first.now().Target == 3 })
	for _, w := range first.now().Workers {
		if (w.State == "stopping") != slices.ContainsFunc(left, func(o Worker) bool { return o.PID == w.PID }) {
			t.Errorf("%+v, want those that are left to be stopping, and no others", w)
		}
	}
	for _, w := range left {
		if err := unix.Kill(w.PID, unix.SIGKILL); err != nil {
			t.Error(err)
		}
	}
	if got := first.awaitDeaths(2); got != "2 shutdown 0" {
		t.Error(got)
	}
	state := first.now()
	if state.Master != second.cmd.Process.Pid || state.Masters["signal"] != 1 || len(state.Masters) != 1 {
		t.Errorf("master %d, restarts %v; want %d and one by a signal", state.Master, state.Masters, second.cmd.Process.Pid)
	}
	if got := slotsOf(state); got != slots || state.Target != 3 {
		t.Errorf("slots %s of %d, want %s", got, state.Target, slots)
	}
}

func slotsOf(s State) string {
	var all []string
	for _, w := range s.Workers {
		all = append(all, w.Slot)
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

func TestAMasterThatBecomesAnotherProgramHasTheSameWorkers(t *testing.T) {
	f := startForker(t)
	f.does("start 3")
	f.watched(Options{})
	before := f.awaitWorkers(3)
	f.does("exec")
	f.does("start 1")
	after := f.awaitWorkers(4)
	for _, w := range before {
		if !slices.ContainsFunc(after, func(o Worker) bool { return o.PID == w.PID && o.Slot == w.Slot }) {
			t.Errorf("worker %+v is not there any more", w)
		}
	}
	if state := f.now(); state.sum() != 0 || len(state.Masters) != 0 {
		t.Errorf("%v deaths, %v restarts; want none", state.sum(), state.Masters)
	}
}

func TestWhatAMasterRunsIsNoWorker(t *testing.T) {
	f := startForker(t)
	f.does("start 2")
	f.does("run")
	f.watched(Options{})
	f.awaitWorkers(2)
	f.does("run")
	f.does("start 1")
	f.awaitWorkers(3)
}

func TestAWorkerThatIsStoppedDoesNotRespond(t *testing.T) {
	f := startForker(t)
	f.does("start 2")
	f.watched(Options{})
	f.awaitWorkers(2)
	f.killWorker("0", unix.SIGSTOP)
	await(t, "it to be missed", func() bool { return f.now().Workers[0].State == "unresponsive" })
	if other := f.now().Workers[1].State; other != "running" {
		t.Errorf("the other one is %s", other)
	}
	f.killWorker("0", unix.SIGCONT)
	await(t, "it to be there again", func() bool { return f.now().Workers[0].State == "running" })
}

// A master that does not wait for its workers leaves zombies.
func TestAWorkerThatIsNotWaitedForIsNoWorker(t *testing.T) {
	f := startForker(t, "LAZY=1")
	f.does("start 2")
	f.watched(Options{})
	f.awaitWorkers(2)
	f.killWorker("1", unix.SIGKILL)
	await(t, "one worker", func() bool { return len(f.now().Workers) == 1 })
	if got := f.awaitDeaths(1); got != "1 signal KILL" {
		t.Error(got)
	}
}

func TestFiveHundredWorkers(t *testing.T) {
	f := startForker(t)
	f.does("start 500")
	f.watched(Options{})
	f.awaitWorkers(500)
	if slots := f.now().Workers; slots[499].PID == slots[0].PID || len(slots) != 500 {
		t.Fatal("not all of them")
	}
	f.killAll(unix.SIGSEGV)
	await(t, "all deaths", func() bool { return f.now().sum() == 500 })
	if got := f.now().Exits; len(got) != 1 || got[0].Signal != "SEGV" {
		t.Errorf("%+v", got)
	}
}

// Nobody may be counted twice, and nobody missed who lived longer than a poll.
func TestManyWorkersThatLiveShortly(t *testing.T) {
	births := 100
	if os.Getenv("PREFORK_ATTACK") != "" {
		births = 2000
	}
	f := startForker(t)
	f.does("start 1")
	f.watched(Options{})
	f.awaitWorkers(1)
	files := openFiles(t)
	f.does("churn %d 20", births)
	if n := f.now().sum(); n > float64(births) {
		t.Errorf("%v deaths of %d workers", n, births)
	}
	last, since := f.now().sum(), time.Now()
	await(t, "the deaths to be told", func() bool {
		if n := f.now().sum(); n != last {
			last, since = n, time.Now()
		}
		return time.Since(since) > time.Second
	})
	before := f.now().sum()
	f.does("churn %d 300", births/10)
	await(t, "the deaths", func() bool { return f.now().sum() >= before+float64(births/10) })
	state := f.now()
	if n := state.sum() - before; n != float64(births/10) {
		t.Errorf("%v deaths of %d workers", n, births/10)
	}
	for _, e := range state.Exits {
		if e.Code != "7" {
			t.Errorf("%+v, want code 7 only", e)
		}
	}
	if len(state.Workers) != 1 || len(state.Used) > 2 {
		t.Errorf("%d workers, %d slots; want one, and no more slots than that and another", len(state.Workers), len(state.Used))
	}
	await(t, "as many files as before", func() bool { return openFiles(t) <= files })
}

func openFiles(t *testing.T) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

func TestAttackTenThousandBirths(t *testing.T) {
	rounds := 2 // of five hundred
	if os.Getenv("PREFORK_ATTACK") != "" {
		rounds = 20
	}
	f := startForker(t)
	f.does("start 1")
	f.watched(Options{})
	f.awaitWorkers(1)
	var files int
	var memory uint64
	for round := range rounds {
		f.does("start 500")
		await(t, "501 workers", func() bool { return len(f.now().Workers) == 501 })
		keep := f.now().Workers[0].PID
		for _, w := range f.now().Workers {
			if w.PID != keep {
				_ = unix.Kill(w.PID, unix.SIGKILL)
			}
		}
		await(t, "their ends", func() bool { return f.now().sum() == float64(500*(round+1)) && len(f.now().Workers) == 1 })
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		if round == 0 {
			files, memory = openFiles(t), m.HeapAlloc
			continue
		}
		if n := openFiles(t); n > files {
			t.Errorf("%d files after %d births, %d after 500", n, 500*(round+1), files)
		}
		if m.HeapAlloc > 2*memory {
			t.Errorf("%d bytes after %d births, %d after 500", m.HeapAlloc, 500*(round+1), memory)
		}
	}
	if state := f.now(); len(state.Used) > 501 || len(state.Deaths) > keptDeaths {
		t.Errorf("%d slots, %d deaths", len(state.Used), len(state.Deaths))
	}
}

func TestWhatIsNoProcFileSystem(t *testing.T) {
	self := strconv.Itoa(os.Getpid())
	for name, files := range map[string]map[string]string{
		"nothing":                     {},
		"a state that is none":        {self + "/stat": "garbage"},
		"no command line":             {self + "/stat": statLine(os.Getpid(), 1)},
		"children that are none":      {self + "/stat": statLine(os.Getpid(), 1), self + "/cmdline": "puma", self + "/task/" + self + "/children": "x y"},
		"children that are not there": {self + "/stat": statLine(os.Getpid(), 1), self + "/cmdline": "puma", self + "/task/" + self + "/children": "99999999"},
		"its own child":               {self + "/stat": statLine(os.Getpid(), os.Getpid()), self + "/cmdline": "puma", self + "/task/" + self + "/children": self},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for file, text := range files {
				file = filepath.Join(dir, file)
				if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(text), 0o644)); err != nil {
					t.Fatal(err)
				}
			}
			s := &server{t: t}
			s.watched(Options{Proc: dir, Master: theProcess{func() (int, error) { return os.Getpid(), nil }}})
			await(t, "a first look", func() bool { _, ok := s.State(); return ok })
			if state := s.now(); len(state.Workers) != 0 || state.sum() != 0 {
				t.Errorf("%+v, want no workers", state)
			}
		})
	}
}

func statLine(pid, parent int) string {
	return fmt.Sprintf("%d (puma) S %d 1 1 0 -1 64 100 0 0 0 250 50 30 10 20 0 3 0 4242 1000000 500 0\n", pid, parent)
}
