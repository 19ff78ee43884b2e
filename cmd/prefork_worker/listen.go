package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// listen returns the sockets that the parent hands over, else those of the addresses.
func listen(addresses []string) ([]net.Listener, error) {
	if all, err := inherited(); err != nil || len(all) > 0 {
		return all, err
	}
	var all []net.Listener
	for _, address := range addresses {
		l, err := listenOn(address)
		if err != nil {
			return nil, errors.Join(err, closeAll(all))
		}
		all = append(all, l)
	}
	return all, nil
}

func listenOn(address string) (net.Listener, error) {
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		return net.Listen("unix", path)
	}
	return net.Listen("tcp", address)
}

func closeAll(listeners []net.Listener) (err error) {
	for _, l := range listeners {
		err = errors.Join(err, l.Close())
	}
	return err
}

// firstInherited and maxInherited are the descriptors of sd_listen_fds(3).
const firstInherited, maxInherited = 3, 64

// inherited returns the sockets of LISTEN_FDS, if they are for this process. It must
// be called before anything is opened: what is not there is an error.
func inherited() ([]net.Listener, error) {
	count, pid := os.Getenv("LISTEN_FDS"), os.Getenv("LISTEN_PID")
	if count == "" || pid != strconv.Itoa(os.Getpid()) {
		return nil, nil
	}
	n, err := strconv.Atoi(count)
	if err != nil || n < 0 || n > maxInherited {
		return nil, fmt.Errorf("take over the parent's sockets: LISTEN_FDS is %q: want a number from 0 to %d", count, maxInherited)
	}
	var all []net.Listener
	for fd := firstInherited; fd < firstInherited+n; fd++ {
		if listens, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN); err != nil || listens == 0 {
			return nil, fmt.Errorf("take over the parent's sockets: descriptor %d is no socket that listens (LISTEN_FDS is %s)", fd, count)
		}
		unix.CloseOnExec(fd)
		f := os.NewFile(uintptr(fd), "LISTEN_FD_"+strconv.Itoa(fd))
		l, err := net.FileListener(f) // a copy of its own
		if err := errors.Join(err, f.Close()); err != nil {
			return nil, fmt.Errorf("take over the parent's sockets: descriptor %d: %w", fd, err)
		}
		if u, ok := l.(*net.UnixListener); ok {
			u.SetUnlinkOnClose(false) // the path is the parent's
		}
		all = append(all, l)
	}
	return all, nil
}
