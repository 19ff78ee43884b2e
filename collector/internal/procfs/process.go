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
	"strconv"
)

// Process is one process, held: whoever is given its id later, what is read is of this
// one or an error. It is for one goroutine at a time. Its errors are those of [FS].
type Process struct {
	pid int
	dir *os.Root
}

// Open returns the process that has the id now. Close it.
func (f FS) Open(pid int) (*Process, error) {
	dir, err := os.OpenRoot(filepath.Join(f.root, strconv.Itoa(pid)))
	if err != nil {
		return nil, fmt.Errorf("open process %d: %w", pid, err)
	}
	return &Process{pid, dir}, nil
}

// Close lets go of the process.
func (p *Process) Close() error { return p.dir.Close() }

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
	info, err := p.dir.Stat("fd")
	if err != nil {
		return 0, p.failed(err)
	}
	if info.Size() > 0 {
		return int(info.Size()), nil
	}
	names, err := p.list("fd", -1)
	return len(names), err
}

// list returns names in a directory of the process, so many at most or, if negative, all.
func (p *Process) list(name string, most int) ([]string, error) {
	d, err := p.dir.Open(name)
	if err != nil {
		return nil, p.failed(err)
	}
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
	b, err := p.dir.ReadFile(name)
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
