package supervisor

import (
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// handsOver puts a supervisor that knows no more than what was left to it in the place
// of the one before. Meanwhile, between shall happen.
func (s *stage) handsOver(between func()) {
	s.t.Helper()
	var left []byte
	err := s.Handover(func(e Estate) (err error) {
		if left, err = json.Marshal(e); err != nil {
			s.t.Error(err)
		}
		runtime.Goexit() // as a program ends in whose place there is another
		return nil
	})
	if !errors.Is(err, errOver) {
		s.t.Errorf("the supervisor before ended with %v", err)
	}
	between()
	var e Estate
	if err := errors.Join(json.Unmarshal(left, &e), e.check()); err != nil {
		s.t.Fatal(err)
	}
	s.Supervisor = Resume(s.o, e, func(pid int) Process { return s.fakes()[pid-100] })
	go s.run()
	synctest.Wait()
}

func nothing() {}

func TestWhoTakesOverKnowsAll(t *testing.T) {
	play(t, nil, func(s *stage) {
		s.pass(time.Minute)
		s.gets(syscall.SIGTTIN, syscall.SIGHUP)
		s.fakes()[1].exit(Status{Code: 7})
		s.pass(10 * time.Second)
		want := s.seen()
		s.handsOver(nothing)
		got := s.seen()
		want.At, want.Masters = got.At, []MasterReport{{ReasonReload, 1}}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("what is known (-before +after):\n%s", diff)
		}
		s.fakes()[3].exit(Status{Code: -1, Signal: syscall.SIGSEGV})
		s.pass(0)
		if n := s.seen().Births; n != 7 {
			t.Errorf("%d births, want one more than 6", n)
		}
	})
}

func TestAnEndIsCountedOnceWhoeverSeesIt(t *testing.T) {
	play(t, nil, func(s *stage) {
		s.pass(time.Minute)
		s.handsOver(func() {
			s.fakes()[0].exit(Status{Code: 7})
			synctest.Wait() // who was there before sees it, too
		})
		s.restarts("0 exit_code 1")
		s.shows("0 starting 102, 1 running 101")
	})
}

func TestAReloadGoesOnAfterAHandover(t *testing.T) {
	play(t, nil, func(s *stage) {
		s.pass(time.Minute)
		s.gets(syscall.SIGHUP)
		s.shows("0 running 100, 0 starting 102, 1 running 101")
		s.handsOver(nothing)
		s.shows("0 running 100, 0 starting 102, 1 running 101")
		s.pass(3 * time.Second)
		s.shows("0 running 102, 1 running 103")
		s.restarts("0 reload 1, 1 reload 1")
		if r := s.seen(); r.Reloads != (ReloadReport{Succeeded: 1}) {
			t.Errorf("reloads %+v", r.Reloads)
		}
	})
}

func TestWaitsAndDeadlinesGoOnAfterAHandover(t *testing.T) {
	play(t, nil, func(s *stage) {
		s.fakes()[0].obeys = stubborn
		s.gets(syscall.SIGTTOU, syscall.SIGTTOU, syscall.SIGTTIN)
		s.mu.Lock()
		s.births = func(*fake) error { return errors.New("no such file") }
		s.mu.Unlock()
		s.pass(9 * time.Second)
		s.handsOver(nothing)
		s.shows("0 stopping 100")
		s.pass(time.Second)
		s.shows("") // it was killed when its time was up
		backoff := s.seen().Backoff
		s.handsOver(nothing)
		if got := s.seen().Backoff; got != backoff {
			t.Errorf("the next start waits %v, and waited %v before", got, backoff)
		}
	})
}

// Nobody is killed for a silence in which nobody listened.
func TestWhoTakesOverHearsFirst(t *testing.T) {
	play(t, func(o *Options) { o.HeartbeatTimeout = 5 * time.Second }, func(s *stage) {
		s.settled(s.Hear(100, Said{Ready: true, Alive: true}))
		s.settled(s.Hear(101, Said{Ready: true, Alive: true}))
		s.handsOver(func() { time.Sleep(time.Minute) })
		s.settled(s.Hear(100, Said{Alive: true}))
		s.pass(2 * time.Second)
		s.restarts("1 timeout 1")
	})
}

func TestWhenNobodyTakesOverAllGoesOn(t *testing.T) {
	play(t, nil, func(s *stage) {
		broken := errors.New("no such program")
		if err := s.Handover(func(Estate) error { return broken }); !errors.Is(err, broken) {
			t.Errorf("error %v, want that of the exec", err)
		}
		s.fakes()[0].obeys = stubborn
		s.gets(syscall.SIGTERM)
		if err := s.Handover(func(Estate) error { return broken }); !errors.Is(err, errStopping) {
			t.Errorf("error %v, want %v", err, errStopping)
		}
	})
}

// A clock that is set between two programs must not move a deadline.
func TestTimesThatWereLeftAreOfTheClockThatCannotBeSet(t *testing.T) {
	at := time.Now().Round(0) // as it comes out of a file
	e := Estate{
		Started: at, BeatsSince: at, Failures: []time.Time{at}, Slots: []SlotEstate{{Due: at}},
		Workers: []WorkerEstate{{life: life{Born: at, Ready: at, LifeSign: at, Deadline: at, Retires: at}}},
	}
	e.rebase(time.Now())
	if text := fmt.Sprintf("%v", e); strings.Count(text, " m=") != 9 || strings.Count(text, "UTC") != 9 {
		t.Errorf("9 times of which some can be set: %s", text)
	}
	never := Estate{Slots: []SlotEstate{{}}}
	never.rebase(time.Now())
	if !never.Slots[0].Due.IsZero() {
		t.Errorf("what was never due is, at %v", never.Slots[0].Due)
	}
}

func TestWhatIsNoEstate(t *testing.T) {
	for name, e := range map[string]Estate{
		"a state that is none":   {Slots: make([]SlotEstate, 1), Workers: []WorkerEstate{{PID: 1, life: life{State: "merry"}}}},
		"a slot that is none":    {Workers: []WorkerEstate{{PID: 1, life: life{State: Running}}}},
		"a process that is none": {Slots: make([]SlotEstate, 1), Workers: []WorkerEstate{{life: life{State: Running}}}},
		"more than anybody has":  {Target: MaxWorkers + 1},
		"less than none":         {Slots: []SlotEstate{{Failures: -1}}},
	} {
		if e.check() == nil {
			t.Errorf("%s is taken over", name)
		}
	}
}
