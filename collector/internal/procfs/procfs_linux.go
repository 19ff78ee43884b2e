package procfs

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

const errNoProcess = unix.ESRCH

// Boot returns when the machine was started, by the present wall clock.
func Boot() (time.Time, error) {
	var since unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &since); err != nil {
		return time.Time{}, fmt.Errorf("read the machine's age: %w", err)
	}
	return time.Now().Add(-time.Duration(since.Nano())), nil
}
