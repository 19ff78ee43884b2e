package supervisor

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// house is a keeper with fake servers, in virtual time.
type house struct {
	*keeper
	t       *testing.T
	signals chan os.Signal
	heirs   []*fake       // that go on in place of those that end, one after another
	gone    chan struct{} // closed when all has gone that a server has left
	ended   chan Status

	mu     sync.Mutex
	all    []*fake // in the order of their birth, successors among them
	broken error   // why nothing can be started
	last   Report
}

// keep runs a scene around a server that was started.
func keep(t *testing.T, restart RestartPolicy, scene func(h *house)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		h := &house{t: t, signals: make(chan os.Signal), gone: make(chan struct{}), ended: make(chan Status, 1)}
		close(h.gone)
		h.keeper = &keeper{
			launch: h.launchFake, successor: h.nextHeir, leave: h.leaveFake, restart: restart, backoff: serverBackoff(),
			stopSignal: syscall.SIGQUIT, signals: h.signals, report: h.take, logger: discard(),
		}
		server, err := h.launchFake()
		if err != nil {
			t.Fatal(err)
		}
		go func() { h.ended <- h.run(server) }()
		synctest.Wait()
		scene(h)
		h.breaks(errors.New("the scene is over"))
		for h.present().exit(Status{}); len(h.ended) == 0; h.pass(time.Minute) {
			h.sends(syscall.SIGTERM)
		}
	})
}

func (h *house) launchFake() (Process, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.broken != nil {
		return nil, h.broken
	}
	f := newFake(100+len(h.all), Birth{})
	h.all = append(h.all, f)
	return f, nil
}

// breaks says why nothing can be started from now on; nil: it can.
func (h *house) breaks(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.broken = err
}

func (h *house) nextHeir(Process) (Process, time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.heirs) == 0 {
		return nil, time.Time{}
	}
	next := h.heirs[0]
	h.heirs, h.all = h.heirs[1:], append(h.all, next)
	return next, time.Now().Add(-time.Minute)
}

func (h *house) leaveFake(old Process) <-chan struct{} {
	old.Reap()
	return h.gone
}

func (h *house) take(r Report) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.last = r
}

// told returns what was told last.
func (h *house) told() Report {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.last
}

func (h *house) servers() []*fake {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.all)
}

func (h *house) present() *fake {
	all := h.servers()
	return all[len(all)-1]
}

func (h *house) pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// sends sends a signal to the wrapper, if it still is there.
func (h *house) sends(s syscall.Signal) {
	select {
	case h.signals <- s:
	case <-time.After(time.Millisecond):
	}
	synctest.Wait()
}

// dies ends the present server.
func (h *house) dies(s Status) {
	h.present().exit(s)
	synctest.Wait()
}

// shows fails the test unless so many servers were started, and so many restarts counted.
func (h *house) shows(when string, born int, masters ...MasterReport) {
	h.t.Helper()
	if len(h.servers()) != born || !slices.Equal(h.told().Masters, masters) {
		h.t.Errorf("%s: %d servers, and restarts %+v; want %d and %+v", when, len(h.servers()), h.told().Masters, born, masters)
	}
}

// over fails the test unless all has ended with the status.
func (h *house) isOver(want Status) {
	h.t.Helper()
	synctest.Wait()
	select {
	case got := <-h.ended:
		if got != want || !h.told().Over || !h.present().reaped {
			h.t.Errorf("ended with %v, over: %v; want %v", got, h.told().Over, want)
		}
		h.ended <- got
	default:
		h.t.Error("not over")
	}
}

func TestWhenAServerIsStartedAgain(t *testing.T) {
	clean, failed, killed := Status{}, Status{Code: 3}, Status{Code: -1, Signal: syscall.SIGKILL}
	for _, tc := range []struct {
		policy RestartPolicy
		end    Status
		why    Reason // empty: it is not
	}{
		{RestartNo, clean, ""},
		{RestartNo, failed, ""},
		{RestartNo, killed, ""},
		{RestartOnFailure, clean, ""},
		{RestartOnFailure, failed, ReasonExitCode},
		{RestartOnFailure, killed, ReasonSignal},
		{RestartAlways, clean, ReasonClean},
		{RestartAlways, failed, ReasonExitCode},
		{RestartAlways, killed, ReasonSignal},
	} {
		t.Run(fmt.Sprint(tc.policy, " ", tc.end), func(t *testing.T) {
			keep(t, tc.policy, func(h *house) {
				h.dies(tc.end)
				h.pass(time.Second)
				if tc.why == "" {
					h.isOver(tc.end)
					return
				}
				h.shows("after a second", 2, MasterReport{tc.why, 1})
				if !h.told().Started.After(h.told().At.Add(-time.Second)) {
					t.Errorf("it was started at %v, told at %v", h.told().Started, h.told().At)
				}
			})
		})
	}
}

