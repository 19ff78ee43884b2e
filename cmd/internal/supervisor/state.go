package supervisor

// State is where a process is in its life.
type State string

// The states of a process, by the names that prefork_workers has them.
const (
	Starting     State = "starting"     // it was started, and does not serve yet
	Running      State = "running"      // it serves
	Stopping     State = "stopping"     // it was asked to end
	Unresponsive State = "unresponsive" // it gave no sign of life, and was told to abort
	Killed       State = "killed"       // it was killed, for want of anything better
	Dead         State = "dead"         // it has ended
)

// occurrence is what can happen to a process.
type occurrence string

const (
	becameReady occurrence = "ready"
	asked       occurrence = "stop"    // by us
	silent      occurrence = "silent"  // no sign of life in time
	timeIsUp    occurrence = "time up" // the deadline of its state has passed
	ended       occurrence = "ended"
)

// transitions is a process's whole life. What is missing cannot happen, and is a
// bug of this package.
var transitions = map[State]map[occurrence]State{
	Starting:     {becameReady: Running, asked: Stopping, silent: Unresponsive, timeIsUp: Killed, ended: Dead},
	Running:      {becameReady: Running, asked: Stopping, silent: Unresponsive, ended: Dead},
	Stopping:     {becameReady: Stopping, asked: Stopping, timeIsUp: Killed, ended: Dead},
	Unresponsive: {becameReady: Unresponsive, asked: Unresponsive, timeIsUp: Killed, ended: Dead},
	Killed:       {becameReady: Killed, asked: Killed, ended: Dead},
	Dead:         {},
}

// Reason is why a worker has ended: one of a closed set.
type Reason string

// The reasons, as prefork_worker_restart_total has them.
const (
	ReasonClean       Reason = "clean"
	ReasonMaxRequests Reason = "max_requests"
	ReasonMaxMemory   Reason = "max_memory"
	ReasonMaxLifetime Reason = "max_lifetime"
	ReasonReload      Reason = "reload"
	ReasonScaleDown   Reason = "scale_down"
	ReasonShutdown    Reason = "shutdown"
	ReasonTimeout     Reason = "timeout"
	ReasonOOM         Reason = "oom"
	ReasonSignal      Reason = "signal"
	ReasonExitCode    Reason = "exit_code"
	ReasonBootError   Reason = "boot_error"
	ReasonUnknown     Reason = "unknown"
)

// announced are the reasons that a worker itself may give.
func announced(r Reason) bool {
	switch r {
	case ReasonMaxRequests, ReasonMaxMemory, ReasonMaxLifetime:
		return true
	}
	return false
}

// restarted says whether a death for that reason is followed by a restart, and
// counted as one.
func (r Reason) restarted() bool { return r != ReasonScaleDown && r != ReasonShutdown }

// failed says whether a death for that reason is a failure, which a restart waits
// for longer each time.
func (r Reason) failed() bool {
	switch r {
	case ReasonTimeout, ReasonOOM, ReasonSignal, ReasonExitCode, ReasonBootError, ReasonUnknown:
		return true
	}
	return false
}
