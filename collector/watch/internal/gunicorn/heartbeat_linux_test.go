package gunicorn

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// schemes are how workers give signs of life: as this version of gunicorn does, or as
// gunicorn 22 does. Time namespaces may move the clock of the latter.
func schemes(t *testing.T) map[string]launch {
	t.Helper()
	monotonic := []string{"MONOTONIC=1"}
	all := map[string]launch{"its own": {}, "by the monotonic clock": {args: []string{"--timeout", "0"}, env: monotonic}}
	if os.Geteuid() == 0 && exists("/proc/self/ns/time") {
		need(t, "/usr/bin/unshare", "util-linux")
		for name, ahead := range map[string]string{"ahead": "1000000", "behind": "-1"} {
			all["by a monotonic clock that is "+name] = launch{
				args: []string{"--timeout", "0"}, env: monotonic,
				under: []string{"/usr/bin/unshare", "--time", "--monotonic", ahead, "--fork", "--kill-child"},
			}
		}
	}
	return all
}

// Which file is a worker's own is what the worker itself says.
func TestHeartbeatIsTheWorkersOwn(t *testing.T) {
	for name, args := range map[string][]string{
		"sync workers":                       {"--worker-class", "sync"},
		"application loaded before the fork": {"--preload"},
		"workers with threads":               {"--threads", "2"},
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t, launch{args: append(args, "--workers", "3")})
			old := s.workers(3)
			s.haveTheirOwn(old)

			must(t, syscall.Kill(old[1], syscall.SIGKILL))
			await(t, "its end", func() bool { return gone(old[1]) })
			s.haveTheirOwn(s.workers(3)) // the new one is forked while there are two others
			must(t, syscall.Kill(s.pid, syscall.SIGTTIN))
			s.haveTheirOwn(s.workers(4))
			now := s.workers(4)
			must(t, syscall.Kill(s.pid, syscall.SIGHUP))
			await(t, "new workers", func() bool {
				return !slices.ContainsFunc(now, func(pid int) bool { return !gone(pid) })
			})
			s.haveTheirOwn(s.workers(3))
		})
	}
}

func (s *server) haveTheirOwn(pids []int) {
	s.t.Helper()
	for _, pid := range pids {
		if got, want := s.heartbeat(pid).id(s.t), s.own(pid); got != want {
			s.t.Errorf("the heartbeat of %d is %v, and the worker says %v", pid, got, want)
		}
	}
}

func TestHeartbeatOfABusyWorkerAgesWithItsRequest(t *testing.T) {
	for name, how := range schemes(t) {
		t.Run(name, func(t *testing.T) {
			s := start(t, how)
			worker := s.workers(1)
			h := s.heartbeat(worker[0])
			await(t, "the first sign of life", func() bool { _, ok := h.LastSign(); return ok })

			before := clock(unix.CLOCK_REALTIME_COARSE)
			gate := s.keepBusy("gate")
			taken := time.Now()
			sign := signOf(t, h)
			if sign.Before(before.Add(-rounding)) || sign.After(taken) {
				t.Errorf("the last sign was at %v: want it between %v and %v, when the request was taken", sign, before, taken)
			}
			s.sameAsSaid(gate, sign)
			if later := signOf(t, h); later.Sub(sign).Abs() > rounding {
				t.Errorf("the last sign was at %v, and at %v before, of the same request", later, sign)
			}
			must(t, os.WriteFile(gate, nil, 0o644))
			await(t, "another sign after the request", func() bool { return signOf(t, h).After(taken) })
		})
	}
}

// rounding is what is lost on the way: Python rounds seconds, and our clocks are read one
// after the other.
const rounding = time.Millisecond

// clock reads a clock of the kernel. File systems use the coarse one.
func clock(which int32) time.Time {
	var now unix.Timespec
	_ = unix.ClockGettime(which, &now)
	return time.Unix(now.Unix())
}

// sameAsSaid compares with what the worker itself reads: seconds since the epoch, or by its
// monotonic clock, of which it does not say what it is ahead of ours.
func (s *server) sameAsSaid(gate string, sign time.Time) {
	s.t.Helper()
	b, err := os.ReadFile(gate + ".taken")
	must(s.t, err)
	var pid int
	var seconds float64
	_, err = fmt.Sscan(string(b), &pid, &seconds)
	must(s.t, err)
	offsets, err := os.ReadFile(proc.Path(s.pid, "timens_offsets"))
	if err == nil && seconds < 1e9 {
		now, monotonic := time.Now(), clock(unix.CLOCK_MONOTONIC)
		age := monotonic.Sub(time.Unix(0, 0)) + parseOffset(offsets) - time.Duration(seconds*1e9)
		seconds = float64(now.Add(-age).UnixNano()) / 1e9
	}
	if d := time.Duration((float64(sign.UnixNano())/1e9 - seconds) * 1e9); d.Abs() > rounding {
		s.t.Errorf("the last sign is %v off what worker %d says", d, pid)
	}
}

