package supervisor

import (
	"errors"
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// child is a process of ours: launched, or taken over.
type child struct {
	pid     int
	handle  *os.File // of pidfd_open(2); nil: the kernel has none
	spawner *Spawner
	group   bool // it leads a process group, of which nothing is to be left
}

// newChild returns a child by its id, which is its own until Reap.
func newChild(pid int, group bool, spawner *Spawner) *child {
	c := &child{pid: pid, spawner: spawner, group: group}
	if fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK); err == nil {
		c.handle = os.NewFile(uintptr(fd), "process")
	}
	return c
}

// PID implements [Process].
func (c *child) PID() int { return c.pid }

// Signal implements [Process].
func (c *child) Signal(s syscall.Signal) { _ = unix.Kill(c.pid, s) }

// Wait implements [Process]. It takes a thread only where the kernel has no handles.
func (c *child) Wait() Status {
	if c.handle == nil {
		status, _ := c.look(0)
		return status
	}
	var status Status
	raw, err := c.handle.SyscallConn()
	if err == nil {
		err = raw.Read(func(uintptr) (ended bool) {
			status, ended = c.look(unix.WNOHANG)
			return ended
		})
	}
	if err != nil { // the handle cannot be polled
		status, _ = c.look(0)
	}
	return status
}

// look returns how the process has ended, if it has. It leaves it as it is.
func (c *child) look(options int) (_ Status, ended bool) {
	info, err := waitID(unix.P_PID, c.pid, options)
	switch {
	case err != nil:
		return Status{Code: -1}, true // it was not ours, or somebody else has waited for it
	case info.PID == 0:
		return Status{}, false
	case info.Code == cldExited:
		return Status{Code: int(info.Status)}, true
	}
	return Status{Code: -1, Signal: syscall.Signal(info.Status)}, true
}

// Reap implements [Process]. What the process has left of its group, whose id nobody
// else gets as long as one is there, has to end as well: it would hold the sockets.
func (c *child) Reap() Usage {
	if c.group {
		_ = unix.Kill(-c.pid, unix.SIGTERM)
	}
	var used unix.Rusage
	_, _ = unix.Wait4(c.pid, nil, unix.WNOHANG, &used)
	if c.handle != nil {
		_ = c.handle.Close()
	}
	if c.group {
		c.spawner.endGroup(c.pid, groupDeadline())
	}
	c.spawner.forget(c.pid)
	return Usage{User: time.Duration(used.Utime.Nano()), System: time.Duration(used.Stime.Nano())}
}

// childInfo is what waitid(2) tells: the beginning of siginfo_t on 64 bit machines.
type childInfo struct {
	_, _, Code, _ int32
	PID           int32
	_             uint32
	Status        int32
}

const cldExited = 1 // CLD_EXITED

// waitID tells of a child that has ended, and leaves it as it is.
func waitID(kind, id, options int) (childInfo, error) {
	for {
		var info unix.Siginfo
		err := unix.Waitid(kind, id, &info, unix.WEXITED|unix.WNOWAIT|options, nil)
		if !errors.Is(err, unix.EINTR) {
			return *(*childInfo)(unsafe.Pointer(&info)), err
		}
	}
}
