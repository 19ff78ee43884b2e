// Package watch is what is known of a master and its workers, whoever knows it: our
// own supervisor, or who looks from outside. It promises nothing to other modules.
package watch

import "time"

// State is a master and its workers at one moment, and what has happened since it is
// watched. It never changes once it is handed out.
type State struct {
	Kind    Kind     // of the server; empty: nobody knows
	Master  int      // process id; 0: there is none now, or nobody knows
	Target  int      // workers that there should be; negative: nobody knows
	Workers []Worker // nil, and no Target: nobody watches them

	Exits     []Exit
	Restarts  []Restart
	Reloads   map[string]float64 // by result
	Signals   map[string]float64 // that the operator has sent, without SIG
	Masters   map[string]float64 // restarts of the master, by reason
	Backoff   time.Duration      // how long the next restart still waits
	Loop      bool               // workers, or the server, die as soon as they start
	Used      map[string]Used    // by slot: by workers that have ended
	StartTime time.Time          // of the master
	Stopping  bool               // the master was asked to end
	Over      bool               // the master has ended
	Deaths    []Death            // the last ones, oldest first
	Features  []Feature          // what can be watched here, and what cannot
}

// Worker is one living worker.
type Worker struct {
	Slot  string
	PID   int
	Start uint64 // in ticks since the machine's start, which tells it from others of its id; 0: nobody knows
	State string // starting, running, stopping or unresponsive
	Born  time.Time
	// LifeSign is when it last gave its master a sign of life; zero: it gives none that is known.
	LifeSign time.Time
}

// Death is the end of one worker.
type Death struct {
	At     time.Time
	Slot   string
	PID    int
	Born   time.Time
	Reason string
	Code   string // empty: it was ended by Signal, or nobody knows how
	Signal string // without SIG
	// ResidentBytes is what memory it had when it was last looked at; 0: nobody knows.
	ResidentBytes float64
}

// Feature is something that can be watched in some places only. There is one for each
// name; what cannot be watched is absent everywhere else in the state.
type Feature struct {
	Name   string // such as exit_status
	Reason string // why it is not to be had here; empty: it is
}

// Kind is the kind of server that a master is.
type Kind string

// The kinds. Generic is that of any other master that forks its workers.
const (
	Gunicorn Kind = "gunicorn"
	UWSGI    Kind = "uwsgi"
	Unicorn  Kind = "unicorn"
	Puma     Kind = "puma"
	PHPFPM   Kind = "php-fpm"
	Sidekiq  Kind = "sidekiq"
	Generic  Kind = "generic"
)

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