// A terminal asks the server to stop, and nobody else.
func TestAnEndThatATerminalMayHaveAskedForIsNoFailure(t *testing.T) {
	for status, born := range map[Status]int{
		{}:                                  1,
		{Code: 130}:                         1,
		{Code: 131}:                         1,
		{Code: -1, Signal: syscall.SIGINT}:  1,
		{Code: -1, Signal: syscall.SIGQUIT}: 1,
		{Code: 1}:                           2,
		{Code: 143}:                         2,
		{Code: -1, Signal: syscall.SIGKILL}: 2,
	} {
		keep(t, RestartAlways, func(h *house) {
			h.terminal = true
			h.dies(status)
			if h.pass(time.Second); len(h.servers()) != born {
				t.Errorf("after %v: %d servers, want %d", status, len(h.servers()), born)
			}
		})
	}
}

// Each wait is twice as long as the one before, less up to a quarter; five failures are a
// loop, which a good run ends.
func TestAServerThatFailsAgainAndAgainWaits(t *testing.T) {
	keep(t, RestartOnFailure, func(h *house) {
		crashes := func(wait time.Duration, loop bool) {
			t.Helper()
			born := len(h.servers())
			h.dies(Status{Code: 1})
			if b := h.told().Backoff; b > wait || b < wait*3/4 || h.told().Loop != loop {
				t.Errorf("after failure %d: a wait of %v, a loop %v; want %v and %v", born, b, h.told().Loop, wait, loop)
			}
			if h.pass(h.told().Backoff - time.Nanosecond); len(h.servers()) != born {
				t.Errorf("after failure %d it is started again too early", born)
			}
			if h.pass(time.Nanosecond); len(h.servers()) != born+1 || h.told().Backoff != 0 {
				t.Errorf("after failure %d it is not started again, or still waits for %v", born, h.told().Backoff)
			}
		}
		for _, seconds := range []int{1, 2, 4, 8} {
			crashes(time.Duration(seconds)*time.Second, false)
		}
		for range 15 { // for more than the window
			crashes(time.Minute, true)
		}
		if h.pass(h.backoff.GoodRun); h.told().Loop {
			t.Error("after a good run: a loop")
		}
		crashes(time.Second, false)
		crashes(2*time.Second, false)
	})
}

// The gauge is how long it still is.
func TestTheWaitThatIsToldFalls(t *testing.T) {
	keep(t, RestartOnFailure, func(h *house) {
		h.breaks(errors.New("text file busy"))
		h.dies(Status{Code: 1})
		h.pass(8 * time.Second) // in the wait after the third failure
		before := h.told().Backoff
		h.pass(time.Second)
		if after := h.told().Backoff; before == 0 || after > before-time.Second || after <= 0 {
			t.Errorf("a wait of %v, and %v a second before", after, before)
		}
	})
}

func TestAServerThatCannotBeStartedAgainIsWaitedFor(t *testing.T) {
	keep(t, RestartOnFailure, func(h *house) {
		h.breaks(errors.New("no such file"))
		h.dies(Status{Code: 1})
		h.pass(20 * time.Minute)
		if !h.told().Loop {
			t.Error("no loop after so long without a server")
		}
		h.breaks(nil)
		h.pass(time.Minute)
		h.shows("when it is there again", 2, MasterReport{ReasonExitCode, 1})
	})
}

func TestAServerThatWasAskedToStopIsNotStartedAgain(t *testing.T) {
	for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT} {
		forwarded := s
		if s == syscall.SIGTERM {
			forwarded = syscall.SIGQUIT
		}
		t.Run("while it runs: "+s.String(), func(t *testing.T) {
			keep(t, RestartAlways, func(h *house) {
				h.present().obeys = func(f *fake, s syscall.Signal) { f.exit(Status{Code: 7}) }
				h.sends(s)
				h.isOver(Status{Code: 7})
				if got := h.present().got(); !slices.Equal(got, []syscall.Signal{forwarded}) {
					t.Errorf("it got %v, want %v", got, forwarded)
				}
			})
		})
		t.Run("while it waits: "+s.String(), func(t *testing.T) {
			keep(t, RestartAlways, func(h *house) {
				h.dies(Status{Code: 9})
				h.sends(s)
				h.isOver(Status{Code: 9})
				h.shows("after the stop", 1)
			})
		})
	}
}

func TestAHangUpEndsTheWait(t *testing.T) {
	keep(t, RestartAlways, func(h *house) {
		for range 10 {
			h.dies(Status{Code: 9})
			h.sends(syscall.SIGUSR1)
			h.sends(syscall.SIGHUP)
		}
		h.shows("after ten", 11, MasterReport{ReasonExitCode, 10})
		if h.told().Loop || h.told().Backoff != 0 {
			t.Errorf("a loop %v, a wait of %v", h.told().Loop, h.told().Backoff)
		}
	})
}

