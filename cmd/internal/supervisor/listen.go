package supervisor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Sockets are what workers listen on. They have one owner at a time.
type Sockets struct {
	all       []*socket
	reusePort bool
}

// socket is one address that workers listen on.
type socket struct {
	place
	files map[int]*os.File // by slot, or that of everySlot
}

// place is where a socket is.
type place struct {
	Address string `json:"address,omitempty"` // as it was asked for; empty: somebody has opened it for us
	Bound   string `json:"bound,omitempty"`   // where it is by now; empty: nowhere yet
	Name    string `json:"name"`              // what it is called: by default its address, as far as sd_listen_fds(3) allows
	Path    string `json:"path,omitempty"`    // of a unix socket that ends with us; empty: none
}

// everySlot stands for all slots that share a socket.
const everySlot = -1

// Listen opens sockets at addresses: HOST:PORT or unix:/PATH. A path that a dead
// server has left is taken over. With reusePort, each slot has a TCP socket of its
// own, with a queue of its own.
func Listen(addresses []string, reusePort bool) (_ *Sockets, err error) {
	s := &Sockets{reusePort: reusePort}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	for _, address := range addresses {
		one := &socket{place{Address: address, Name: strings.ReplaceAll(address, ":", "-")}, map[int]*os.File{}}
		s.all = append(s.all, one)
		if _, err := s.open(one, 0); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// Add takes over a socket that somebody has opened for us. All slots share it.
func (s *Sockets) Add(f *os.File, name string) {
	s.all = append(s.all, &socket{place{Name: name}, map[int]*os.File{everySlot: f}})
}

// For returns what the worker of a slot inherits, and how it is called.
func (s *Sockets) For(slot int) (files []*os.File, names []string, err error) {
	for _, one := range s.all {
		f, err := s.open(one, slot)
		if err != nil {
			return nil, nil, err
		}
		files, names = append(files, f), append(names, one.Name)
	}
	return files, names, nil
}

// Keep closes the sockets of slots from n on: else the kernel would go on to give them
// connections.
func (s *Sockets) Keep(n int) {
	for _, one := range s.all {
		for slot, f := range one.files {
			if slot >= n {
				_ = f.Close()
				delete(one.files, slot)
			}
		}
	}
}

// open returns the socket of a slot, which it opens if it has to.
func (s *Sockets) open(one *socket, slot int) (*os.File, error) {
	if f := one.files[everySlot]; f != nil {
		return f, nil
	}
	if f := one.files[slot]; f != nil {
		return f, nil
	}
	f, err := s.listen(one)
	if err != nil {
		return nil, fmt.Errorf("--listen %s: %w", one.Address, err)
	}
	if !s.reusePort || one.Path != "" {
		slot = everySlot
	}
	one.files[slot] = f
	return f, nil
}

// CheckAddress returns what is wrong with an address as such.
func CheckAddress(address string) error {
	path, isPath := strings.CutPrefix(address, "unix:")
	if isPath && path == "" {
		return errors.New("want unix: and a path")
	}
	if isPath {
		return nil
	}
	if _, _, err := net.SplitHostPort(address); err != nil {
		return fmt.Errorf("want HOST:PORT or unix:/PATH: %w", err)
	}
	return nil
}

func (s *Sockets) listen(one *socket) (*os.File, error) {
	if err := CheckAddress(one.Address); err != nil {
		return nil, err
	}
	if path, isPath := strings.CutPrefix(one.Address, "unix:"); isPath {
		return one.listenUnix(path)
	}
	config := net.ListenConfig{}
	if s.reusePort {
		config.Control = reusePort
	}
	l, err := config.Listen(context.Background(), "tcp", cmp.Or(one.Bound, one.Address))
	if err != nil {
		return nil, err
	}
	defer func() { _ = l.Close() }()
	one.Bound = l.Addr().String() // the port may have been any
	return inheritable(l.(*net.TCPListener).File())
}

// reusePort lets several sockets listen on one port.
func reusePort(_, _ string, c syscall.RawConn) (err error) {
	controlErr := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) })
	return errors.Join(controlErr, err)
}

func (one *socket) listenUnix(path string) (*os.File, error) {
	if err := removeStale(path); err != nil {
		return nil, err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	u := l.(*net.UnixListener)
	u.SetUnlinkOnClose(false)
	defer func() { _ = u.Close() }()
	one.Path = path
	return inheritable(u.File())
}

// inheritable returns the file anew, as one of which nobody ever changes the mode again:
// each launch asks for its descriptor, and would make the socket blocking for all
// workers that have it.
func inheritable(f *os.File, err error) (*os.File, error) {
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

// removeStale removes a unix socket that nobody listens on.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return errors.New("there is a file that is no socket")
	}
	c, err := net.Dial("unix", path)
	if err == nil {
		return errors.Join(errors.New("a server listens there"), c.Close())
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return err
	}
	return os.Remove(path)
}

// Close closes the sockets, and removes their paths.
func (s *Sockets) Close() (err error) {
	for _, one := range s.all {
		for _, f := range one.files {
			err = errors.Join(err, f.Close())
		}
		if one.Path == "" {
			continue
		}
		if e := os.Remove(one.Path); !errors.Is(e, fs.ErrNotExist) {
			err = errors.Join(err, e)
		}
	}
	return err
}
