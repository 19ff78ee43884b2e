package supervisor

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// fake is a process that does what a test says. Its methods may be called by the
// supervisor's goroutines and the test's.
type fake struct {
	birth Birth
	pid   int
	ended chan struct{} // closed when it has

	mu      sync.Mutex
	status  Status
	reaped  bool
	signals []syscall.Signal
	obeys   func(f *fake, s syscall.Signal) // nil: TERM, QUIT and INT end it with 0, ABRT and KILL by themselves
}

func newFake(pid int, b Birth) *fake { return &fake{birth: b, pid: pid, ended: make(chan struct{})} }

func (f *fake) PID() int { return f.pid }

func (f *fake) Wait() Status {
	<-f.ended
	return f.status
}

// Reap panics when it is called again: the id may be somebody else's by then.
func (f *fake) Reap() Usage {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.reaped {
		panic("reaped twice")
	}
	f.reaped = true
	return Usage{User: time.Second, System: time.Millisecond}
}

func (f *fake) Signal(s syscall.Signal) {
	f.mu.Lock()
	if f.reaped {
		panic("a signal to whoever has the id now")
	}
	f.signals = append(f.signals, s)
	obeys := f.obeys
	f.mu.Unlock()
	if obeys == nil {
		obeys = obedient
	}
	obeys(f, s)
}

func (f *fake) got() []syscall.Signal {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.signals)
}

// exit ends the process, if it has not ended.
func (f *fake) exit(s Status) {
	f.mu.Lock()
	defer f.mu.Unlock()
	select {
	case <-f.ended:
	default:
		f.status = s
		close(f.ended)
	}
}

func obedient(f *fake, s syscall.Signal) {
	switch s {
	case syscall.SIGTERM, syscall.SIGQUIT, syscall.SIGINT:
		f.exit(Status{})
	case syscall.SIGABRT, syscall.SIGKILL:
		f.exit(Status{Code: -1, Signal: s})
	}
}

// stubborn ends by nothing but KILL.
func stubborn(f *fake, s syscall.Signal) {
	if s == syscall.SIGKILL {
		f.exit(Status{Code: -1, Signal: s})
	}
}

// stage is a supervisor with fake processes, in virtual time.
type stage struct {
	*Supervisor
	t      *testing.T
	run    func() // runs the supervisor
	ctx    context.CancelFunc
	over   chan error
	births func(f *fake) error // what happens to a new process; nil: it lives

	mu   sync.Mutex
	all  []*fake
	last Report
}

// play runs a scene: two workers, unless change says otherwise.
func play(t *testing.T, change func(*Options), scene func(s *stage)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := &stage{t: t, over: make(chan error, 1)}
		o := Options{
			Workers: 2, Backoff: DefaultBackoff(), StopTimeout: 10 * time.Second, AbortTimeout: time.Second,
			ReadyAfter: time.Second, StartTimeout: 30 * time.Second, Logger: discard(),
			Launch: s.launchFake, Report: s.take,
		}
		if change != nil {
			change(&o)
		}
		s.Supervisor = New(o)
		ctx, cancel := context.WithCancel(t.Context())
		s.ctx = cancel
		s.run = func() { s.over <- s.Run(ctx) }
		go s.run()
		synctest.Wait()
		scene(s)
		cancel()
		for _, f := range s.fakes() {
			f.exit(Status{}) // whatever it obeys
		}
		if err := <-s.over; err != nil {
			t.Errorf("the supervisor ended with %v", err)
		}
	})
}

func (s *stage) launchFake(b Birth) (Process, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := newFake(100+len(s.all), b)
	s.all = append(s.all, f)
	if s.births != nil {
		if err := s.births(f); err != nil {
			return nil, err
		}
	}
	return f, nil
}

func (s *stage) take(r Report) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = r
}

func (s *stage) fakes() []*fake {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.all)
}

// pass lets time pass.
func (s *stage) pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// settled does what it is given, and waits until nothing moves.
func (s *stage) settled(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Error(err)
	}
	synctest.Wait()
}

// gets sends signals, and waits until nothing moves.
func (s *stage) gets(signals ...syscall.Signal) {
	s.t.Helper()
	for _, signal := range signals {
		s.settled(s.Obey(signal))
	}
}