// An idle worker gives signs of life again and again.
func TestHeartbeatOfAnIdleWorkerStaysYoung(t *testing.T) {
	for name, how := range map[string]launch{
		"its own":                {args: []string{"--timeout", "2"}},
		"by the monotonic clock": {args: []string{"--timeout", "0"}, env: []string{"MONOTONIC=1"}},
		"workers with threads":   {args: []string{"--timeout", "2", "--threads", "2"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t, how)
			h := s.heartbeat(s.workers(1)[0])
			for range 2 {
				since := time.Now()
				await(t, "a new sign", func() bool { sign, ok := h.LastSign(); return ok && sign.After(since) })
				if sign := signOf(t, h); sign.After(time.Now()) {
					t.Errorf("the last sign will be at %v", sign)
				}
			}
		})
	}
}

// The sign is read after the worker's death, too.
func TestHeartbeatOfAStoppedWorkerOutlivesIt(t *testing.T) {
	for name, how := range schemes(t) {
		t.Run(name, func(t *testing.T) {
			how.args = append(how.args, "--threads", "2") // one sign a second at least
			s := start(t, how)
			worker := s.workers(1)[0]
			h := s.heartbeat(worker)
			id := h.id(t)
			await(t, "the first sign of life", func() bool { _, ok := h.LastSign(); return ok })
			must(t, syscall.Kill(worker, syscall.SIGSTOP))
			await(t, "the worker to stop", func() bool { stat, err := proc.Stat(worker); return err == nil && stat.State == 'T' })
			stopped, sign := time.Now(), signOf(t, h)
			if sign.After(stopped) {
				t.Errorf("a sign at %v, and it was stopped before %v", sign, stopped)
			}
			must(t, syscall.Kill(worker, syscall.SIGKILL))
			await(t, "its end", func() bool { _, err := os.Stat(proc.Path(worker, "")); return errors.Is(err, fs.ErrNotExist) })
			if later := signOf(t, h); later.Sub(sign).Abs() > rounding {
				t.Errorf("the last sign was at %v when it was stopped, and %v after its end", sign, later)
			}
			if id != h.id(t) {
				t.Error("another file")
			}
			if _, err := OpenHeartbeat(proc, s.pid, worker); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("OpenHeartbeat of who has ended: %v, want that it is not there", err)
			}
			must(t, h.Close())
			if sign, ok := h.LastSign(); ok {
				t.Errorf("a sign at %v after Close", sign)
			}
		})
	}
}

func TestHeartbeatOfAWorkerThatBootsIsNotKnown(t *testing.T) {
	for name, how := range schemes(t) {
		t.Run(name, func(t *testing.T) {
			gate := t.TempDir() + "/gate"
			how.env = append(how.env, "BOOT="+gate)
			s := start(t, how)
			var worker int
			await(t, "a worker", func() bool {
				children, err := proc.Children(s.pid)
				must(t, err)
				if len(children) == 1 {
					worker = children[0]
				}
				return len(children) == 1 && len(ownFiles(s)) == 1
			})
			h := s.heartbeat(worker)
			if sign, ok := h.LastSign(); ok {
				t.Errorf("a sign at %v of a worker that boots", sign)
			}
			must(t, os.WriteFile(gate, nil, 0o644))
			await(t, "the first sign of life", func() bool { _, ok := h.LastSign(); return ok })
		})
	}
}

func ownFiles(s *server) []string {
	names, _ := fs.Glob(os.DirFS(s.dir), "own.*[0-9]")
	return names
}

func TestHeartbeatOfWhoHasNone(t *testing.T) {
	s := start(t, launch{env: []string{"HELPERS=between"}})
	worker := s.workers(1)[0]
	must(t, syscall.Kill(s.pid, syscall.SIGTTIN))
	s.workers(2)
	first := s.helpers()[0]
	must(t, syscall.Kill(s.pid, syscall.SIGTTIN))
	s.workers(3)
	second := slices.DeleteFunc(s.helpers(), func(pid int) bool { return pid == first })[0]
	alone := exec.Command("/bin/sleep", "60")
	must(t, alone.Start())
	t.Cleanup(func() { _ = alone.Process.Kill(); _ = alone.Wait() })

	for name, tc := range map[string]struct {
		master, pid int
		want        error
	}{
		"forked while there was one":            {s.pid, first, ErrNoHeartbeat},
		"forked while there were two":           {s.pid, second, ErrUnsettled},
		"no child of the master":                {s.pid, alone.Process.Pid, ErrNoHeartbeat},
		"no master":                             {os.Getpid(), alone.Process.Pid, ErrNoHeartbeat},
		"a worker of another master":            {os.Getpid(), worker, ErrNoHeartbeat},
		"the master itself":                     {s.pid, s.pid, ErrUnsettled},
		"nobody":                                {s.pid, 1 << 30, fs.ErrNotExist},
		"a worker of a master who is not there": {1 << 30, worker, fs.ErrNotExist},
	} {
		t.Run(name, func(t *testing.T) {
			h, err := OpenHeartbeat(proc, tc.master, tc.pid)
			if h != nil || !errors.Is(err, tc.want) {
				t.Errorf("OpenHeartbeat = %v, %v; want an error that wraps %q", h, err, tc.want)
			}
		})
	}
	s.haveTheirOwn(s.workers(3))
}

