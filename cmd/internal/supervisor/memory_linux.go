package supervisor

import (
	"context"
	"debug/elf"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// staySmall keeps a master's memory small until ctx is done: its heap is so small that to
// collect it often costs nothing, and what births have taken, of which it is told, is
// given back some time later.
func staySmall(ctx context.Context, births <-chan struct{}) {
	const percent, sometime = 25, 500 * time.Millisecond
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(percent)
	}
	if !atFixedAddresses() {
		return
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-births:
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(sometime):
		}
		forgetProgram()
	}
}

// ForgetProgram gives back the pages of this program's file that are mapped, where that can
// be done: those that are needed again come from the page cache.
func ForgetProgram() {
	if atFixedAddresses() {
		forgetProgram()
	}
}

// forgetProgram gives back the pages of this program's file that are mapped and were
// needed to start: most of a master's memory. Those that are needed again come from the
// page cache. It may do nothing.
func forgetProgram() {
	self, err := os.Executable()
	if err != nil {
		return
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return
	}
	for line := range strings.Lines(string(maps)) {
		from, to, ok := unwritten(line, self)
		if ok {
			_, _, _ = unix.Syscall(unix.SYS_MADVISE, from, to-from, unix.MADV_DONTNEED)
		}
	}
}

// atFixedAddresses says whether this program was linked so. Of one that was not, pages
// that are only read have been written when it was started.
func atFixedAddresses() bool {
	f, err := elf.Open(ourself)
	if err != nil {
		return false
	}
	defer func() { _ = f.Close() }()
	return f.Type == elf.ET_EXEC
}

// unwritten returns the addresses of a line of proc_pid_maps(5), if it maps the file so
// that nobody can have written there.
func unwritten(line, file string) (from, to uintptr, ok bool) {
	fields := strings.Fields(line)
	if len(fields) != 6 || fields[5] != file || !strings.HasPrefix(fields[1], "r-") {
		return 0, 0, false
	}
	first, last, _ := strings.Cut(fields[0], "-")
	a, errA := strconv.ParseUint(first, 16, strconv.IntSize)
	b, errB := strconv.ParseUint(last, 16, strconv.IntSize)
	if errA != nil || errB != nil || b <= a {
		return 0, 0, false
	}
	return uintptr(a), uintptr(b), true
}