// shows fails the test unless the report shows the workers, as "slot state pid, …".
func (s *stage) shows(want string) {
	s.t.Helper()
	var all []string
	for _, w := range s.seen().Workers {
		all = append(all, fmt.Sprintf("%d %s %d", w.Slot, w.State, w.PID))
	}
	if got := strings.Join(all, ", "); got != want {
		s.t.Errorf("at %v workers are: %s\nwant: %s", time.Now(), got, want)
	}
}

func (s *stage) seen() Report {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last
}

// restarts fails the test unless so many restarts are counted, as "slot reason count, …".
func (s *stage) restarts(want string) {
	s.t.Helper()
	var all []string
	for _, r := range s.seen().Restarts {
		all = append(all, fmt.Sprintf("%d %s %d", r.Slot, r.Reason, r.Count))
	}
	if got := strings.Join(all, ", "); got != want {
		s.t.Errorf("restarts are: %s\nwant: %s", got, want)
	}
}

func TestWorkersAreReadyAfterAWhileOrWhenTheySaySo(t *testing.T) {
	play(t, nil, func(s *stage) {
		s.shows("0 starting 100, 1 starting 101")
		s.pass(time.Second)
		s.shows("0 running 100, 1 running 101")
	})
	play(t, nil, func(s *stage) {
		s.settled(s.Hear(101, Said{Ready: true}))
		s.pass(29 * time.Second) // one has spoken: the other has to
		s.shows("0 starting 100, 1 running 101")
		s.pass(time.Second)
		s.restarts("0 boot_error 1")
		s.shows("0 starting 102, 1 running 101")
		s.settled(s.Hear(999, Said{Ready: true})) // a stranger
		s.shows("0 starting 102, 1 running 101")
	})
}

func TestWhyAWorkerHasEnded(t *testing.T) {
	oomKills := int64(0)
	for name, tc := range map[string]struct {
		end  func(s *stage, f *fake)
		want string
	}{
		"a signal":     {func(_ *stage, f *fake) { f.exit(Status{-1, syscall.SIGSEGV}) }, "0 signal 1"},
		"an exit code": {func(_ *stage, f *fake) { f.exit(Status{Code: 7}) }, "0 exit_code 1"},
		"nothing":      {func(_ *stage, f *fake) { f.exit(Status{}) }, "0 clean 1"},
		"what it said": {func(s *stage, f *fake) {
			s.settled(s.Hear(f.pid, Said{Stopping: true, Reason: ReasonMaxRequests}))
			f.exit(Status{})
		}, "0 max_requests 1"},
		"what it may not say": {func(s *stage, f *fake) {
			s.settled(s.Hear(f.pid, Said{Stopping: true, Reason: ReasonShutdown}))
			f.exit(Status{})
		}, "0 clean 1"},
		"a kill without want":       {func(_ *stage, f *fake) { f.exit(Status{-1, syscall.SIGKILL}) }, "0 signal 1"},
		"a kill for want of memory": {func(_ *stage, f *fake) { oomKills++; f.exit(Status{-1, syscall.SIGKILL}) }, "0 oom 1"},
		"a stop that it said":       {func(s *stage, f *fake) { s.settled(s.Hear(f.pid, Said{Stopping: true})); f.exit(Status{}) }, "0 clean 1"},
		"a stop that does not end": {func(s *stage, f *fake) {
			f.obeys = stubborn
			s.settled(s.Hear(f.pid, Said{Stopping: true, Reason: ReasonMaxMemory}))
			s.pass(10 * time.Second)
		}, "0 max_memory 1"},
	} {
		t.Run(name, func(t *testing.T) {
			play(t, func(o *Options) { o.OOMKills = func() (int64, bool) { return oomKills, true } }, func(s *stage) {
				s.pass(time.Minute)
				tc.end(s, s.fakes()[0])
				s.pass(0)
				s.restarts(tc.want)
				if f := s.fakes(); len(f) != 3 || f[2].birth.Slot != 0 {
					t.Errorf("%d processes, want one more, at once", len(f))
				}
			})
		})
	}
}

// What a worker says of its end holds for an end of its own.
func TestAReasonThatWasSaidIsNoExcuse(t *testing.T) {
	play(t, nil, func(s *stage) {
		s.pass(time.Minute)
		first, second := s.fakes()[0], s.fakes()[1]
		s.settled(s.Hear(first.pid, Said{Reason: ReasonMaxRequests})) // and does not stop
		first.exit(Status{})
		s.settled(s.Hear(second.pid, Said{Stopping: true, Reason: ReasonMaxRequests}))
		second.exit(Status{-1, syscall.SIGSEGV})
		s.pass(0)
		s.restarts("0 clean 1, 1 signal 1")
	})
}

