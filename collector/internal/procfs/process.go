package procfs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// Process is one process, held: whoever is given its id later, what is read is of this
// one or an error. It is for one goroutine at a time. Its errors are those of [FS].
//
// Its files are read with system calls of their own: an [os.File] is announced to the
// poller first, which takes longer than to read a file of the kernel's.
type Process struct {
	pid int
	dir int    // descriptor of its directory
	b   []byte // what was read last
}

// Open returns the process that has the id now. Close it.
func (f FS) Open(pid int) (*Process, error) {
	p := &Process{pid: pid, b: make([]byte, 0, 4<<10)}
	var err error
	if p.dir, err = openat(unix.AT_FDCWD, filepath.Join(f.root, strconv.Itoa(pid)), unix.O_DIRECTORY); err != nil {
		return nil, p.failed(err)
	}
	return p, nil
}

// Close lets go of the process.
func (p *Process) Close() error { return unix.Close(p.dir) }

func openat(dir int, name string, flags int) (int, error) {
	for {
		fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_CLOEXEC|flags, 0)
		if !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}

// read returns what a file has, until the next one is read.
func (p *Process) read(name string) (b []byte, err error) {
	p.b, err = readAt(p.dir, name, p.b[:0])
	return p.b, err
}

// readAt adds to b, which has some room, what a file has.
func readAt(dir int, name string, b []byte) ([]byte, error) {
	fd, err := openat(dir, name, 0)
	if err != nil {
		return b, err
	}
	defer func() { _ = unix.Close(fd) }()
	for {
		n, err := unix.Read(fd, b[len(b):cap(b)])
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return b, err
		case n == 0:
			return b, nil
		default:
			b = b[:len(b)+n]
		}
		if len(b) == cap(b) {
			b = slices.Grow(b, len(b))
		}
	}
}

// Stat reads its state.
func (p *Process) Stat() (Stat, error) { return parsed(p, "stat", ParseStat) }

// Status reads more of it.
func (p *Process) Status() (Status, error) { return parsed(p, "status", ParseStatus) }

// Memory reads what its memory consists of. That takes the kernel some 10 ms for each
// gigabyte, and holds up the process where it maps memory meanwhile. Who may not trace
// the process may not; [fs.ErrNotExist] on kernels before 4.14, too.
func (p *Process) Memory() (Memory, error) { return parsed(p, "smaps_rollup", ParseMemory) }

// Threads reads the status of each of its threads, by thread id. Of a process with more
// than most it is an error that says so.
func (p *Process) Threads(most int) (map[int]Status, error) {
	names, err := p.list("task", most+1)
	if err != nil {
		return nil, err
	}
	if len(names) > most {
		return nil, fmt.Errorf("read process %d: more than %d threads", p.pid, most)
	}
	threads := make(map[int]Status, len(names))
	for _, name := range names {
		id, err := strconv.Atoi(name)
		if err != nil {
			return nil, fmt.Errorf("read process %d: thread %q: want a number", p.pid, name)
		}
		s, err := parsed(p, path.Join("task", name, "status"), ParseStatus)
		if errors.Is(err, fs.ErrNotExist) {
			continue // it has ended
		}
		if err != nil {
			return nil, err
		}
		threads[id] = s
	}
	return threads, nil
}

// OpenFiles counts its descriptors. Since Linux 6.2 the size of the directory tells, to
// any user; before, they are counted, and who may not trace the process may not.
func (p *Process) OpenFiles() (int, error) {
	var info unix.Stat_t
	if err := unix.Fstatat(p.dir, "fd", &info, 0); err != nil {
		return 0, p.failed(err)
	}
	if info.Size > 0 {
		return int(info.Size), nil
	}
	names, err := p.list("fd", -1)
	return len(names), err
}

// list returns names in a directory of the process, so many at most or, if negative, all.
func (p *Process) list(name string, most int) ([]string, error) {
	fd, err := openat(p.dir, name, unix.O_DIRECTORY)
	if err != nil {
		return nil, p.failed(err)
	}
	d := os.NewFile(uintptr(fd), name)
	defer func() { _ = d.Close() }()
	names, err := d.Readdirnames(most)
	if err != nil && !errors.Is(err, io.EOF) { // it has none
		return nil, p.failed(err)
	}
	return names, nil
}

// failed tells what an error means. A process that ends meanwhile is one that is not there.
func (p *Process) failed(err error) error {
	if errors.Is(err, errNoProcess) {
		err = fs.ErrNotExist
	}
	return fmt.Errorf("read process %d: %w", p.pid, err)
}

// parsed reads and parses one file.
func parsed[T any](p *Process, name string, parse func([]byte) (T, error)) (value T, err error) {
	b, err := p.read(name)
	if err != nil {
		return value, p.failed(err)
	}
	if value, err = parse(b); err != nil {
		return value, p.failed(err)
	}
	return value, nil
}

// Memory is what proc_pid_smaps(5) adds up in smaps_rollup, in bytes.
type Memory struct {
	// Proportional is its proportional set size: what it shares with n others counts as an nth.
	Proportional uint64
	// Unique is what it has alone, huge pages included: what would be free without it.
	Unique uint64
}

// ParseMemory parses the lines of smaps_rollup.
func ParseMemory(b []byte) (m Memory, err error) {
	found := map[string]uint64{}
	for line := range bytes.Lines(b) {
		fields := bytes.Fields(line)
		if len(fields) != 3 || string(fields[2]) != "kB" {
			continue // the head
		}
		n, err := strconv.ParseUint(string(fields[1]), 10, 64-10)
		if err != nil {
			return Memory{}, fmt.Errorf("smaps_rollup: %s %q: want a number", fields[0], fields[1])
		}
		found[string(fields[0])] = n << 10
	}
	for _, name := range []string{"Pss:", "Private_Clean:", "Private_Dirty:"} {
		if _, ok := found[name]; !ok {
			return Memory{}, errors.New("smaps_rollup: a line is missing")
		}
	}
	return Memory{
		Proportional: found["Pss:"],
		Unique:       found["Private_Clean:"] + found["Private_Dirty:"] + found["Private_Hugetlb:"],
	}, nil
}