func TestSignalsAreCountedAndHandedOn(t *testing.T) {
	keep(t, RestartNo, func(h *house) {
		all := []syscall.Signal{syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGPIPE, syscall.SIGHUP}
		for _, s := range all {
			h.sends(s)
		}
		want := []SignalReport{{int(syscall.SIGHUP), 2}, {int(syscall.SIGUSR1), 1}, {int(syscall.SIGUSR2), 1}}
		if !slices.Equal(h.told().Signals, want) {
			t.Errorf("counted: %+v, want %+v", h.told().Signals, want)
		}
		if got := h.present().got(); !slices.Equal(got, slices.DeleteFunc(all, func(s syscall.Signal) bool { return s == syscall.SIGPIPE })) {
			t.Errorf("the server got %v", got)
		}
	})
}

func TestASuccessorIsTheServer(t *testing.T) {
	keep(t, RestartNo, func(h *house) {
		h.heirs = []*fake{newFake(7, Birth{}), newFake(8, Birth{})}
		for n := range int64(2) {
			h.dies(Status{})
			h.shows("after a succession", int(n)+2, MasterReport{ReasonReload, n + 1})
			if age := h.told().At.Sub(h.told().Started); age != time.Minute {
				t.Errorf("the successor is %v old, want a minute", age)
			}
		}
		h.sends(syscall.SIGHUP)
		if got := h.present().got(); h.present().pid != 8 || !slices.Equal(got, []syscall.Signal{syscall.SIGHUP}) {
			t.Errorf("%d got %v", h.present().pid, got)
		}
		for _, old := range h.servers()[:2] {
			if !old.reaped {
				t.Errorf("%d is a zombie", old.pid)
			}
		}
		h.dies(Status{Code: 5})
		h.isOver(Status{Code: 5})
	})
}

func TestASuccessorStopsWhenItsPredecessorShould(t *testing.T) {
	keep(t, RestartAlways, func(h *house) {
		h.stopTimeout = 30 * time.Second
		next := newFake(7, Birth{})
		next.obeys = stubborn
		h.present().obeys = stubborn
		h.heirs = []*fake{next}
		h.sends(syscall.SIGTERM)
		h.pass(20 * time.Second)
		h.dies(Status{})
		h.pass(29 * time.Second)
		if got := next.got(); !slices.Equal(got, []syscall.Signal{syscall.SIGQUIT}) {
			t.Errorf("the successor got %v", got)
		}
		h.pass(time.Second)
		h.isOver(Status{Code: -1, Signal: syscall.SIGKILL})
	})
}

func TestAServerThatDoesNotStop(t *testing.T) {
	for timeout, want := range map[time.Duration]string{
		0:               "quit, quit",
		3 * time.Second: "quit, quit, killed",
	} {
		keep(t, RestartAlways, func(h *house) {
			h.stopTimeout = timeout
			h.present().obeys = stubborn
			for range 2 { // the second one gives no more time
				h.sends(syscall.SIGTERM)
				h.pass(2 * time.Second)
			}
			h.pass(time.Hour)
			var got []string
			for _, s := range h.present().got() {
				got = append(got, s.String())
			}
			if all := strings.Join(got, ", "); all != want {
				t.Errorf("within %v it gets: %s; want %s", timeout, all, want)
			}
			if timeout > 0 {
				h.isOver(Status{Code: -1, Signal: syscall.SIGKILL})
			}
		})
	}
}

func TestNothingIsStartedBesideWhatAServerHasLeft(t *testing.T) {
	keep(t, RestartAlways, func(h *house) {
		h.gone = make(chan struct{})
		h.dies(Status{})
		h.pass(time.Minute)
		h.shows("while something is left", 1)
		close(h.gone)
		synctest.Wait()
		h.shows("when it is gone", 2, MasterReport{ReasonClean, 1})
	})
	keep(t, RestartNo, func(h *house) {
		h.gone = make(chan struct{})
		h.dies(Status{Code: 4})
		h.pass(time.Minute)
		if len(h.ended) > 0 {
			t.Error("over while something is left")
		}
		h.sends(syscall.SIGTERM) // somebody is in a hurry
		h.isOver(Status{Code: 4})
	})
}

func TestTheServerThatRunsIsTold(t *testing.T) {
	keep(t, RestartOnFailure, func(h *house) {
		told := func(when string, server int, stopping bool) {
			t.Helper()
			if r := h.told(); r.Server != server || r.Stopping != stopping {
				t.Errorf("%s: server %d, stopping: %t, want %d and %t", when, r.Server, r.Stopping, server, stopping)
			}
		}
		told("at first", 100, false)
		h.heirs = []*fake{newFake(200, Birth{})}
		h.present().exit(Status{})
		h.pass(0)
		told("with a successor", 200, false)
		h.present().exit(Status{Code: 1})
		h.pass(0)
		told("while a restart waits", 0, false)
		h.pass(2 * time.Second)
		told("when it was started again", h.present().PID(), false)
		h.present().obeys = stubborn
		h.sends(syscall.SIGTERM)
		told("when it was asked to stop", h.present().PID(), true)
		h.present().exit(Status{})
		h.pass(0)
		told("at the end", 0, true)
	})
}