func TestEachKillForWantOfMemoryIsPutDownToOneDeath(t *testing.T) {
	oomKills, known := int64(7), true
	play(t, func(o *Options) {
		o.Workers, o.OOMKills = 4, func() (int64, bool) { return oomKills, known }
	}, func(s *stage) {
		s.pass(time.Minute)
		oomKills += 2
		for _, f := range s.fakes()[:2] {
			f.exit(Status{-1, syscall.SIGKILL})
		}
		s.pass(0)
		known = false
		s.fakes()[2].exit(Status{-1, syscall.SIGKILL})
		s.pass(0)
		known = true
		s.fakes()[3].exit(Status{-1, syscall.SIGKILL})
		s.pass(0)
		s.restarts("0 oom 1, 1 oom 1, 2 signal 1, 3 signal 1")
	})
}

// One that says that it stops, over and over, and does not, is followed by one.
func TestWorkersThatLeaveAndStayAreNoStorm(t *testing.T) {
	play(t, func(o *Options) { o.Workers = 1 }, func(s *stage) {
		s.mu.Lock()
		s.births = func(f *fake) error {
			f.obeys = stubborn
			go func() { _ = s.Hear(f.pid, Said{Ready: true}); _ = s.Hear(f.pid, Said{Stopping: true}) }()
			return nil
		}
		s.mu.Unlock()
		s.settled(s.Hear(100, Said{Stopping: true}))
		for range 20 {
			s.pass(time.Second)
			if n := len(s.seen().Workers); n > 3 {
				t.Fatalf("%d workers at once in one slot", n)
			}
		}
	})
}

// Workers that have served and are killed together come back together.
func TestManyDeathsAfterAGoodRunAreNoLoop(t *testing.T) {
	play(t, func(o *Options) { o.Workers = 50 }, func(s *stage) {
		s.pass(time.Minute)
		for _, f := range s.fakes() {
			f.exit(Status{-1, syscall.SIGKILL})
		}
		s.pass(0)
		if r := s.seen(); r.Loop || len(r.Workers) != 50 {
			t.Errorf("loop %v, %d workers", r.Loop, len(r.Workers))
		}
	})
}

// A master that was itself stopped hears first what was said meanwhile.
func TestAMasterThatWasLateJudgesNobodyAtOnce(t *testing.T) {
	play(t, func(o *Options) { o.HeartbeatTimeout = 2 * time.Second }, func(s *stage) {
		for _, f := range s.fakes() {
			s.settled(s.Hear(f.pid, Said{Ready: true, Alive: true}))
		}
		s.settled(s.tell(func(*Supervisor) bool { time.Sleep(time.Minute); return false }))
		s.pass(time.Minute)
		s.settled(s.Hear(100, Said{Alive: true})) // which was on its way
		s.pass(1500 * time.Millisecond)
		s.restarts("1 timeout 1")
	})
}

func TestAReloadForgetsFailuresAndIsGivenUpWhenNothingStarts(t *testing.T) {
	play(t, nil, func(s *stage) {
		s.pass(time.Minute)
		s.mu.Lock()
		s.births = func(*fake) error { return errors.New("no such file") }
		s.mu.Unlock()
		s.gets(syscall.SIGHUP)
		if r := s.seen(); r.Reloads != (ReloadReport{Failed: 1}) || len(r.Workers) != 2 {
			t.Errorf("reloads %+v, %d workers", r.Reloads, len(r.Workers))
		}
		s.fakes()[0].exit(Status{Code: 1})
		s.pass(5 * time.Minute) // the wait is long by now
		s.mu.Lock()
		s.births = nil
		s.mu.Unlock()
		s.gets(syscall.SIGHUP)
		if r := s.seen(); len(r.Workers) < 2 || r.Backoff != 0 {
			t.Errorf("%d workers, and the next waits for %v: want no wait", len(r.Workers), r.Backoff)
		}
	})
}

