//go:build !linux

package procfs

import (
	"errors"
	"time"

	"golang.org/x/sys/unix"
)

const errNoProcess = unix.ESRCH

// Boot returns when the machine was started: here it is not known.
func Boot() (time.Time, error) { return time.Time{}, errors.ErrUnsupported }
