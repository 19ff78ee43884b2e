package supervisor

import (
	"log/slog"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// RestartPolicy says when a server that has ended by itself is started again.
type RestartPolicy string

// The policies. A server that was asked to stop is not started again by any of them.
const (
	RestartNo        RestartPolicy = "no"
	RestartOnFailure RestartPolicy = "on-failure" // when it has ended with a code but 0, or by a signal
	RestartAlways    RestartPolicy = "always"
)

func (p RestartPolicy) wants(s Status) bool {
	return p == RestartAlways || p == RestartOnFailure && s != (Status{})
}

// serverBackoff is that of a server. Its loop is over as soon as it has had a good run:
// there is no other server whose failures could go on.
func serverBackoff() Backoff {
	return Backoff{Min: time.Second, Max: time.Minute, GoodRun: 10 * time.Second, Loop: 5, LoopWindow: 10 * time.Minute}
}

// keeper keeps one server that is its own master: it hands on signals, goes on with the
// successor that the server has put in its place, and starts it again if the policy says
// so. It has one owner, which calls run.
type keeper struct {
	launch func() (Process, error)
	// successor returns the process that goes on in place of a server that has ended, and
	// since when it is there. Nil: none does.
	successor func(old Process) (next Process, born time.Time)
	// leave lets go of a server that has ended for good. The channel is closed when what
	// the server has left behind has ended, too.
	leave func(old Process) (gone <-chan struct{})

	restart     RestartPolicy
	terminal    bool // sends its signals to the server alone
	backoff     Backoff
	stopSignal  syscall.Signal // what the server gets for a TERM
	stopTimeout time.Duration  // after which one that was asked to stop is killed; zero: never
	signals     <-chan os.Signal
	report      func(Report) // is told the state whenever it has changed
	logger      *slog.Logger

	server   int              // process id of the present one; 0: none runs
	started  time.Time        // when the present server was
	stopping syscall.Signal   // with which it was asked to stop; zero: it was not
	overdue  <-chan time.Time // when it should have stopped
	due      time.Time        // when it is started again; zero: it runs
	streak   int              // failures in a row
	failures failureLog
	counts   counts
	over     bool
}

// run keeps the server until it has ended for good, and returns how.
func (k *keeper) run(server Process) Status {
	k.counts = newCounts()
	k.began(server, time.Now())
	for {
		status := k.stand(server)
		if next := k.succeed(server); next != nil {
			server = next
			continue
		}
		k.server = 0
		k.tell()
		gone := k.leave(server)
		if k.restarts(status) {
			if server = k.again(status, gone); server != nil {
				continue
			}
		}
		k.logger.Info("the server has ended for good", "status", status)
		k.settle(gone)
		k.over = true
		k.tell()
		return status
	}
}

// began notes which the present server is, and since when it is there.
func (k *keeper) began(server Process, at time.Time) {
	k.server, k.started, k.due = server.PID(), at, time.Time{}
	k.tell()
}

// stand hands on signals until the server has ended.
func (k *keeper) stand(server Process) Status {
	ended := make(chan Status, 1)
	go func() { ended <- server.Wait() }()
	good := time.NewTimer(time.Until(k.started.Add(k.backoff.GoodRun)))
	defer good.Stop()
	for {
		select {
		case status := <-ended:
			return status
		case <-good.C:
			k.forgive()
			k.tell()
		case <-k.overdue:
			k.logger.Error("the server has not stopped in time, and is killed", "stop_timeout", k.stopTimeout)
			server.Signal(syscall.SIGKILL)
		case s := <-k.signals:
			if k.note(s) {
				k.hand(server, s.(syscall.Signal))
			}
		}
	}
}

// forgive forgets failures, after a good run or for somebody who has mended what was wrong.
func (k *keeper) forgive() { k.streak, k.failures = 0, failureLog{} }

// note counts a signal. It says whether that means anything.
func (k *keeper) note(s os.Signal) bool {
	if s == syscall.SIGPIPE {
		return false // a log that nobody reads any more
	}
	k.counts.signals[s.(syscall.Signal)]++
	k.tell()
	return true
}

// stops says whether a signal of the operator asks for the end.
func stops(s os.Signal) bool {
	return s == syscall.SIGTERM || s == syscall.SIGINT || s == syscall.SIGQUIT
}

// hand hands a signal on to the server.
func (k *keeper) hand(server Process, s syscall.Signal) {
	forwarded := s
	if s == syscall.SIGTERM {
		forwarded = k.stopSignal
	}
	k.logger.Info("signal", "signal", unix.SignalName(s), "forwarded_as", unix.SignalName(forwarded))
	if stops(s) {
		k.stop(forwarded)
	}
	server.Signal(forwarded)
}

// stop notes that the server was asked to stop. Being asked again gives it no more time.
func (k *keeper) stop(with syscall.Signal) {
	if k.stopTimeout > 0 && k.stopping == 0 {
		k.overdue = time.After(k.stopTimeout)
	}
	k.stopping = with
	k.tell()
}

// succeed returns the successor of a server that has ended; nil if it has none. What
// the one was asked the other has to do.
func (k *keeper) succeed(old Process) Process {
	next, born := k.successor(old)
	if next == nil {
		return nil
	}
	k.logger.Info("another process goes on in place of the server", "pid", next.PID(), "before", old.PID())
	old.Reap()
	k.counts.masters[ReasonReload]++
	if with := k.stopping; with != 0 {
		k.stopping = 0 // and it has all the time for that
		k.stop(with)
		next.Signal(with)
	}
	k.began(next, born)
	return next
}

// restarts says whether a server that has ended so is started again.
func (k *keeper) restarts(s Status) bool {
	if k.stopping != 0 || k.terminal && mayBeInterrupt(s) {
		return false
	}
	return k.restart.wants(s)
}

// mayBeInterrupt says whether a server may have ended so because of what a terminal sends.
func mayBeInterrupt(s Status) bool {
	const bySignal = 128 // as shells tell it
	for _, sent := range []syscall.Signal{syscall.SIGINT, syscall.SIGQUIT} {
		if s.Signal == sent || s.Code == bySignal+int(sent) {
			return true
		}
	}
	return s == Status{}
}

// again starts the server again, when that is due. It returns nil when the operator does
// not want that any more.
func (k *keeper) again(last Status, gone <-chan struct{}) Process {
	why, good := masterReason(last), time.Since(k.started) >= k.backoff.GoodRun
	k.logger.Error("the server has ended", "reason", why, "status", last)
	for {
		wait := k.fail(good)
		k.logger.Warn("a restart waits", "failures", k.streak, "wait", wait)
		if !k.pause(wait, gone) {
			return nil
		}
		server, err := k.launch()
		if err == nil {
			k.counts.masters[why]++
			k.began(server, time.Now())
			return server
		}
		k.logger.Error("the server cannot be started", "err", err)
		good = false
	}
}

// masterReason says why a server that was not asked to has ended.
func masterReason(s Status) Reason {
	switch {
	case s.Signal != 0:
		return ReasonSignal
	case s.Code != 0:
		return ReasonExitCode
	}
	return ReasonClean
}

// fail returns how long the next start waits. Unlike with workers the first does, too:
// what a server does before it listens is dear.
func (k *keeper) fail(good bool) time.Duration {
	now := time.Now()
	if good {
		k.forgive()
	} else {
		k.failures.add(k.backoff, now)
	}
	k.streak++
	if k.failures.loops(k.backoff, now) {
		return jittered(k.backoff.Max)
	}
	return k.backoff.wait(k.streak + 1)
}

// pause waits until the server is to be started again, which a HUP wants at once, and
// says whether it is. Before that all has to be gone that it has left behind.
func (k *keeper) pause(wait time.Duration, gone <-chan struct{}) bool {
	const tellEvery = time.Second
	timer, tick := time.NewTimer(wait), time.NewTicker(tellEvery)
	defer timer.Stop()
	defer tick.Stop()
	k.due = time.Now().Add(wait)
	for waits := true; waits || gone != nil; {
		k.tell()
		select {
		case <-timer.C:
			waits = false
		case <-gone:
			gone = nil
		case <-tick.C:
		case s := <-k.signals:
			if !k.note(s) {
				continue
			}
			k.logger.Info("signal while no server runs", "signal", unix.SignalName(s.(syscall.Signal)))
			if stops(s) {
				k.stop(s.(syscall.Signal))
				return false
			}
			if s == syscall.SIGHUP {
				k.forgive()
				k.due, waits = time.Now(), false
			}
		}
	}
	return true
}

// settle waits until all is gone that the server has left behind, or somebody who wants
// it to stop is in a hurry.
func (k *keeper) settle(gone <-chan struct{}) {
	for {
		select {
		case <-gone:
			return
		case s := <-k.signals:
			if k.note(s) && stops(s) {
				return
			}
		}
	}
}

// tell tells of the state.
func (k *keeper) tell() {
	now := time.Now()
	r := Report{
		Version: reportVersion, At: now, Server: k.server, Started: k.started, Target: -1, Stopping: k.stopping != 0, Over: k.over,
		Loop: k.failures.loops(k.backoff, now), Counts: k.counts.told(),
	}
	if !k.due.IsZero() {
		r.Backoff = max(0, k.due.Sub(now))
	}
	k.report(r)
}