func TestFailuresWaitLongerEachTimeAndAGoodRunForgetsThem(t *testing.T) {
	play(t, func(o *Options) { o.Workers = 1 }, func(s *stage) {
		born := []time.Time{time.Now()}
		s.mu.Lock()
		s.births = func(f *fake) error {
			born = append(born, time.Now())
			if len(born) < 8 {
				f.exit(Status{Code: 3})
			}
			return nil
		}
		s.mu.Unlock()
		s.fakes()[0].exit(Status{Code: 3})
		s.pass(time.Minute)
		for i, want := range []time.Duration{0, 100, 200, 400, 800, 1600, 3200} {
			want *= time.Millisecond
			if got := born[i+1].Sub(born[i]); got > want || got < want-want/4 {
				t.Errorf("start %d waited for %v, want up to %v", i+1, got, want)
			}
		}
		s.restarts("0 boot_error 7")
		s.fakes()[7].exit(Status{Code: 3}) // after a good run
		s.pass(0)
		if got := len(born); got != 9 {
			t.Errorf("%d starts, want one more at once", got)
		}
	})
}

func TestARestartLoopIsSeenAndOver(t *testing.T) {
	play(t, nil, func(s *stage) {
		s.mu.Lock()
		s.births = func(f *fake) error { return errors.New("no such file") }
		s.mu.Unlock()
		for _, f := range s.fakes() {
			f.exit(Status{Code: 1})
		}
		s.pass(40 * time.Second)
		if r := s.seen(); !r.Loop || r.Backoff <= 0 {
			t.Errorf("loop %v, backoff %v; want a loop that waits", r.Loop, r.Backoff)
		}
		s.mu.Lock()
		s.births = nil
		s.mu.Unlock()
		s.pass(2 * time.Minute)
		if r := s.seen(); r.Loop || r.Backoff != 0 || len(r.Workers) != 2 {
			t.Errorf("loop %v, backoff %v, %d workers; want an end of it", r.Loop, r.Backoff, len(r.Workers))
		}
	})
}

func TestAReloadReplacesOneWorkerAfterAnother(t *testing.T) {
	play(t, nil, func(s *stage) {
		s.pass(time.Minute)
		s.gets(syscall.SIGHUP)
		s.shows("0 running 100, 0 starting 102, 1 running 101")
		s.gets(syscall.SIGHUP) // in the middle of it: the new one is old again
		s.pass(time.Second)
		s.shows("0 running 102, 0 starting 103, 1 running 101")
		s.pass(2 * time.Second)
		s.shows("0 running 103, 1 running 104")
		s.restarts("0 reload 2, 1 reload 1")
		if r := s.seen(); r.Reloads != (ReloadReport{Succeeded: 1}) {
			t.Errorf("reloads %+v", r.Reloads)
		}
	})
}

func TestAReloadWhoseWorkersFailIsGivenUp(t *testing.T) {
	play(t, nil, func(s *stage) {
		s.pass(time.Minute)
		s.mu.Lock()
		s.births = func(f *fake) error { f.exit(Status{Code: 1}); return nil }
		s.mu.Unlock()
		s.gets(syscall.SIGHUP)
		s.pass(time.Minute)
		s.shows("0 running 100, 1 running 101")
		s.restarts("0 boot_error 1")
		if r := s.seen(); r.Reloads != (ReloadReport{Failed: 1}) {
			t.Errorf("reloads %+v", r.Reloads)
		}
		s.mu.Lock()
		s.births = nil
		s.mu.Unlock()
		s.gets(syscall.SIGHUP)
		s.pass(time.Minute)
		s.shows("0 running 103, 1 running 104")
	})
}

func TestScaling(t *testing.T) {
	play(t, nil, func(s *stage) {
		s.pass(time.Minute)
		s.gets(syscall.SIGTTIN)
		s.shows("0 running 100, 1 running 101, 2 starting 102")
		s.gets(syscall.SIGTTOU, syscall.SIGTTOU)
		s.shows("0 running 100")
		s.gets(syscall.SIGTTIN)
		s.shows("0 running 100, 1 starting 103")
		s.gets(syscall.SIGTTOU, syscall.SIGTTOU, syscall.SIGTTOU)
		s.shows("")
		s.restarts("")
		s.gets(syscall.SIGTTIN)
		s.shows("0 starting 104")
	})
}

func TestAWorkerThatDoesNotEndIsKilled(t *testing.T) {
	play(t, nil, func(s *stage) {
		f := s.fakes()[1]
		f.obeys = stubborn
		s.gets(syscall.SIGTTOU)
		s.shows("0 starting 100, 1 stopping 101")
		s.pass(9 * time.Second)
		s.shows("0 running 100, 1 stopping 101")
		s.pass(time.Second)
		s.shows("0 running 100")
		if got := f.got(); !slices.Equal(got, []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL}) {
			t.Errorf("it got %v", got)
		}
	})
}

