package gunicorn

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/prefork-exporter/prefork_exporter/collector/internal/procfs"
	"golang.org/x/sys/unix"
)

// mostFiles is how many descriptors of a process are looked at: gunicorn opens its
// heartbeat files before there are connections, so they have low numbers.
const mostFiles = 4096

// Heartbeat is a worker's heartbeat file. It is kept open, without access to what is in it,
// and so outlives the worker. Its methods are safe for concurrent use.
type Heartbeat struct {
	file   *os.File
	offset time.Duration // of the worker's monotonic clock to ours
}

// OpenHeartbeat finds the heartbeat file of a worker. Its error wraps [fs.ErrPermission] if
// the descriptors of the worker or of its master may not be read, as with a worker that has
// changed its user; [fs.ErrNotExist] if one of them has ended; or else [ErrNoHeartbeat] or
// [ErrUnsettled]. The caller closes what it gets.
//
// A master has the files of all its workers. A worker inherits those of its elder siblings
// and closes them at once; what the master forks for another purpose keeps them. So the
// only one that a worker has is its own, unless it is that of an elder child of the master.
func OpenHeartbeat(proc procfs.FS, master, worker int) (*Heartbeat, error) {
	file, err := openOwn(proc, master, worker)
	if err != nil {
		return nil, fmt.Errorf("find the heartbeat of process %d: %w", worker, err)
	}
	return &Heartbeat{file, clockOffset(proc, worker)}, nil
}

func openOwn(proc procfs.FS, master, worker int) (*os.File, error) {
	files, err := heartbeatFiles(proc, worker)
	if err != nil {
		return nil, err
	}
	masters, err := heartbeatFiles(proc, master)
	if err != nil {
		return nil, err
	}
	maps.DeleteFunc(files, func(id fileID, _ string) bool { return masters[id] == "" })
	if len(files) > 1 {
		return nil, ErrUnsettled
	}
	elders, err := elderSiblings(proc, master, worker)
	if err != nil {
		return nil, err
	}
	for id, name := range files {
		if isOwnOfAny(proc, elders, id) {
			return nil, ErrNoHeartbeat
		}
		return id.open(name)
	}
	return nil, ErrNoHeartbeat
}

// isOwnOfAny says whether one of the processes has this heartbeat file and no other. Those
// that have ended have none, and what may not be read is none of this worker's.
func isOwnOfAny(proc procfs.FS, pids []int, id fileID) bool {
	return slices.ContainsFunc(pids, func(pid int) bool {
		files, err := heartbeatFiles(proc, pid)
		return err == nil && len(files) == 1 && files[id] != ""
	})
}

// fileID is what tells a file from all others while it is open somewhere.
type fileID struct{ device, inode uint64 }

func idOf(info fs.FileInfo) fileID {
	s := info.Sys().(*syscall.Stat_t)
	return fileID{uint64(s.Dev), s.Ino}
}

// open opens the file by the name of a descriptor, which may have become that of another
// file.
func (id fileID) open(name string) (*os.File, error) {
	f, err := os.OpenFile(name, unix.O_PATH, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil || idOf(info) != id || !info.Mode().IsRegular() {
		_ = f.Close()
		return nil, ErrNoHeartbeat
	}
	return f, nil
}

// heartbeatFiles returns the heartbeat files that a process has open, with the names of
// their descriptors.
func heartbeatFiles(proc procfs.FS, pid int) (map[fileID]string, error) {
	dir := proc.Path(pid, "fd")
	d, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("read the descriptors of process %d: %w", pid, err)
	}
	defer func() { _ = d.Close() }()
	numbers, err := d.Readdirnames(mostFiles)
	if err != nil && !errors.Is(err, io.EOF) { // that one has none
		return nil, fmt.Errorf("read the descriptors of process %d: %w", pid, fs.ErrNotExist)
	}
	files := map[fileID]string{}
	for _, number := range numbers {
		name := filepath.Join(dir, number)
		target, err := os.Readlink(name)
		if err != nil || !isHeartbeat(target) {
			continue
		}
		if info, err := os.Stat(name); err == nil {
			files[idOf(info)] = name
		}
	}
	return files, nil
}

// isHeartbeat tells the name of a heartbeat file, which gunicorn deletes as soon as it is made.
func isHeartbeat(target string) bool {
	return strings.HasPrefix(filepath.Base(target), "wgunicorn-") && strings.HasSuffix(target, " (deleted)")
}

// elderSiblings returns the children of the master that were born before the worker.
func elderSiblings(proc procfs.FS, master, worker int) ([]int, error) {
	children, err := proc.Children(master)
	if errors.Is(err, fs.ErrNotExist) {
		children, err = childrenByStart(proc, master)
	}
	if err != nil {
		return nil, err
	}
	i := slices.Index(children, worker)
	if i < 0 {
		return nil, fmt.Errorf("no child of process %d: %w", master, ErrNoHeartbeat)
	}
	return children[:i], nil
}

// childrenByStart is for kernels that do not tell the children of a process.
func childrenByStart(proc procfs.FS, master int) (children []int, err error) {
	pids, err := proc.PIDs()
	if err != nil {
		return nil, err
	}
	var stats []procfs.Stat
	for _, pid := range pids {
		if s, err := proc.Stat(pid); err == nil && s.Parent == master {
			stats = append(stats, s)
		}
	}
	slices.SortFunc(stats, func(a, b procfs.Stat) int {
		return cmp.Or(cmp.Compare(a.Start, b.Start), cmp.Compare(a.PID, b.PID))
	})
	for _, s := range stats {
		children = append(children, s.PID)
	}
	return children, nil
}

// LastSign returns when the worker has last given a sign of life, by the present wall clock
// (gunicorn 22.0 and later) or by that of then. It is not known while the worker boots, and
// after Close.
func (h *Heartbeat) LastSign() (time.Time, bool) {
	info, err := h.file.Stat()
	if err != nil {
		return time.Time{}, false
	}
	s := info.Sys().(*syscall.Stat_t)
	t := touched{modified: time.Unix(s.Mtim.Unix()), changed: time.Unix(s.Ctim.Unix()), mode: info.Mode()}
	var monotonic unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &monotonic); err != nil {
		return time.Time{}, false
	}
	return t.lastSign(time.Now(), time.Duration(monotonic.Nano())+h.offset)
}

// Close lets the file go. It may be called more than once.
func (h *Heartbeat) Close() error {
	if err := h.file.Close(); !errors.Is(err, fs.ErrClosed) {
		return err
	}
	return nil
}

// clockOffset returns what a process's monotonic clock is ahead of ours: they may be in
// different time namespaces (time_namespaces(7)). Kernels before 5.6 have none.
func clockOffset(proc procfs.FS, pid int) time.Duration {
	theirs, err := os.ReadFile(proc.Path(pid, "timens_offsets"))
	if err != nil {
		return 0
	}
	ours, err := os.ReadFile("/proc/self/timens_offsets")
	if err != nil {
		return 0
	}
	return parseOffset(theirs) - parseOffset(ours)
}

// parseOffset reads the line of the monotonic clock: seconds, and nanoseconds.
func parseOffset(b []byte) time.Duration {
	for line := range bytes.Lines(b) {
		var seconds, nanoseconds int64
		if n, _ := fmt.Sscanf(string(line), "monotonic %d %d", &seconds, &nanoseconds); n == 2 {
			return time.Duration(seconds)*time.Second + time.Duration(nanoseconds)
		}
	}
	return 0
}
