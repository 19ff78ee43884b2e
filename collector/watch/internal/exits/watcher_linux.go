package exits

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/prefork-exporter/prefork_exporter/collector/internal/procfs"
)

// Watcher watches processes. Its methods are safe for concurrent use.
//
// One goroutine waits for the kernel, with one epoll descriptor for all processes; another
// holds deaths until they are received, so that neither waits for who receives them.
type Watcher struct {
	proc   procfs.FS
	log    *slog.Logger
	poll   time.Duration
	ways   ways
	theirs bool // ids are those of another namespace
	deaths chan Death

	done    sync.WaitGroup
	told    chan Death       // to the goroutine that holds them
	wake    *os.File         // the epoll descriptor, in the keeping of Go's poller
	waiting syscall.RawConn  // of wake
	mu      sync.Mutex       // guards the rest
	watched map[int]*process // by id
	slow    map[int]*process // those of them that have to be looked at again and again
	events  *connector       // nil: none is to be had
	lost    int64            // when the connector has lost messages, by CLOCK_MONOTONIC, in ns; 0: it has told since
	hidden  int              // how many watched processes may not be traced
	hid     bool             // the last death's status was not shown
	full    bool             // a process is looked at again and again for want of a descriptor
	closed  bool
}

// connectorKey is the key of the connector, where processes have their ids.
const connectorKey = -1

// burst is how many deaths can be received at once: all of them that a crowd makes.
const burst = 1024

// defaultPoll is the default of Options.Poll.
const defaultPoll = 250 * time.Millisecond

// Open finds out what the kernel offers and starts to watch. It costs a thread of our own,
// which ends at once: to see its status is the only sure proof that statuses are told.
func Open(o Options) (*Watcher, error) {
	w := &Watcher{
		proc: o.Proc, log: o.Logger, poll: cmp.Or(o.Poll, defaultPoll),
		deaths: make(chan Death, burst), told: make(chan Death),
		watched: map[int]*process{}, slow: map[int]*process{},
	}
	if w.proc == (procfs.FS{}) {
		w.proc = procfs.New("/proc")
	}
	if w.log == nil {
		w.log = slog.New(slog.DiscardHandler)
	}
	if err := w.openEpoll(); err != nil {
		return nil, fmt.Errorf("watch for deaths: %w", err)
	}
	w.ways = w.offered() &^ o.without
	w.openConnector()
	w.log.Debug("exit statuses of workers", "by", w.Feature().How, "unknown", w.Feature().Reason)
	w.done.Go(w.wait)
	w.done.Go(w.hold)
	return w, nil
}

func (w *Watcher) openEpoll() error {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return os.NewSyscallError("epoll_create1", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil { // else Go's poller would not take it
		_ = unix.Close(fd)
		return os.NewSyscallError("fcntl", err)
	}
	w.wake = os.NewFile(uintptr(fd), "epoll")
	w.waiting, err = w.wake.SyscallConn()
	return err
}

// offered returns what can be used here. Ids in a proc of another namespace are not those
// that the kernel takes from us.
func (w *Watcher) offered() ways {
	all := pidfds | infos | connectors | zombies
	if self, err := w.proc.Self(); err != nil || self != os.Getpid() {
		w.log.Debug("proc is that of another namespace: processes are looked at again and again")
		w.theirs = true
		return zombies
	}
	fd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		w.log.Debug("processes are looked at again and again", "err", os.NewSyscallError("pidfd_open", err))
		return all &^ (pidfds | infos)
	}
	_ = unix.Close(fd)
	if err := probeInfo(); err != nil {
		w.log.Debug("a pidfd tells no exit status", "err", err)
		return all &^ infos
	}
	return all
}

// openConnector opens the connector where nothing better is to be had: it wakes us for
// every death of the machine.
func (w *Watcher) openConnector() {
	if w.ways&infos != 0 || w.ways&connectors == 0 {
		return
	}
	c, err := openConnector()
	if err == nil {
		if err = w.arm(connectorKey, c.fd, unix.EPOLLIN); err != nil {
			c.close()
		}
	}
	if err != nil {
		w.log.Debug("the proc connector tells no exit status", "err", err)
		return
	}
	w.events = c
}

