package writer

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// allocate gives the file its space from one offset to another, holes included.
func allocate(fd *os.File, from, to int) error {
	for {
		err := unix.Fallocate(int(fd.Fd()), 0, int64(from), int64(to-from))
		switch {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EOPNOTSUPP):
			return fill(fd, from, to)
		default:
			return err
		}
	}
}
