package exits

import (
	"fmt"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/prefork-exporter/prefork_exporter/collector/internal/procfs"
)

// process is a watched process and what is known of its end.
type process struct {
	Process
	theirs bool  // its id is that of another namespace
	pidfd  int   // negative: there is none
	line   int   // descriptor of its stat, which is that of no other process ever; negative: there is none
	added  int64 // by CLOCK_MONOTONIC, in ns: it lived then, or was to be waited for
	hidden bool  // we may not trace it

	at     time.Time // when its end was noticed; zero: it lives
	stat   *procfs.Stat
	status unix.WaitStatus
	known  bool
}

// open opens what is needed to see the end of a process, and looks at its identity only
// then: what is opened is that of the process that had the id at that moment.
func (w *Watcher) open(of Process) (*process, error) {
	p := &process{Process: of, theirs: w.theirs, pidfd: -1, line: -1, added: monotonic()}
	if err := w.openDescriptors(p); err != nil {
		p.close()
		return nil, err
	}
	s, err := p.read(w.proc)
	switch {
	case gone(err):
	case err != nil: // descriptors have run out, or the like: what is open may be another's
		p.close()
		if !p.absent() {
			w.short(p, err)
			return p, nil
		}
	case s.Start == of.Start:
		p.hidden = !p.shown(w.proc)
		return p, nil
	}
	p.close()
	return nil, fmt.Errorf("it has ended: %w", fs.ErrNotExist)
}

// openDescriptors opens the pidfd, and the zombie's line where that is what tells the status.
func (w *Watcher) openDescriptors(p *process) error {
	if w.ways&pidfds != 0 {
		fd, err := unix.PidfdOpen(p.PID, 0)
		switch {
		case err == nil:
			p.pidfd = fd
		case err == unix.ESRCH || err == unix.EINVAL || err == unix.ENOENT: // by version
			return fmt.Errorf("it has ended: %w", fs.ErrNotExist)
		default:
			w.short(p, os.NewSyscallError("pidfd_open", err))
		}
	}
	if w.ways&infos == 0 && w.events == nil {
		fd, err := unix.Open(w.proc.Path(p.PID, "stat"), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err == nil {
			p.line = fd
		}
	}
	return nil
}

// short notes that a process has to be looked at again and again.
func (w *Watcher) short(p *process, err error) {
	if !w.full {
		w.log.Warn("processes are looked at again and again", "pid", p.PID, "err", err)
	}
	w.full = true
}

// upgrade opens what could not be opened before.
func (w *Watcher) upgrade(p *process) {
	if w.ways&pidfds == 0 || p.pidfd >= 0 || !p.at.IsZero() {
		return
	}
	fd, err := unix.PidfdOpen(p.PID, 0)
	if err != nil {
		return
	}
	s, err := w.proc.Stat(p.PID)
	if err != nil || s.Start != p.Start || w.arm(p.PID, fd, unix.EPOLLIN|unix.EPOLLET) != nil {
		_ = unix.Close(fd)
		return
	}
	p.pidfd = fd
	delete(w.slow, p.PID)
}

func (p *process) close() {
	for _, fd := range []*int{&p.pidfd, &p.line} {
		if *fd >= 0 {
			_ = unix.Close(*fd)
		}
		*fd = -1
	}
}

// read reads the state of p, or of the process that has its id.
func (p *process) read(proc procfs.FS) (procfs.Stat, error) {
	if p.line < 0 {
		return proc.Stat(p.PID)
	}
	b := make([]byte, 4096) // a page: more than the longest line
	n, err := unix.Pread(p.line, b, 0)
	if err != nil {
		return procfs.Stat{}, os.NewSyscallError("pread", err)
	}
	return procfs.ParseStat(b[:n])
}

// ended reports whether p has ended with all its threads, and whether its parent has waited
// for it. Kernels before Linux 6.9 tell the first only.
func (p *process) ended(proc procfs.FS) (ended, reaped bool) {
	if p.pidfd < 0 {
		return p.endedInProc(proc)
	}
	fds := []unix.PollFd{{Fd: int32(p.pidfd), Events: unix.POLLIN}}
	if _, err := unix.Poll(fds, 0); err != nil {
		return false, false // interrupted: it will be looked at again
	}
	return fds[0].Revents != 0, fds[0].Revents&unix.POLLHUP != 0
}

func (p *process) endedInProc(proc procfs.FS) (ended, reaped bool) {
	s, err := p.read(proc)
	switch {
	case gone(err) || err == nil && s.Start != p.Start:
		return true, true
	case err != nil:
		return p.absent(), p.absent()
	}
	return s.Gone(), false
}

// absent reports whether nobody has the id of p, where no descriptor is left to read who:
// to ask for a signal needs none.
func (p *process) absent() bool { return !p.theirs && unix.Kill(p.PID, 0) == unix.ESRCH }

// readZombie reads what is there of p until its parent waits for it. A status of 0 is that
// of a clean end, or what the kernel shows to who may not trace p. That we may has to be
// seen now, since p may have changed its user ever since it was added; and its line has to
// be there afterwards, which proves that it was p whom we may trace.
func (p *process) readZombie(proc procfs.FS, trusted bool) {
	s, ok := p.readDead(proc)
	if !ok {
		return
	}
	p.stat = &s
	shown := s.ExitCode != 0
	if !shown && p.shown(proc) {
		_, shown = p.readDead(proc)
	}
	if trusted && shown {
		p.learn(unix.WaitStatus(s.ExitCode))
	}
}

func (p *process) readDead(proc procfs.FS) (procfs.Stat, bool) {
	s, err := p.read(proc)
	return s, err == nil && s.Start == p.Start && s.Gone()
}

// shown reports whether the kernel would show the status of p, or of the process that has
// its id, to us. For a namespace it asks the same as for the status, of zombies too, whose
// other files are root's.
func (p *process) shown(proc procfs.FS) bool {
	var target [64]byte
	_, err := unix.Readlink(proc.Path(p.PID, "ns/user"), target[:])
	return err == nil
}

// askInfo asks the pidfd for the status.
func (p *process) askInfo() {
	if status, err := infoStatus(p.pidfd); err == nil {
		p.learn(status)
	}
}

// learn takes the status. The first that tells it is right.
func (p *process) learn(s unix.WaitStatus) {
	if !p.known {
		p.status, p.known = s, true
	}
}
