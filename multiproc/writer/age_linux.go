package writer

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// born returns when the file at path was made. A file system that does not tell
// leaves it to the last change of the inode, which is no earlier.
func born(path string) (time.Time, error) {
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW, unix.STATX_BTIME|unix.STATX_CTIME, &st); err != nil {
		return time.Time{}, &os.PathError{Op: "statx", Path: path, Err: err}
	}
	at := st.Ctime
	if st.Mask&unix.STATX_BTIME != 0 {
		at = st.Btime
	}
	return time.Unix(at.Sec, int64(at.Nsec)), nil
}

// startTime returns when this process began, at most a clock tick too early.
func startTime() (time.Time, error) {
	stat, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		return time.Time{}, fmt.Errorf("find out when this process began: %w", err)
	}
	// Field 22 of proc_pid_stat(5), counted from behind the name, which may have anything in it.
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	const start, ticksPerSecond = 22 - 3, 100
	if len(fields) <= start {
		return time.Time{}, fmt.Errorf("find out when this process began: /proc/self/stat has %d fields", len(fields))
	}
	ticks, err := strconv.ParseInt(string(fields[start]), 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("find out when this process began: %w", err)
	}
	var since unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &since); err != nil {
		return time.Time{}, fmt.Errorf("find out when this process began: %w", err)
	}
	up := time.Duration(since.Nano()) - time.Duration(ticks)*time.Second/ticksPerSecond
	return time.Now().Add(-up), nil
}