// A process that the master forks when it has made a worker's file already has that, too.
func TestHeartbeatOfAWorkerWhoseFileAnElderHas(t *testing.T) {
	s := start(t, launch{args: []string{"--workers", "2"}, env: []string{"HELPERS=before"}})
	s.haveTheirOwn(s.workers(2))
	if h, err := OpenHeartbeat(proc, s.pid, s.helpers()[0]); !errors.Is(err, ErrUnsettled) {
		t.Errorf("OpenHeartbeat = %v, %v; want an error that wraps %q", h, err, ErrUnsettled)
	}
}

func TestHeartbeatFilesAreToldByTheirNames(t *testing.T) {
	for name, tc := range map[string]struct {
		target string
		want   bool
	}{
		"gunicorn's":       {"/tmp/wgunicorn-ab12 (deleted)", true},
		"in another place": {"/dev/shm/wgunicorn-ab12 (deleted)", true},
		"not deleted":      {"/tmp/wgunicorn-ab12", false},
		"of another name":  {"/tmp/gunicorn-ab12 (deleted)", false},
		"of a directory":   {"/tmp/wgunicorn-ab12/file (deleted)", false},
		"a socket":         {"socket:[4711]", false},
		"a file in memory": {"/memfd:wgunicorn (deleted)", false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := isHeartbeat(tc.target); got != tc.want {
				t.Errorf("isHeartbeat(%q) = %v", tc.target, got)
			}
		})
	}
}

// A descriptor may be closed, and another file have its number, before it is opened.
func TestHeartbeatIsNotAnotherFile(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(dir+"/a", nil, 0o644))
	must(t, os.WriteFile(dir+"/b", nil, 0o644))
	info, err := os.Stat(dir + "/a")
	must(t, err)
	f, err := idOf(info).open(dir + "/a")
	must(t, err)
	must(t, f.Close())
	if f, err := idOf(info).open(dir + "/b"); !errors.Is(err, ErrNoHeartbeat) {
		t.Errorf("open = %v, %v; want that this is no heartbeat", f, err)
	}
}

// The master that takes over is a child of the old one, with heartbeat files of its own workers.
func TestHeartbeatOfAMasterThatTakesOver(t *testing.T) {
	s := start(t, launch{})
	worker := s.workers(1)[0]
	must(t, syscall.Kill(s.pid, syscall.SIGUSR2))
	var next int
	await(t, "the new master's worker", func() bool {
		children, err := proc.Children(s.pid)
		must(t, err)
		for _, child := range children {
			of, err := proc.Children(child)
			if err == nil && len(of) == 1 && exists(s.file("ready", of[0])) {
				next = child
			}
		}
		return next != 0
	})
	if h, err := OpenHeartbeat(proc, s.pid, next); !errors.Is(err, ErrNoHeartbeat) {
		t.Errorf("OpenHeartbeat = %v, %v; want that the new master has none", h, err)
	}
	s.haveTheirOwn([]int{worker})
}

// helpers returns what the master has forked that are no workers.
func (s *server) helpers() (pids []int) {
	names, err := fs.Glob(os.DirFS(s.dir), "helper.*[0-9]")
	must(s.t, err)
	for _, name := range names {
		pid, err := strconv.Atoi(name[len("helper."):])
		must(s.t, err)
		pids = append(pids, pid)
	}
	return pids
}

// asObserver is the variable that has the test's program open a heartbeat and say what it
// was told: the ids of a master and a worker.
const asObserver = "GUNICORN_TEST_OBSERVE"

func observe(pids string) {
	var master, worker int
	_, err := fmt.Sscan(pids, &master, &worker)
	if err == nil {
		_, err = OpenHeartbeat(proc, master, worker)
	}
	fmt.Printf("permission: %v; %v\n", errors.Is(err, fs.ErrPermission), err)
}

func TestHeartbeatThatMayNotBeRead(t *testing.T) {
	needRoot(t)
	for name, tc := range map[string]struct {
		args []string
	}{
		"of another user's server":                         {nil},
		"of the own user's worker, who was another before": {[]string{"--user", "nobody", "--group", "nogroup"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t, launch{args: tc.args})
			worker := s.workers(1)[0]
			cmd := exec.Command("/proc/self/exe")
			cmd.Env = []string{fmt.Sprintf("%s=%d %d", asObserver, s.pid, worker), "GORACE=atexit_sleep_ms=0"}
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
			out, err := cmd.CombinedOutput()
			must(t, err)
			if want := "permission: true;"; len(out) < len(want) || string(out[:len(want)]) != want {
				t.Errorf("%s, want %s", out, want)
			}
			s.haveTheirOwn([]int{worker}) // root may
		})
	}
}