// arm has the epoll descriptor watch another.
func (w *Watcher) arm(key, fd int, events uint32) error {
	var failed error
	err := w.waiting.Control(func(epoll uintptr) {
		e := unix.EpollEvent{Events: events, Fd: int32(key)}
		failed = unix.EpollCtl(int(epoll), unix.EPOLL_CTL_ADD, fd, &e)
	})
	return cmp.Or(err, os.NewSyscallError("epoll_ctl", failed))
}

// Deaths returns where the end of each process arrives once, with its status where that
// is to be had. They are held for as long as nobody receives them. Close closes it, and
// drops those that were not received.
//
// A process whose parent does not wait for it may have ended long before, where its status
// is known only then; its state in /proc is that of a zombie meanwhile.
func (w *Watcher) Deaths() <-chan Death { return w.deaths }

// Add watches a process until its death is told. One that has ended, but that nobody
// has waited for, is as good as another. The error wraps [fs.ErrNotExist] where it
// is not there any more, or another has its id, and [os.ErrClosed] after Close.
func (w *Watcher) Add(of Process) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return fmt.Errorf("watch process %d: %w", of.PID, os.ErrClosed)
	}
	old := w.watched[of.PID]
	if old != nil && old.Process == of {
		return nil
	}
	p, err := w.open(of)
	if err != nil {
		return fmt.Errorf("watch process %d: %w", of.PID, err)
	}
	if old != nil { // its id is another's, so it has ended, and its parent has waited
		w.look(old, true)
	}
	w.watched[of.PID] = p
	if p.hidden {
		w.hidden++
	}
	w.attend(p)
	return nil
}

// attend sees to it that the end of p is noticed.
func (w *Watcher) attend(p *process) {
	if p.pidfd >= 0 {
		err := w.arm(p.PID, p.pidfd, unix.EPOLLIN|unix.EPOLLET)
		if err == nil {
			return
		}
		w.log.Warn("a process is looked at again and again", "pid", p.PID, "err", err)
		w.full = true
	}
	w.again(p)
}

// again has p looked at again soon.
func (w *Watcher) again(p *process) {
	if len(w.slow) == 0 {
		_ = w.wake.SetReadDeadline(time.Now().Add(w.poll))
	}
	w.slow[p.PID] = p
}

// Remove ends the watch of a process. Its death may arrive yet if it has ended before.
func (w *Watcher) Remove(of Process) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if p := w.watched[of.PID]; p != nil && p.Process == of {
		w.forget(p)
	}
}

func (w *Watcher) forget(p *process) {
	delete(w.watched, p.PID)
	delete(w.slow, p.PID)
	if p.hidden {
		w.hidden--
	}
	p.close()
}

// Feature tells how statuses are found. It changes with the processes that are watched,
// and with what their deaths teach.
func (w *Watcher) Feature() Feature {
	w.mu.Lock()
	defer w.mu.Unlock()
	f := Feature{}
	switch {
	case w.ways&infos != 0:
		f.How = "pidfd"
	case w.events != nil:
		f.How = "connector"
		if w.lost != 0 {
			f.Reason = "the proc connector has lost messages"
		}
	case w.ways&zombies != 0:
		f.How = "zombie"
		if w.hidden > 0 || w.hid {
			f.Reason = "needs Linux 6.15, or the right to trace the workers"
		}
	default:
		f.Reason = "needs Linux 6.15"
	}
	switch {
	case f.Reason != "":
	case w.ways&pidfds == 0:
		f.Reason = "processes have to be polled, and their status may be gone by then"
	case w.full:
		f.Reason = "no descriptors are left: processes have to be polled"
	}
	return f
}

// Close ends the watch of all processes and returns when all is closed. It may be called
// again.
func (w *Watcher) Close() error {
	w.mu.Lock()
	closed := w.closed
	w.closed = true
	w.mu.Unlock()
	if closed {
		w.done.Wait()
		return nil
	}
	err := w.wake.Close()
	w.done.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range w.watched {
		w.forget(p)
	}
	if w.events != nil {
		w.events.close()
		w.events = nil
	}
	return err
}

