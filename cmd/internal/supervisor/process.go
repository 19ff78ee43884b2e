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
	// Reap lets go of the process, which must have ended.
	Reap()
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
	Slot       int
	Generation int // of the command: one more with each reload
}

// Launcher starts a process. It must not block.
type Launcher func(Birth) (Process, error)

// worker is one process and its life.
type worker struct {
	Birth
	process  Process
	state    State
	born     time.Time
	ready    time.Time // zero: it was not yet
	lifeSign time.Time // zero: it gives none
	deadline time.Time // of the state; zero: it has none
	retires  time.Time // zero: never
	memory   int64     // bytes with which it has to go; zero: any
	cause    Reason    // why it has to go; empty: nothing yet
	said     Reason    // why it stops, as it said itself

	successor *worker // that it makes way for when that serves; nil: none
	wayFor    Reason  // why
}

// happens changes the state. It panics when that cannot be, which is a bug here.
func (w *worker) happens(o occurrence) {
	next, ok := transitions[w.state][o]
	if !ok {
		panic("a process that is " + string(w.state) + " cannot have: " + string(o))
	}
	if next != w.state {
		w.state, w.deadline = next, time.Time{}
	}
}

// serves says whether the worker counts as one that will go on.
func (w *worker) serves() bool { return w.state == Starting || w.state == Running }

// reason says why the worker has ended.
func (w *worker) reason(s Status, oomKilled bool) Reason {
	switch {
	case w.cause != "":
		return w.cause
	case s.Signal == syscall.SIGKILL && oomKilled:
		return ReasonOOM
	case s.Signal == 0 && w.said != "":
		return w.said
	case w.ready.IsZero():
		return ReasonBootError
	case s.Signal != 0:
		return ReasonSignal
	case s.Code != 0:
		return ReasonExitCode
	}
	return ReasonClean
}
