package watch

import (
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The reasons are a closed set: why a worker has ended.
const (
	reasonClean       = "clean"
	reasonMaxRequests = "max_requests"
	reasonReload      = "reload"
	reasonScaleDown   = "scale_down"
	reasonShutdown    = "shutdown"
	reasonTimeout     = "timeout"
	reasonOOM         = "oom"
	reasonSignal      = "signal"
	reasonExitCode    = "exit_code"
	reasonBootError   = "boot_error"
	reasonUnknown     = "unknown"
)

// exitStatus is how a process has ended, if it is known.
type exitStatus struct {
	unix.WaitStatus
	known bool
}

// ending is what was known of a worker when it had ended.
type ending struct {
	exitStatus
	// silence is how long it had given no sign of life; negative: nobody knows.
	silence time.Duration
	timeout time.Duration // that its master gives it; 0: none is known
	oom     bool          // the kernel killed it for want of memory
	// log is the reason that the server's log gives, or its part of one; empty: it gives none.
	log string
	// limited says that the server is known to replace workers after some requests.
	limited bool
}

// scene is what its master did meanwhile, as it turned out.
type scene struct {
	stopping  bool // ends, or has ended
	reloading bool // has all workers of the same age replaced
	shrinking bool // has put none in its place
}

// reason says why a worker has ended: what is certain comes before what only fits. How it ended is not why: a worker that hung may exit with 0.
func reason(k Kind, e ending, s scene) string {
	switch {
	case e.known && isBootError(k, e.WaitStatus): // which stops the master, too
		return reasonBootError
	case s.stopping:
		return reasonShutdown
	case s.reloading && e.known && isAsked(k, e.WaitStatus):
		return reasonReload
	case e.oom:
		return reasonOOM
	case e.log == reasonTimeout || isTimeout(k, e):
		return reasonTimeout
	case !e.known:
		return reasonUnknown
	case s.shrinking && isAsked(k, e.WaitStatus) && !e.isKill():
		return reasonScaleDown
	case e.Signaled():
		return reasonSignal
	}
	return exitReason(k, e)
}

// exitReason is that of a worker that has exited.
func exitReason(k Kind, e ending) string {
	code := e.ExitStatus()
	named, isNamed := exitCodes(k)[code]
	switch {
	case named == reasonReload && (e.limited || e.log == reasonMaxRequests):
		return reasonMaxRequests // it has replaced itself
	case isNamed:
		return named
	case code != 0 && e.log == reasonBootError:
		return reasonBootError
	case code != 0:
		return reasonExitCode
	case e.limited || e.log == reasonMaxRequests:
		return reasonMaxRequests
	}
	return reasonClean
}

func isBootError(k Kind, s unix.WaitStatus) bool {
	return s.Exited() && exitCodes(k)[s.ExitStatus()] == reasonBootError
}

// exitCodes are those by which workers tell why they end: gunicorn's arbiter.py has the
// first two, uwsgi.h the others.
func exitCodes(k Kind) map[int]string {
	switch k {
	case Gunicorn:
		return map[int]string{3: reasonBootError, 4: reasonBootError}
	case UWSGI:
		return map[int]string{15: reasonScaleDown, 17: reasonReload, 22: reasonBootError, 30: reasonShutdown, 31: reasonReload}
	}
	return nil
}

// isAsked says whether a worker ends so when its master asks it to, or makes it.
func isAsked(k Kind, s unix.WaitStatus) bool {
	if s.Signaled() {
		return slices.Contains([]syscall.Signal{unix.SIGTERM, unix.SIGQUIT, unix.SIGINT, unix.SIGKILL}, s.Signal())
	}
	return s.ExitStatus() == 0 || exitCodes(k)[s.ExitStatus()] == reasonReload
}

// isTimeout says whether a worker was ended because it gave no sign of life for too long.
// Newer gunicorns' sync workers exit with 0 then, older ones with 1, and one that does not
// heed SIGABRT is killed.
func isTimeout(k Kind, e ending) bool {
	if k != Gunicorn || e.timeout <= 0 || e.silence < e.timeout {
		return false
	}
	if !e.known {
		return true
	}
	if e.Signaled() {
		return e.Signal() == unix.SIGKILL || e.Signal() == unix.SIGABRT
	}
	return e.ExitStatus() <= 1
}

// isPlain says whether the status alone tells why, whatever the master does next.
func isPlain(k Kind, e ending) bool {
	return e.log == reasonTimeout || isTimeout(k, e) || e.known && !isAsked(k, e.WaitStatus)
}
