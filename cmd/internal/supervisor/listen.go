package supervisor

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Sockets are what workers listen on, all of them on each.
type Sockets struct {
	Files []*os.File
	Names []string // what they are called: their addresses, as far as sd_listen_fds(3) allows

	paths []string // of unix sockets, which end with us
}

// Listen opens sockets at addresses: HOST:PORT or unix:/PATH. A path that a dead
// server has left is taken over.
func Listen(addresses []string) (_ *Sockets, err error) {
	s := &Sockets{}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	for _, address := range addresses {
		f, err := s.open(address)
		if err != nil {
			return nil, fmt.Errorf("--listen %s: %w", address, err)
		}
		s.Files = append(s.Files, f)
		s.Names = append(s.Names, strings.ReplaceAll(address, ":", "-"))
	}
	return s, nil
}

func (s *Sockets) open(address string) (*os.File, error) {
	path, isPath := strings.CutPrefix(address, "unix:")
	if isPath && path == "" {
		return nil, errors.New("want unix: and a path")
	}
	if !isPath {
		l, err := net.Listen("tcp", address)
		if err != nil {
			return nil, err
		}
		defer func() { _ = l.Close() }()
		return inheritable(l.(*net.TCPListener).File())
	}
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
	s.paths = append(s.paths, path)
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
	for _, f := range s.Files {
		err = errors.Join(err, f.Close())
	}
	for _, path := range s.paths {
		if e := os.Remove(path); !errors.Is(e, fs.ErrNotExist) {
			err = errors.Join(err, e)
		}
	}
	return err
}
