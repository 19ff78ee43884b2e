package supervisor

import (
	"cmp"
	"slices"
	"time"
)

// Report is the whole state at one moment, totals since the start included, so that
// who has missed others has missed nothing.
type Report struct {
	Version  int       `json:"version"` // of this form: 1
	At       time.Time `json:"at"`
	Started  time.Time `json:"started"` // the supervisor
	Target   int       `json:"target"`  // workers that there should be
	Stopping bool      `json:"stopping"`
	Over     bool      `json:"over"` // nothing more will happen: who is scraped once more may end
	Loop     bool      `json:"restart_loop"`
	// Backoff is how long the next restart that waits still waits; zero: none does.
	Backoff  time.Duration   `json:"backoff_ns"`
	Workers  []WorkerReport  `json:"workers"` // the living, by slot
	Births   int64           `json:"births"`
	Exits    []ExitReport    `json:"exits"`
	Restarts []RestartReport `json:"restarts"`
	Reloads  ReloadReport    `json:"reloads"`
}

// WorkerReport is one living worker.
type WorkerReport struct {
	Slot     int        `json:"slot"`
	PID      int        `json:"pid"`
	State    State      `json:"state"`
	Born     time.Time  `json:"born"`
	LifeSign *time.Time `json:"life_sign,omitempty"` // the last one, if it gives any
}

// ExitReport counts the workers that have ended so.
type ExitReport struct {
	Code   int   `json:"code"` // negative: by a signal
	Signal int   `json:"signal,omitempty"`
	Count  int64 `json:"count"`
}

// RestartReport counts the restarts of a slot for a reason.
type RestartReport struct {
	Slot   int    `json:"slot"`
	Reason Reason `json:"reason"`
	Count  int64  `json:"count"`
}

// ReloadReport counts reloads by how they came out.
type ReloadReport struct {
	Succeeded int64 `json:"succeeded"`
	Failed    int64 `json:"failed"`
}

// restart is what restarts are counted by.
type restart struct {
	slot   int
	reason Reason
}

// counts are the totals since the start.
type counts struct {
	births   int64
	exits    map[Status]int64
	restarts map[restart]int64
	reloads  ReloadReport
}

func newCounts() counts {
	return counts{exits: map[Status]int64{}, restarts: map[restart]int64{}}
}

// report tells of the state.
func (s *Supervisor) report() {
	if s.o.Report == nil {
		return
	}
	r := Report{
		Version: reportVersion, At: s.now, Started: s.started, Target: s.target, Stopping: s.stopping, Births: s.counts.births, Reloads: s.counts.reloads,
		Loop: s.failures.loops(s.o.Backoff, s.now), Backoff: s.backoff(),
	}
	for _, w := range s.workers {
		one := WorkerReport{Slot: w.Slot, PID: w.process.PID(), State: w.state, Born: w.born}
		if !w.lifeSign.IsZero() {
			one.LifeSign = new(w.lifeSign)
		}
		r.Workers = append(r.Workers, one)
	}
	for status, n := range s.counts.exits {
		r.Exits = append(r.Exits, ExitReport{status.Code, int(status.Signal), n})
	}
	for of, n := range s.counts.restarts {
		r.Restarts = append(r.Restarts, RestartReport{of.slot, of.reason, n})
	}
	slices.SortFunc(r.Workers, func(a, b WorkerReport) int { return cmp.Or(a.Slot-b.Slot, a.Born.Compare(b.Born)) })
	slices.SortFunc(r.Exits, func(a, b ExitReport) int { return cmp.Or(a.Code-b.Code, a.Signal-b.Signal) })
	slices.SortFunc(r.Restarts, func(a, b RestartReport) int {
		return cmp.Or(a.Slot-b.Slot, cmp.Compare(a.Reason, b.Reason))
	})
	s.o.Report(r)
}

// backoff returns how long the next restart that waits still waits.
func (s *Supervisor) backoff() time.Duration {
	var wait time.Duration
	for _, place := range s.slots[:min(s.target, len(s.slots))] {
		if left := place.due.Sub(s.now); place.current == nil && left > 0 && (wait == 0 || left < wait) {
			wait = left
		}
	}
	return wait
}
