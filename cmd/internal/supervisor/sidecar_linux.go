package supervisor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Sidecar keeps one process running that is told every report: each is a packet
// with a JSON object, over a socket that it inherits. It may crash, hang or say what
// it likes: nobody waits for it, and one that is new gets the newest report.
type Sidecar struct {
	// Launch starts it, with its end of the socket.
	Launch  func(socket *os.File) (Process, error)
	Backoff Backoff
	// StopTimeout is how long it may take to end before it is killed.
	StopTimeout time.Duration
	// Before are processes that have to end before the first one starts.
	Before []Process
	Logger *slog.Logger

	mu     sync.Mutex
	newest []byte        // the last report
	over   bool          // which says that nothing more will happen
	conn   *net.UnixConn // to the present process; nil: there is none
}

// Take sends a report. It does not block.
func (s *Sidecar) Take(r Report) {
	b, err := json.Marshal(r)
	if err != nil {
		s.Logger.Error("a report cannot be told", "err", err)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.newest, s.over = b, r.Over
	s.send()
}

// send sends the newest report, if there is room: else one of the next will do.
func (s *Sidecar) send() {
	if s.conn == nil || s.newest == nil {
		return
	}
	raw, err := s.conn.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Write(func(fd uintptr) bool {
		err := unix.Sendmsg(int(fd), s.newest, nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		if errors.Is(err, unix.EMSGSIZE) {
			s.Logger.Error("a report is larger than the kernel takes: raise net.core.wmem_max", "bytes", len(s.newest))
		}
		return true
	})
}

// resendEvery is how long a report may be missing that found no room.
const resendEvery = 5 * time.Second

// Run keeps the process running until ctx is done, and then has it end; or until it has
// ended well by itself when nothing more will happen.
func (s *Sidecar) Run(ctx context.Context) {
	for _, p := range s.Before {
		over, cancel := context.WithCancel(ctx)
		cancel()
		s.attend(over, p)
	}
	failures := 0
	for ctx.Err() == nil {
		began := time.Now()
		status, err := s.runOnce(ctx)
		if ctx.Err() != nil || err == nil && status == (Status{}) && s.isOver() {
			return
		}
		if time.Since(began) >= s.Backoff.GoodRun {
			failures = 0
		}
		failures++
		wait := s.Backoff.wait(failures)
		s.Logger.Error("the sidecar has ended", "status", status, "err", err, "restart_in", wait)
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
}

func (s *Sidecar) isOver() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.over
}

// runOnce starts the process and returns how it has ended.
func (s *Sidecar) runOnce(ctx context.Context) (Status, error) {
	ours, theirs, err := socketPair()
	if err != nil {
		return Status{}, err
	}
	p, err := s.Launch(theirs)
	if err := errors.Join(err, theirs.Close()); err != nil {
		return Status{}, errors.Join(err, ours.Close())
	}
	s.connect(ours)
	defer s.connect(nil)
	return s.attend(ctx, p), nil
}

// attend waits until a process has ended, which it has to when ctx is done, and returns how.
func (s *Sidecar) attend(ctx context.Context, p Process) Status {
	defer p.Reap()
	ended := make(chan Status, 1)
	go func() { ended <- p.Wait() }()
	resend := time.NewTicker(resendEvery)
	defer resend.Stop()
	var overdue <-chan time.Time
	stop := ctx.Done()
	for {
		select {
		case status := <-ended:
			return status
		case <-stop:
			p.Signal(syscall.SIGTERM)
			stop, overdue = nil, time.After(s.StopTimeout)
		case <-overdue:
			p.Signal(syscall.SIGKILL)
		case <-resend.C:
			s.mu.Lock()
			s.send()
			s.mu.Unlock()
		}
	}
}

// connect takes another socket for the one before.
func (s *Sidecar) connect(conn *net.UnixConn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn != nil {
		_ = s.conn.Close()
	}
	s.conn = conn
	s.send()
}

// socketPair returns two ends of a socket for packets.
func socketPair() (ours *net.UnixConn, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make a socket for the sidecar: %w", err)
	}
	const room = 4 << 20 // of the kernel's, which may grant less
	_ = unix.SetsockoptInt(fds[0], unix.SOL_SOCKET, unix.SO_SNDBUF, room)
	theirs = os.NewFile(uintptr(fds[1]), "supervisor")
	f := os.NewFile(uintptr(fds[0]), "sidecar")
	defer func() { _ = f.Close() }()
	conn, err := net.FileConn(f) // a copy
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("make a socket for the sidecar: %w", err), theirs.Close())
	}
	return conn.(*net.UnixConn), theirs, nil
}