func TestAWorkerThatGivesNoSignOfLifeIsAbortedAndKilled(t *testing.T) {
	play(t, func(o *Options) { o.HeartbeatTimeout = 5 * time.Second }, func(s *stage) {
		first, second := s.fakes()[0], s.fakes()[1]
		first.obeys = stubborn
		s.settled(s.Hear(second.pid, Said{Ready: true})) // which gives none, and need not yet
		s.pass(20 * time.Second)
		s.shows("0 starting 100, 1 running 101")
		for range 3 {
			s.settled(s.Hear(first.pid, Said{Ready: true, Alive: true}))
			s.pass(time.Second)
			s.settled(s.Hear(second.pid, Said{Alive: true}))
			s.pass(3 * time.Second)
		}
		s.shows("0 running 100, 1 running 101")
		s.pass(time.Second)
		s.shows("0 unresponsive 100, 1 running 101")
		s.settled(s.Hear(second.pid, Said{Alive: true}))
		s.pass(time.Second)
		s.restarts("0 timeout 1")
		if got := first.got(); !slices.Equal(got, []syscall.Signal{syscall.SIGABRT, syscall.SIGKILL}) {
			t.Errorf("it got %v", got)
		}
	})
}

func TestWorkersMakeWayForTheirAgeAndTheirMemory(t *testing.T) {
	play(t, func(o *Options) { o.MaxLifetime, o.LifetimeJitter = time.Hour, time.Minute }, func(s *stage) {
		s.pass(61*time.Minute + 10*time.Second)
		s.restarts("0 max_lifetime 1, 1 max_lifetime 1")
	})
	play(t, func(o *Options) {
		o.MaxMemory, o.Memory = 1000, func(pid int) (int64, bool) { return map[int]int64{100: 999, 101: 1000}[pid], true }
	}, func(s *stage) {
		s.pass(10 * time.Second)
		s.restarts("1 max_memory 1")
		s.shows("0 running 100, 1 running 102")
		if got := s.seen().Deaths[0].Resident; got != 1000 {
			t.Errorf("it died with %d bytes, want the 1000 that were too many", got)
		}
	})
}

func TestAWorkerThatHangsBeforeItsFirstSignOfLifeIsMissed(t *testing.T) {
	play(t, func(o *Options) { o.HeartbeatTimeout = 5 * time.Second }, func(s *stage) {
		s.settled(s.Hear(100, Said{Ready: true, Alive: true}))
		s.settled(s.Hear(101, Said{Ready: true}))
		s.pass(4 * time.Second)
		s.settled(s.Hear(100, Said{Alive: true}))
		s.pass(time.Second)
		s.restarts("1 timeout 1")
	})
}

func TestTheSupervisorGivesSignsOfLifeItself(t *testing.T) {
	beats := 0
	play(t, func(o *Options) { o.BeatEvery, o.Beat = 5*time.Second, func() { beats++ } }, func(s *stage) {
		s.pass(time.Minute)
		if beats != 13 {
			t.Errorf("%d signs of life in a minute, want one at the start and 12", beats)
		}
		s.fakes()[0].obeys = stubborn
		s.gets(syscall.SIGTERM)
		s.pass(9 * time.Second) // it goes on to give them while it stops
		if beats != 14 {
			t.Errorf("%d signs of life, want one more", beats)
		}
	})
}

func TestTheLastDeathsAreTold(t *testing.T) {
	play(t, func(o *Options) { o.Backoff = Backoff{} }, func(s *stage) {
		for n := range 2 * keptDeaths {
			s.pass(time.Second)
			s.fakes()[n+1].exit(Status{Code: n})
			s.pass(0)
		}
		deaths := s.seen().Deaths
		if len(deaths) != keptDeaths {
			t.Fatalf("%d deaths are told, want the last %d", len(deaths), keptDeaths)
		}
		last := deaths[keptDeaths-1]
		want := DeathReport{At: time.Now(), Slot: 1, PID: 200, Born: time.Now().Add(-time.Second), Reason: ReasonExitCode, Code: 2*keptDeaths - 1}
		if diff := cmp.Diff(want, last); diff != "" {
			t.Errorf("the last death (-want +got):\n%s", diff)
		}
	})
}

func TestUsageOfWorkersThatHaveEndedIsKept(t *testing.T) {
	play(t, nil, func(s *stage) {
		for n := range 3 {
			s.fakes()[2*n].exit(Status{})
			s.fakes()[2*n+1].exit(Status{})
			s.pass(time.Minute)
		}
		s.handsOver(nothing)
		each := Usage{User: 3 * time.Second, System: 3 * time.Millisecond}
		if got, want := s.seen().Used, []UsageReport{{0, each}, {1, each}}; !slices.Equal(got, want) {
			t.Errorf("used %v, want %v", got, want)
		}
	})
}

