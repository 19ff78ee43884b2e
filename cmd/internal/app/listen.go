package app

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"golang.org/x/sys/unix"
)

// Addrs returns where the sidecar listens, in the order of Options.Listen. It
// is for use between a start and a stop.
func (a *App) Addrs() []net.Addr {
	var all []net.Addr
	for _, l := range a.listeners {
		all = append(all, l.Addr())
	}
	return all
}

// listen opens all listeners or none.
func (a *App) listen(ctx context.Context) (func(context.Context) error, error) {
	if a.o.SystemdSocket {
		passed, err := systemdListeners()
		a.listeners = passed
		return a.closeListeners, err
	}
	for _, address := range a.o.Listen {
		l, err := listenOn(ctx, address)
		if err != nil {
			return nil, errors.Join(listenError(address, err), a.closeListeners(ctx))
		}
		a.listeners = append(a.listeners, l)
	}
	return a.closeListeners, nil
}

// closeListeners closes those that no server has closed yet.
func (a *App) closeListeners(context.Context) error {
	var errs []error
	for _, l := range a.listeners {
		if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	a.listeners = nil
	return errors.Join(errs...)
}

// systemdListeners takes the stream sockets that a socket unit passes.
func systemdListeners() ([]net.Listener, error) {
	passed, err := activation.Listeners()
	if err != nil {
		return nil, fmt.Errorf("take systemd's sockets: %w", err)
	}
	var streams []net.Listener
	for _, l := range passed {
		if l != nil { // others are not for HTTP
			streams = append(streams, l)
		}
	}
	if len(streams) == 0 {
		return nil, errors.New("take systemd's sockets: none was passed: " +
			"start by a socket unit, or leave --web.systemd-socket out")
	}
	return streams, nil
}

func listenOn(ctx context.Context, address string) (net.Listener, error) {
	if file, ok := strings.CutPrefix(address, unixPrefix); ok {
		return listenUnix(ctx, file)
	}
	var c net.ListenConfig
	return c.Listen(ctx, "tcp", address)
}

// listenError keeps what the operator needs of a network error, and adds what
// can be done.
func listenError(address string, err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		err = op.Err
	}
	var number syscall.Errno
	if !errors.As(err, &number) {
		return fmt.Errorf("listen on %s: %w", address, err)
	}
	hint := map[syscall.Errno]string{
		syscall.EADDRINUSE:    ": stop the other program or choose another --web.listen-address",
		syscall.EADDRNOTAVAIL: ": want an address of this machine",
		syscall.EACCES:        ": choose a --web.listen-address that this user may have",
		syscall.ENOENT:        ": want a directory that exists",
	}[number]
	return fmt.Errorf("listen on %s: %w%s", address, number, hint)
}

// socketMode lets the owner and the group connect, and nobody else.
const socketMode = 0o660

// listenUnix takes the place of a socket whose owner is dead.
func listenUnix(ctx context.Context, file string) (net.Listener, error) {
	if err := removeStale(ctx, file); err != nil {
		return nil, err
	}
	c := net.ListenConfig{Control: narrow}
	l, err := c.Listen(ctx, "unix", file)
	if err != nil {
		return nil, err
	}
	s := &socketFile{UnixListener: l.(*net.UnixListener), name: file}
	s.SetUnlinkOnClose(false)
	if err := s.claim(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// narrow sets the mode before the file is there, where the system does that:
// it must not be wide open for a moment.
func narrow(_, _ string, c syscall.RawConn) error {
	return c.Control(func(fd uintptr) { _ = unix.Fchmod(int(fd), socketMode) })
}

// removeStale removes a socket that nobody listens on. Everything else that is
// there is an error.
func removeStale(ctx context.Context, file string) error {
	info, err := os.Lstat(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().Type() != fs.ModeSocket {
		return errors.New("a file that is no socket is there: remove it or choose another --web.listen-address")
	}
	dialer := net.Dialer{Timeout: time.Second}
	conn, err := dialer.DialContext(ctx, "unix", file)
	switch {
	case err == nil:
		_ = conn.Close()
		return syscall.EADDRINUSE
	case errors.Is(err, syscall.ECONNREFUSED):
		return os.Remove(file)
	case errors.Is(err, syscall.EAGAIN), errors.Is(err, os.ErrDeadlineExceeded): // its queue is full
		return syscall.EADDRINUSE
	}
	return err
}

// socketFile is a listener that removes its file when it closes, unless the
// file is another's by then.
type socketFile struct {
	*net.UnixListener
	name string
	info fs.FileInfo
	once sync.Once
}

// claim makes the mode exact, which the umask has narrowed, and remembers
// which file is ours.
func (s *socketFile) claim() error {
	if err := os.Chmod(s.name, socketMode); err != nil {
		return err
	}
	info, err := os.Lstat(s.name)
	s.info = info
	return err
}

// Close implements [net.Listener].
func (s *socketFile) Close() error {
	s.once.Do(func() {
		if now, err := os.Lstat(s.name); err == nil && os.SameFile(now, s.info) {
			_ = os.Remove(s.name)
		}
	})
	return s.UnixListener.Close()
}
