//go:build unix && !linux

package writer

import "os"

func allocate(fd *os.File, from, to int) error { return fill(fd, from, to) }
