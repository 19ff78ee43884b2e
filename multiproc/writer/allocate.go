package writer

import (
	"errors"
	"io"
	"os"
)

// fill gives the file its space from one offset to another where the system has
// no call for that: it writes back what it reads, and zeros behind the end. That
// part must not be mapped yet.
func fill(fd *os.File, from, to int) error {
	b := make([]byte, to-from)
	if _, err := fd.ReadAt(b, int64(from)); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	_, err := fd.WriteAt(b, int64(from))
	return err
}
