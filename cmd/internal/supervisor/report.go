package supervisor

import (
	"cmp"
	"slices"
	"syscall"
	"time"
)

// Report is the whole state at one moment, totals since the start included, so that
// who has missed others has missed nothing.
type Report struct {
	Version int       `json:"version"` // of this form: 1
	At      time.Time `json:"at"`
	Started time.Time `json:"started"` // the supervisor, or the server that it keeps
	// Server is the process id of a server that is its own master; 0: none runs now, or the
	// supervisor is the master.
	Server    int  `json:"server,omitempty"`
	Target    int  `json:"target"`   // workers that there should be
	Stopping  bool `json:"stopping"` // the operator has asked for the end
	Reloading bool `json:"reloading"`
	Over      bool `json:"over"` // nothing more will happen: who is scraped once more may end
	Loop      bool `json:"restart_loop"`
	// Backoff is how long the next restart that waits still waits; zero: none does.
	Backoff time.Duration  `json:"backoff_ns"`
	Workers []WorkerReport `json:"workers"` // the living, by slot
	Counts
}

// Counts are totals since the start.
type Counts struct {
	Births   int64           `json:"births"`
	Exits    []ExitReport    `json:"exits"`
	Restarts []RestartReport `json:"restarts"`
	Reloads  ReloadReport    `json:"reloads"`
	Signals  []SignalReport  `json:"signals"` // that the operator has sent
	Masters  []MasterReport  `json:"masters"` // why the master was started again
	Deaths   []DeathReport   `json:"deaths"`  // the last ones, in order
	Used     []UsageReport   `json:"used"`    // by workers that have ended
}

// WorkerReport is one living worker.
type WorkerReport struct {
	Slot     int        `json:"slot"`
	PID      int        `json:"pid"`
	State    State      `json:"state"`
	Born     time.Time  `json:"born"`
	Start    uint64     `json:"start,omitempty"`     // in ticks since the machine's start; 0: nobody knows
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

// DeathReport is the end of one worker.
type DeathReport struct {
	At     time.Time `json:"at"`
	Slot   int       `json:"slot"`
	PID    int       `json:"pid"`
	Born   time.Time `json:"born"`
	Reason Reason    `json:"reason"`
	Code   int       `json:"code"` // negative: by a signal
	Signal int       `json:"signal,omitempty"`
	// Resident is how many bytes of memory it had when it was last looked at; zero: it was not.
	Resident int64 `json:"resident_bytes,omitempty"`
}

// UsageReport is what the workers of a slot have used that have ended.
type UsageReport struct {
	Slot int `json:"slot"`
	Usage
}

// SignalReport counts a signal.
type SignalReport struct {
	Signal int   `json:"signal"`
	Count  int64 `json:"count"`
}

// MasterReport counts the restarts of the master for a reason.
type MasterReport struct {
	Reason Reason `json:"reason"`
	Count  int64  `json:"count"`
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
	signals  map[syscall.Signal]int64
	masters  map[Reason]int64
	used     map[int]Usage // by slot
	deaths   []DeathReport
}

// keptDeaths is how many of the last deaths are told.
const keptDeaths = 50

// died notes the end of a worker.
func (c *counts) died(d DeathReport) {
	c.deaths = append(c.deaths, d)
	c.deaths = c.deaths[max(0, len(c.deaths)-keptDeaths):]
}

// use adds what a worker has used.
func (c counts) use(slot int, u Usage) {
	before := c.used[slot]
	c.used[slot] = Usage{before.User + u.User, before.System + u.System}
}

func newCounts() counts {
	return counts{exits: map[Status]int64{}, restarts: map[restart]int64{}, signals: map[syscall.Signal]int64{}, masters: map[Reason]int64{}, used: map[int]Usage{}}
}

// told returns the counts as they are told, in order.
func (c counts) told() Counts {
	r := Counts{Births: c.births, Reloads: c.reloads, Deaths: slices.Clone(c.deaths)}
	for status, n := range c.exits {
		r.Exits = append(r.Exits, ExitReport{status.Code, int(status.Signal), n})
	}
	for of, n := range c.restarts {
		r.Restarts = append(r.Restarts, RestartReport{of.slot, of.reason, n})
	}
	for signal, n := range c.signals {
		r.Signals = append(r.Signals, SignalReport{int(signal), n})
	}
	for reason, n := range c.masters {
		r.Masters = append(r.Masters, MasterReport{reason, n})
	}
	for slot, u := range c.used {
		r.Used = append(r.Used, UsageReport{slot, u})
	}
	slices.SortFunc(r.Used, func(a, b UsageReport) int { return a.Slot - b.Slot })
	slices.SortFunc(r.Exits, func(a, b ExitReport) int { return cmp.Or(a.Code-b.Code, a.Signal-b.Signal) })
	slices.SortFunc(r.Restarts, func(a, b RestartReport) int {
		return cmp.Or(a.Slot-b.Slot, cmp.Compare(a.Reason, b.Reason))
	})
	slices.SortFunc(r.Signals, func(a, b SignalReport) int { return a.Signal - b.Signal })
	slices.SortFunc(r.Masters, func(a, b MasterReport) int { return cmp.Compare(a.Reason, b.Reason) })
	return r
}

// counts returns what was told.
func (r Counts) counts() counts {
	c := newCounts()
	c.births, c.reloads, c.deaths = r.Births, r.Reloads, r.Deaths
	for _, one := range r.Exits {
		c.exits[Status{one.Code, syscall.Signal(one.Signal)}] = one.Count
	}
	for _, one := range r.Restarts {
		c.restarts[restart{one.Slot, one.Reason}] = one.Count
	}
	for _, one := range r.Signals {
		c.signals[syscall.Signal(one.Signal)] = one.Count
	}
	for _, one := range r.Masters {
		c.masters[one.Reason] = one.Count
	}
	for _, one := range r.Used {
		c.used[one.Slot] = one.Usage
	}
	return c
}

// report tells of the state.
func (s *Supervisor) report() {
	if s.o.Report == nil {
		return
	}
	r := Report{
		Version: reportVersion, At: s.now, Started: s.started, Target: s.target, Stopping: s.stopping, Reloading: s.reloading, Counts: s.counts.told(),
		Loop: s.failures.loops(s.o.Backoff, s.now), Backoff: s.backoff(),
	}
	for _, w := range s.workers {
		one := WorkerReport{Slot: w.Slot, PID: w.process.PID(), State: w.State, Born: w.Born, Start: w.Start}
		if !w.LifeSign.IsZero() {
			one.LifeSign = new(w.LifeSign)
		}
		r.Workers = append(r.Workers, one)
	}
	slices.SortFunc(r.Workers, func(a, b WorkerReport) int { return cmp.Or(a.Slot-b.Slot, a.Born.Compare(b.Born)) })
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
