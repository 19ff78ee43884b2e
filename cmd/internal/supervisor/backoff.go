package supervisor

import (
	"math/rand/v2"
	"time"
)

// Backoff says how long restarts wait after failures. The first failure after a
// good run costs no wait.
type Backoff struct {
	Min, Max time.Duration // of the wait after the second failure in a row, which then doubles up to Max
	GoodRun  time.Duration // how long a worker must have served for its failures to be forgotten
	// Loop is a restart loop: so many failures without a good run, of all workers, within
	// LoopWindow. The restarts after such failures wait for Max then.
	Loop       int
	LoopWindow time.Duration
}

// DefaultBackoff returns what is right for most.
func DefaultBackoff() Backoff {
	return Backoff{
		Min: 100 * time.Millisecond, Max: 30 * time.Second, GoodRun: 10 * time.Second, Loop: 20, LoopWindow: time.Minute,
	}
}

// wait returns how long to wait after so many failures in a row, less up to a
// quarter: workers that failed together do not come back together.
func (b Backoff) wait(failures int) time.Duration {
	if failures <= 1 {
		return 0
	}
	wait := b.Max
	if shift := failures - 2; shift < 30 {
		wait = min(b.Max, b.Min<<shift)
	}
	return jittered(wait)
}

func jittered(d time.Duration) time.Duration { return d - rand.N(d/4+1) }

// failureLog remembers failures to see a restart loop.
type failureLog struct{ times []time.Time }

// add notes a failure. No more are kept than make a loop.
func (l *failureLog) add(b Backoff, at time.Time) {
	l.times = append(l.times, at)
	l.times = l.times[max(0, len(l.times)-max(b.Loop, 1)):]
}

// loops says whether there were as many failures as a restart loop has, and forgets
// those that are too old.
func (l *failureLog) loops(b Backoff, now time.Time) bool {
	for len(l.times) > 0 && now.Sub(l.times[0]) >= b.LoopWindow {
		l.times = l.times[1:]
	}
	return b.Loop > 0 && len(l.times) >= b.Loop
}

// ends returns when a loop is over if nothing more fails.
func (l *failureLog) ends(b Backoff) time.Time {
	return l.times[len(l.times)-b.Loop].Add(b.LoopWindow)
}