// hold passes deaths on, and holds what is not received yet.
func (w *Watcher) hold() {
	defer close(w.deaths)
	var held []Death
	for {
		var first Death
		var out chan Death // nil, which takes nothing, while there is none
		if len(held) > 0 {
			first, out = held[0], w.deaths
		}
		select {
		case d, open := <-w.told:
			if !open {
				return
			}
			held = append(held, d)
		case out <- first:
			if held = held[1:]; len(held) == 0 {
				held = nil // gives back what a burst has taken
			}
		}
	}
}

// wait is the goroutine that the kernel wakes.
func (w *Watcher) wait() {
	defer close(w.told)
	events := make([]unix.EpollEvent, 128)
	for {
		n, err := w.next(events)
		w.mu.Lock()
		if w.closed {
			w.mu.Unlock()
			return
		}
		for _, e := range events[:n] {
			w.handle(int(e.Fd))
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			w.tick()
		}
		w.mu.Unlock()
	}
}

// next waits for events, or for the time to look at what has to be looked at again.
func (w *Watcher) next(events []unix.EpollEvent) (n int, err error) {
	var failed error
	err = w.waiting.Read(func(epoll uintptr) bool {
		n, failed = unix.EpollWait(int(epoll), events, 0)
		return n != 0
	})
	if err = cmp.Or(err, failed); err != nil {
		n = 0
	}
	return n, err
}

func (w *Watcher) handle(key int) {
	if key == connectorKey {
		w.receive()
	} else if p := w.watched[key]; p != nil { // an event may be that of one that had the id before
		w.look(p, false)
	}
}

func (w *Watcher) tick() {
	for _, p := range w.slow {
		w.upgrade(p)
		w.look(p, false)
	}
	next := time.Time{}
	if len(w.slow) > 0 {
		next = time.Now().Add(w.poll)
	} else {
		w.full = false
	}
	_ = w.wake.SetReadDeadline(next)
}

// patience bounds the wait for a message of the connector, which the dying process sends
// after we have been woken, and may have been lost.
const patience = time.Second

// look tells the death of p if it has ended, as soon as all is known, or if no more will
// be. At last it is told anyway.
func (w *Watcher) look(p *process, last bool) {
	ended, reaped := p.ended(w.proc)
	if !ended && !last {
		return
	}
	now := time.Now()
	if p.at.IsZero() {
		p.at = now
	}
	if !reaped && p.stat == nil {
		p.readZombie(w.proc, w.ways&zombies != 0)
	}
	switch {
	case p.known:
	case w.ways&infos != 0 && p.pidfd >= 0:
		if !reaped && !last {
			return // it is told once its parent has waited
		}
		p.askInfo()
	case w.events != nil && !last && now.Sub(p.at) < patience:
		w.again(p)
		return
	}
	w.tell(p)
}

func (w *Watcher) tell(p *process) {
	w.forget(p)
	w.hid = !p.known && p.stat != nil
	w.told <- Death{Process: p.Process, At: p.at, Status: p.status, Known: p.known, Stat: p.stat}
}

// receive reads what the connector has.
func (w *Watcher) receive() {
	for w.events != nil {
		e, err := w.events.receive()
		switch {
		case err == nil:
			w.exited(e)
		case errors.Is(err, unix.EAGAIN):
			return
		case errors.Is(err, unix.ENOBUFS):
			w.lost = monotonic()
			w.log.Warn("the proc connector has lost messages: exit statuses may be unknown")
		case errors.Is(err, errForeign), errors.Is(err, unix.EINTR):
		default:
			w.log.Warn("the proc connector has failed", "err", err)
			w.events.close()
			w.events = nil
		}
	}
}

// exited takes what the connector tells of a death. It may be that of the first thread
// of a process that lives on, or of a process that had the id before.
func (w *Watcher) exited(e exit) {
	p := w.watched[e.pid]
	if p == nil || e.at < p.added {
		return
	}
	if ended, _ := p.ended(w.proc); !ended {
		return
	}
	if e.at > w.lost {
		w.lost = 0
	}
	p.learn(e.status)
	w.look(p, false)
}

// monotonic returns the time by CLOCK_MONOTONIC, in ns, as the kernel's messages have it.
func monotonic() int64 {
	var now unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &now) // it cannot fail
	return now.Nano()
}

// gone reports whether err says that a process is not there.
func gone(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) }