func TestWhenWorkersWereStartedIsLookedAtOnce(t *testing.T) {
	looks := map[int]int{}
	play(t, func(o *Options) {
		o.StartTicks = func(pid int) uint64 {
			looks[pid]++
			return uint64(1000 + pid)
		}
	}, func(s *stage) {
		s.pass(time.Minute)
		s.handsOver(nothing) // who comes next is told
		s.pass(time.Minute)
		for i, w := range s.seen().Workers {
			if w.PID != 100+i || w.Start != uint64(1100+i) {
				t.Errorf("worker %d of %d ticks, want %d of %d", w.PID, w.Start, 100+i, 1100+i)
			}
		}
		if want := map[int]int{100: 1, 101: 1}; !maps.Equal(looks, want) {
			t.Errorf("looked at %v, want %v", looks, want)
		}
	})
}

// A worker that says the same over and over keeps nobody busy with reports.
func TestSignsOfLifeAreToldOnceASecond(t *testing.T) {
	reports := 0
	play(t, func(o *Options) { o.Report = func(Report) { reports++ } }, func(s *stage) {
		s.pass(10 * time.Second)
		before := reports
		for range 10 {
			for range 1000 {
				s.settled(s.Hear(100, Said{Alive: true}))
			}
			s.pass(time.Second)
		}
		if n := reports - before; n < 9 || n > 11 {
			t.Errorf("%d reports in 10 s, want 10", n)
		}
	})
}

func TestStopping(t *testing.T) {
	play(t, nil, func(s *stage) {
		slow, quick := s.fakes()[0], s.fakes()[1]
		slow.obeys = func(f *fake, sig syscall.Signal) {
			if sig == syscall.SIGQUIT {
				f.exit(Status{})
			}
		}
		s.ctx() // SIGTERM
		s.pass(time.Second)
		s.shows("0 stopping 100")
		s.gets(syscall.SIGQUIT)
		s.shows("")
		s.restarts("")
		if got := slow.got(); !slices.Equal(got, []syscall.Signal{syscall.SIGTERM, syscall.SIGQUIT}) {
			t.Errorf("the slow one got %v", got)
		}
		if got := quick.got(); !slices.Equal(got, []syscall.Signal{syscall.SIGTERM}) {
			t.Errorf("the quick one got %v", got)
		}
		if err := s.Obey(syscall.SIGHUP); !errors.Is(err, errOver) {
			t.Errorf("a reload afterwards: %v", err)
		}
	})
}

// Many servers take a second TERM for haste, and operators for nothing.
func TestAStopIsSentOnce(t *testing.T) {
	play(t, nil, func(s *stage) {
		f := s.fakes()[0]
		f.obeys = stubborn
		s.gets(syscall.SIGTERM, syscall.SIGTERM, syscall.SIGQUIT, syscall.SIGQUIT)
		if got := f.got(); !slices.Equal(got, []syscall.Signal{syscall.SIGTERM, syscall.SIGQUIT}) {
			t.Errorf("it got %v", got)
		}
	})
}

func TestAStopDuringAReloadStopsAll(t *testing.T) {
	play(t, nil, func(s *stage) {
		s.pass(time.Minute)
		s.gets(syscall.SIGHUP)
		s.gets(syscall.SIGTERM)
		s.shows("")
		if n := len(s.fakes()); n != 3 {
			t.Errorf("%d processes, want 3", n)
		}
	})
}

func TestSignalsAreForwarded(t *testing.T) {
	play(t, nil, func(s *stage) {
		s.gets(syscall.SIGUSR1)
		for _, f := range s.fakes() {
			if got := f.got(); !slices.Equal(got, []syscall.Signal{syscall.SIGUSR1}) {
				t.Errorf("a worker got %v", got)
			}
		}
	})
}

func TestEveryTransitionLeadsToAStateThatIsThere(t *testing.T) {
	for from, row := range transitions {
		for o, to := range row {
			if _, ok := transitions[to]; !ok {
				t.Errorf("%s, %s: to %q, which is none", from, o, to)
			}
		}
		if _, ends := row[ended]; !ends && from != Dead {
			t.Errorf("a process that is %s cannot end", from)
		}
	}
}
