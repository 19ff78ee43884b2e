package supervisor

import (
	"strconv"
	"syscall"
	"time"
)

// Process is one process that was launched. Its methods are safe for concurrent use.
type Process interface {
	// PID returns its id, which stays its own until Reap.
	PID() int
	// Signal sends a signal. It must not be called after Reap.
	Signal(s syscall.Signal)
	// Wait returns how it has ended, when it has.
	Wait() Status
	// Reap lets go of the process, which must have ended, and returns what it has used.
	Reap() Usage
}

// Usage is the processor time of a process and of what it has waited for.
type Usage struct {
	User   time.Duration `json:"user_ns"`
	System time.Duration `json:"system_ns"`
}

// Status is how a process has ended: with a code, or by a signal.
type Status struct {
	Code   int            // negative: by a signal
	Signal syscall.Signal // zero: with a code
}

// String describes how it has ended.
func (s Status) String() string {
	if s.Signal != 0 {
		return "signal " + s.Signal.String()
	}
	return "exit code " + strconv.Itoa(s.Code)
}

// Birth says what a process is launched as.
type Birth struct {
	Slot       int `json:"slot"`       // negative: it is no worker
	Generation int `json:"generation"` // of the command: one more with each reload
}

// Launcher starts a process. It must not block.
type Launcher func(Birth) (Process, error)

// life is what is known of one process: all that another master has to know.
type life struct {
	Birth
	State    State     `json:"state"`
	Born     time.Time `json:"born"`
	Start    uint64    `json:"start,omitempty"`    // as Options.StartTicks has it
	Ready    time.Time `json:"ready,omitzero"`     // zero: it was not yet
	LifeSign time.Time `json:"life_sign,omitzero"` // zero: it gives none
	Deadline time.Time `json:"deadline,omitzero"`  // of the state; zero: it has none
	Retires  time.Time `json:"retires,omitzero"`   // zero: never
	Memory   int64     `json:"memory,omitempty"`   // bytes with which it has to go; zero: any
	Resident int64     `json:"resident,omitempty"` // bytes that it had when it was last looked at; zero: it was not
	Cause    Reason    `json:"cause,omitempty"`    // why it has to go; empty: nothing yet
	Said     Reason    `json:"said,omitempty"`     // why it stops, as it said itself
	WayFor   Reason    `json:"way_for,omitempty"`  // why it makes way for its successor
}

// worker is one process and its life.
type worker struct {
	life
	process   Process
	successor *worker // that it makes way for when that serves; nil: none
}

// happens changes the state. It panics when that cannot be, which is a bug here.
func (w *worker) happens(o occurrence) {
	next, ok := transitions[w.State][o]
	if !ok {
		panic("a process that is " + string(w.State) + " cannot have: " + string(o))
	}
	if next != w.State {
		w.State, w.Deadline = next, time.Time{}
	}
}

// serves says whether the worker counts as one that will go on.
func (w *worker) serves() bool { return w.State == Starting || w.State == Running }

// reason says why the worker has ended.
func (w *worker) reason(s Status, oomKilled bool) Reason {
	switch {
	case w.Cause != "":
		return w.Cause
	case s.Signal == syscall.SIGKILL && oomKilled:
		return ReasonOOM
	case s.Signal == 0 && w.Said != "":
		return w.Said
	case w.Ready.IsZero():
		return ReasonBootError
	case s.Signal != 0:
		return ReasonSignal
	case s.Code != 0:
		return ReasonExitCode
	}
	return ReasonClean
}
