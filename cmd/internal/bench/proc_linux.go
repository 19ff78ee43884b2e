package main

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// cpuTime returns the CPU time of all threads that pid has or had, in nanoseconds: the clock that
// clock_getcpuclockid(3) names. /proc/PID/stat counts whole ticks, and schedstat only threads that still live.
func cpuTime(pid int) (time.Duration, error) {
	const processClock = 2 // the kernel's CPUCLOCK_SCHED
	var t unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|processClock), &t); err != nil {
		return 0, fmt.Errorf("read the CPU clock of process %d: %w", pid, err)
	}
	return time.Duration(t.Nano()), nil
}

// describeFileSystem names the file system of dir.
func describeFileSystem(dir string) string {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return "file system unknown"
	}
	switch uint32(s.Type) {
	case unix.TMPFS_MAGIC:
		return "tmpfs"
	case unix.EXT4_SUPER_MAGIC:
		return "disk (ext4)"
	case unix.XFS_SUPER_MAGIC:
		return "disk (xfs)"
	case unix.BTRFS_SUPER_MAGIC:
		return "disk (btrfs)"
	case unix.OVERLAYFS_SUPER_MAGIC:
		return "disk (overlay)"
	default:
		return fmt.Sprintf("file system of type %#x", uint32(s.Type))
	}
}
