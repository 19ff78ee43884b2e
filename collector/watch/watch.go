// Package watch is what is known of a master and its workers, whoever knows it: our
// own supervisor, or who looks from outside. It promises nothing to other modules.
package watch

import "time"

// State is a master and its workers at one moment, and what has happened since it is
// watched. It never changes once it is handed out.
type State struct {
	Target  int // workers that there should be; negative: nobody knows
	Workers []Worker

	Exits     []Exit
	Restarts  []Restart
	Reloads   map[string]float64 // by result
	Signals   map[string]float64 // that the operator has sent, without SIG
	Masters   map[string]float64 // restarts of the master, by reason
	Backoff   time.Duration      // how long the next restart still waits
	Loop      bool               // workers, or the server, die as soon as they start
	Used      map[string]Used    // by slot: by workers that have ended
	StartTime time.Time          // of the master
	Over      bool               // the master has ended
}

// Worker is one living worker.
type Worker struct {
	Slot  string
	PID   int
	State string // starting, running, stopping or unresponsive
	Born  time.Time
}

// Used is processor time, in seconds, of processes and of what they have waited for.
type Used struct{ User, System float64 }

// Exit counts the workers that have ended so.
type Exit struct {
	Code, Signal string // one of them is empty
	Count        float64
}

// Restart counts the restarts of a slot for a reason.
type Restart struct {
	Slot, Reason string
	Count        float64
}

// Source knows the state of a master. It is safe for concurrent use. While nothing is
// known, ok is false.
type Source interface{ State() (s State, ok bool) }
