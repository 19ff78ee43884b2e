package app

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/prefork-exporter/prefork_exporter/cmd/internal/supervisor"
	"github.com/prefork-exporter/prefork_exporter/collector/watch"
)

// supervision is what our supervisor tells its sidecar. It is safe for concurrent use.
type supervision struct {
	state atomic.Pointer[watch.State]
	over  chan struct{} // closed when the supervisor has ended; nil: there is none

	once sync.Once
	told chan struct{} // closed when all has been scraped of a server that has ended
}

// scraped notes that a scrape was answered.
func (s *supervision) scraped() {
	if state := s.state.Load(); state != nil && state.Over {
		s.once.Do(func() { close(s.told) })
	}
}

// noting is h, and notes when it has answered.
func (s *supervision) noting(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.ServeHTTP(w, r)
		s.scraped()
	})
}

// State implements [watch.Source].
func (s *supervision) State() (watch.State, bool) {
	if state := s.state.Load(); state != nil {
		return *state, true
	}
	return watch.State{}, false
}

// server returns the process id of the server that our parent keeps; 0: none runs, or
// nobody knows.
func (s *supervision) server() int {
	state, _ := s.State()
	return state.Master
}

// hearSupervisor listens to the supervisor, if there is one, and waits a moment for what
// it says first: a scrape without that would lack what others had.
func (a *App) hearSupervisor(ctx context.Context) (func(context.Context) error, error) {
	if a.o.Supervisor == nil {
		return func(context.Context) error { return nil }, nil
	}
	a.supervision.over = make(chan struct{})
	socket, err := supervisor.OpenReports(a.o.Supervisor)
	if err != nil {
		return nil, err
	}
	known := make(chan struct{})
	parent := os.Getppid()
	go func() {
		defer close(a.supervision.over)
		var once sync.Once
		err := socket.Hear(func(r supervisor.Report) {
			state := stateOf(r, parent)
			a.supervision.state.Store(&state)
			once.Do(func() { close(known) })
		}, func(err error) { a.log.Error("The supervisor is not understood", "err", err) })
		if !errors.Is(err, io.EOF) {
			a.log.Error("The supervisor is not heard any more", "err", err)
		}
	}()
	const moment = 2 * time.Second
	select {
	case <-known:
	case <-a.supervision.over:
	case <-ctx.Done():
	case <-time.After(moment):
	}
	return func(context.Context) error {
		err := socket.Close()
		<-a.supervision.over
		return err
	}, nil
}

// stateOf translates the report of our parent, which is that process: the master itself, or
// who has started the master.
func stateOf(r supervisor.Report, parent int) watch.State {
	s := watch.State{
		Master: r.Server, Stopping: r.Stopping, Over: r.Over, Target: r.Target, Backoff: r.Backoff, Loop: r.Loop, StartTime: r.Started,
		Signals: map[string]float64{}, Masters: map[string]float64{}, Used: map[string]watch.Used{},
	}
	for _, one := range r.Signals {
		s.Signals[signalName(one.Signal)] = float64(one.Count)
	}
	for _, one := range r.Used {
		s.Used[strconv.Itoa(one.Slot)] = watch.Used{User: one.User.Seconds(), System: one.System.Seconds()}
	}
	for _, one := range r.Masters {
		s.Masters[string(one.Reason)] = float64(one.Count)
	}
	if r.Target >= 0 {
		s.Master = parent
		s.Reloads = map[string]float64{"success": float64(r.Reloads.Succeeded), "failure": float64(r.Reloads.Failed)}
	}
	for _, w := range r.Workers {
		s.Workers = append(s.Workers, workerOf(w))
	}
	for _, e := range r.Exits {
		code, signal := endOf(e.Code, e.Signal)
		s.Exits = append(s.Exits, watch.Exit{Code: code, Signal: signal, Count: float64(e.Count)})
	}
	for _, d := range r.Deaths {
		code, signal := endOf(d.Code, d.Signal)
		s.Deaths = append(s.Deaths, watch.Death{
			At: d.At, Slot: strconv.Itoa(d.Slot), PID: d.PID, Born: d.Born, Reason: string(d.Reason), Code: code, Signal: signal,
			ResidentBytes: float64(d.Resident),
		})
	}
	for _, t := range r.Restarts {
		s.Restarts = append(s.Restarts, watch.Restart{Slot: strconv.Itoa(t.Slot), Reason: string(t.Reason), Count: float64(t.Count)})
	}
	return s
}

func workerOf(w supervisor.WorkerReport) watch.Worker {
	one := watch.Worker{Slot: strconv.Itoa(w.Slot), PID: w.PID, Start: w.Start, State: stateName(w.State), Born: w.Born}
	if w.LifeSign != nil {
		one.LifeSign = *w.LifeSign
	}
	return one
}

// endOf returns how a worker has ended: one of both is empty.
func endOf(n, by int) (code, signal string) {
	if by != 0 {
		return "", signalName(by)
	}
	return strconv.Itoa(n), ""
}

// stateName returns the state as prefork_workers has it: one that was killed gave no answer.
func stateName(s supervisor.State) string {
	if s == supervisor.Killed {
		s = supervisor.Unresponsive
	}
	return string(s)
}

// signalName returns a signal without its SIG.
func signalName(n int) string {
	if name := unix.SignalName(syscall.Signal(n)); len(name) > 3 {
		return name[3:]
	}
	return strconv.Itoa(n)
}
