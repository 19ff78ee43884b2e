package supervisor

import (
	"errors"
	"slices"
	"time"
)

// Estate is all that a supervisor knows of its workers, for the one that takes them
// over.
type Estate struct {
	Started    time.Time      `json:"started"`
	Target     int            `json:"target"`
	Generation int            `json:"generation"`
	Speaks     bool           `json:"speaks"`
	BeatsSince time.Time      `json:"beats_since,omitzero"`
	Reloading  bool           `json:"reloading"`
	OOMKills   int64          `json:"oom_kills"`
	OOMCredit  int64          `json:"oom_credit"`
	Failures   []time.Time    `json:"failures"`
	Slots      []SlotEstate   `json:"slots"`
	Workers    []WorkerEstate `json:"workers"`
	Counts
}

// SlotEstate is a place for a worker.
type SlotEstate struct {
	Current  int       `json:"current,omitempty"` // the process that has it; zero: none
	Due      time.Time `json:"due"`
	Failures int       `json:"failures,omitempty"`
}

// WorkerEstate is a worker that has not ended, as far as anybody has noticed.
type WorkerEstate struct {
	PID int `json:"pid"`
	life
	Successor int `json:"successor,omitempty"` // the process that it makes way for; zero: none
}

// errStopping says that there is nothing to hand over any more.
var errStopping = errors.New("the workers are being stopped")

// Handover has exec put a program in the place of this one that goes on with the
// estate. Meanwhile nothing happens here: what workers do is found by who comes next. It
// returns when exec has, which means that it has failed, and all goes on.
func (s *Supervisor) Handover(exec func(Estate) error) error {
	failed := make(chan error, 1)
	err := s.tell(func(s *Supervisor) bool {
		if s.stopping {
			failed <- errStopping
		} else {
			failed <- exec(s.estate())
		}
		return false
	})
	if err != nil {
		return err
	}
	select {
	case err := <-failed:
		return err
	case <-s.done:
		return errOver
	}
}

// estate returns what there is to take over.
func (s *Supervisor) estate() Estate {
	e := Estate{
		Started: s.started, Target: s.target, Generation: s.generation, Speaks: s.speaks, BeatsSince: s.beatsSince, Reloading: s.reloading,
		OOMKills: s.oomKills, OOMCredit: s.oomCredit, Failures: s.failures.times, Counts: s.counts.told(),
	}
	for _, place := range s.slots {
		e.Slots = append(e.Slots, SlotEstate{place.current.pid(), place.due, place.failures})
	}
	for _, w := range s.workers {
		e.Workers = append(e.Workers, WorkerEstate{w.pid(), w.life, w.successor.pid()})
	}
	return e
}

// pid returns the id of the worker's process; zero if there is none.
func (w *worker) pid() int {
	if w == nil {
		return 0
	}
	return w.process.PID()
}

// Resume returns a supervisor that goes on with an estate. adopt returns the process of
// an id.
func Resume(o Options, e Estate, adopt func(pid int) Process) *Supervisor {
	s := New(o)
	e.rebase(time.Now())
	s.started, s.target, s.generation, s.reloading = e.Started, e.Target, e.Generation, e.Reloading
	s.speaks, s.beatsSince = e.Speaks, e.BeatsSince
	s.oomKills, s.oomCredit, s.failures = e.OOMKills, e.OOMCredit, failureLog{e.Failures}
	s.counts = e.counts()
	s.counts.masters[ReasonReload]++
	byPID := map[int]*worker{}
	for _, one := range e.Workers {
		w := &worker{life: one.life, process: adopt(one.PID)}
		byPID[one.PID] = w
		s.workers[w.process] = w
	}
	for _, one := range e.Workers {
		byPID[one.PID].successor = byPID[one.Successor]
	}
	for _, place := range e.Slots {
		s.slots = append(s.slots, &slot{byPID[place.Current], place.Due, place.Failures})
	}
	return s
}

// rebase makes all times readings of the clock that cannot be set, as now is one.
func (e *Estate) rebase(now time.Time) {
	all := []*time.Time{&e.Started, &e.BeatsSince}
	for i := range e.Failures {
		all = append(all, &e.Failures[i])
	}
	for i := range e.Slots {
		all = append(all, &e.Slots[i].Due)
	}
	for i := range e.Workers {
		w := &e.Workers[i]
		all = append(all, &w.Born, &w.Ready, &w.LifeSign, &w.Deadline, &w.Retires)
	}
	for _, t := range all {
		if !t.IsZero() {
			*t = now.Add(t.Sub(now))
		}
	}
}

// check returns what is wrong with an estate that somebody else has written.
func (e Estate) check() error {
	for _, w := range e.Workers {
		_, known := transitions[w.State]
		if !known || w.PID <= 0 || w.Slot < 0 || w.Slot >= len(e.Slots) {
			return errors.New("a worker that cannot be")
		}
	}
	if e.Target < 0 || e.Target > MaxWorkers || slices.ContainsFunc(e.Slots, func(s SlotEstate) bool { return s.Failures < 0 }) {
		return errors.New("a number that cannot be")
	}
	return nil
}
