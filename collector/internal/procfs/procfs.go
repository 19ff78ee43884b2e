// Package procfs reads what Linux tells of other processes, one file at a time. What it
// reads may be foreign, torn or forged. It promises nothing to other modules.
package procfs

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// FS is a mounted proc file system. Its methods are safe for concurrent use. Their errors
// wrap [fs.ErrNotExist] for a process that is not there, or not any more.
type FS struct{ root string }

// New returns the file system that is mounted at root, such as /proc.
func New(root string) FS { return FS{root} }

// Path returns the name of a process's file.
func (f FS) Path(pid int, name string) string {
	return filepath.Join(f.root, strconv.Itoa(pid), name)
}

// Self returns our own process id as this file system has it, which is another one than
// ours where it is that of another namespace; [fs.ErrNotExist] where we have none there.
func (f FS) Self() (int, error) {
	target, err := os.Readlink(filepath.Join(f.root, "self"))
	if err != nil {
		return 0, fmt.Errorf("read our own process: %w", err)
	}
	pid, err := strconv.Atoi(target)
	if err != nil {
		return 0, fmt.Errorf("read our own process: %q: want a process id", target)
	}
	return pid, nil
}

// TicksPerSecond is the kernel's USER_HZ, the same on every architecture that Go has.
const TicksPerSecond = 100

// Stat is what proc_pid_stat(5) has of a process. Any user may read it, but for ExitCode.
type Stat struct {
	PID, Parent, Group, Session int

	Name  string
	State byte // R, S, D, T, …; Z: it has ended and was not waited for; X: it is going
	// Forked says that it runs the program of who has forked it.
	Forked bool
	// User and System are processor time of its own, Children… that of those that it has
	// waited for, in ticks.
	User, System, ChildrenUser, ChildrenSystem uint64
	Threads                                    int
	Start                                      uint64 // in ticks since the machine's start
	ResidentPages                              uint64
	// ExitCode is how a process in state Z has ended, as wait(2) tells it; 0 whatever it
	// was for who may not trace the process.
	ExitCode int
}

// Stat reads the state of a process.
func (f FS) Stat(pid int) (Stat, error) {
	b, err := readFile(f.Path(pid, "stat"))
	if err != nil {
		return Stat{}, fmt.Errorf("read process %d: %w", pid, err)
	}
	s, err := ParseStat(b)
	if err != nil {
		return Stat{}, fmt.Errorf("read process %d: %w", pid, err)
	}
	return s, nil
}

// ParseStat parses the line of a process.
func ParseStat(b []byte) (Stat, error) {
	// The name, in brackets, may have anything in it.
	from, to := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if from < 0 || to < from {
		return Stat{}, errors.New("stat: no name in brackets")
	}
	const (
		state, parent, group, session, flags       = 3, 4, 5, 6, 9
		user, system, childrenUser, childrenSystem = 14, 15, 16, 17
		threads, start, resident, exitCode         = 20, 22, 24, 52
		forkNoExec                                 = 0x40 // PF_FORKNOEXEC of the kernel
	)
	var fields [exitCode - firstField + 1][]byte // those behind it nobody asks for
	c := fieldCursor{fields: splitFields(fields[:0], b[to+1:])}
	s := Stat{
		PID: c.first(b[:from]), Name: string(b[from+1 : to]), State: c.letter(state),
		Parent: int(c.number(parent)), Group: int(c.number(group)), Session: int(c.number(session)),
		Forked: c.number(flags)&forkNoExec != 0,
		User:   uint64(c.number(user)), System: uint64(c.number(system)),
		ChildrenUser: uint64(c.number(childrenUser)), ChildrenSystem: uint64(c.number(childrenSystem)),
		Threads: int(c.number(threads)), Start: uint64(c.number(start)), ResidentPages: uint64(c.number(resident)),
	}
	if c.has(exitCode) { // since Linux 3.5
		s.ExitCode = int(c.number(exitCode))
	}
	return s, c.err
}

// fieldCursor reads fields by their number in the manual and keeps its first error.
type fieldCursor struct {
	fields [][]byte // from the third on
	err    error
}

const firstField = 3

// splitFields adds fields to what has room for them.
func splitFields(to [][]byte, b []byte) [][]byte {
	for field := range bytes.FieldsSeq(b) {
		if len(to) == cap(to) {
			break
		}
		to = append(to, field)
	}
	return to
}

func (c *fieldCursor) has(field int) bool { return field-firstField < len(c.fields) }

func (c *fieldCursor) text(field int) []byte {
	if !c.has(field) {
		c.fail(fmt.Errorf("stat: no field %d", field))
		return nil
	}
	return c.fields[field-firstField]
}

func (c *fieldCursor) fail(err error) {
	if c.err == nil {
		c.err = err
	}
}

func (c *fieldCursor) number(field int) int64 {
	text := c.text(field)
	if c.err != nil {
		return 0
	}
	n, err := strconv.ParseInt(string(text), 10, 64)
	if err != nil {
		c.fail(fmt.Errorf("stat: field %d: %q: want a number", field, text))
	}
	return n
}

func (c *fieldCursor) letter(field int) byte {
	if text := c.text(field); len(text) == 1 {
		return text[0]
	}
	c.fail(fmt.Errorf("stat: field %d: want a letter", field))
	return 0
}

// first reads the number in front of the name.
func (c *fieldCursor) first(b []byte) int {
	n, err := strconv.Atoi(string(bytes.TrimSpace(b)))
	if err != nil {
		c.fail(fmt.Errorf("stat: %q: want a process id", b))
	}
	return n
}

// Gone says whether the process has ended, waited for or not: its first thread may end
// before others.
func (s Stat) Gone() bool {
	return (s.State == 'Z' || s.State == 'X' || s.State == 'x') && s.Threads <= 1
}

// Seconds converts ticks.
func Seconds(ticks uint64) float64 { return float64(ticks) / TicksPerSecond }

// Born returns when a process was started, given when the machine was.
func (s Stat) Born(boot time.Time) time.Time {
	return boot.Add(time.Duration(s.Start) * (time.Second / TicksPerSecond))
}

// Status is a part of what proc_pid_status(5) has of a process. Any user may read it.
type Status struct {
	UID, GID               int    // the effective ones
	Voluntary, Involuntary uint64 // context switches, of its first thread
}

// Status reads more of a process.
func (f FS) Status(pid int) (Status, error) {
	b, err := readFile(f.Path(pid, "status"))
	if err != nil {
		return Status{}, fmt.Errorf("read process %d: %w", pid, err)
	}
	s, err := ParseStatus(b)
	if err != nil {
		return Status{}, fmt.Errorf("read process %d: %w", pid, err)
	}
	return s, nil
}

// ParseStatus parses the lines of a process.
func ParseStatus(b []byte) (s Status, err error) {
	const effective = 2 // of real, effective, saved, of the file system
	var uid, gid, voluntary, involuntary uint64
	wanted := map[string]struct {
		to    *uint64
		field int
	}{
		"Uid:": {&uid, effective}, "Gid:": {&gid, effective},
		"voluntary_ctxt_switches:": {&voluntary, 1}, "nonvoluntary_ctxt_switches:": {&involuntary, 1},
	}
	for line := range bytes.Lines(b) {
		want, ok := wanted[string(line[:bytes.IndexByte(line, ':')+1])]
		if !ok {
			continue
		}
		fields := bytes.Fields(line)
		delete(wanted, string(fields[0]))
		if len(fields) <= want.field {
			return Status{}, fmt.Errorf("status: %s: too few numbers", fields[0])
		}
		if *want.to, err = strconv.ParseUint(string(fields[want.field]), 10, 64); err != nil {
			return Status{}, fmt.Errorf("status: %s %q: want a number", fields[0], fields[want.field])
		}
	}
	if len(wanted) > 0 {
		return Status{}, errors.New("status: a line is missing")
	}
	return Status{UID: int(uid), GID: int(gid), Voluntary: voluntary, Involuntary: involuntary}, nil
}

// Args returns the command line, which the process may have overwritten. That of a kernel
// thread or of a process that has ended is empty.
func (f FS) Args(pid int) ([]string, error) {
	b, err := readFile(f.Path(pid, "cmdline"))
	if err != nil {
		return nil, fmt.Errorf("read process %d: %w", pid, err)
	}
	b = bytes.TrimRight(b, "\x00")
	if len(b) == 0 {
		return nil, nil
	}
	var args []string
	for arg := range bytes.SplitSeq(b, []byte{0}) {
		args = append(args, string(arg))
	}
	return args, nil
}

// Cgroups returns the paths of the control groups that a process is in, one for each
// hierarchy, from the root of our control group namespace on: cgroups(7).
func (f FS) Cgroups(pid int) ([]string, error) {
	b, err := readFile(f.Path(pid, "cgroup"))
	if err != nil {
		return nil, fmt.Errorf("read process %d: %w", pid, err)
	}
	var groups []string
	for line := range bytes.Lines(b) {
		if fields := bytes.SplitN(bytes.TrimSuffix(line, []byte("\n")), []byte(":"), 3); len(fields) == 3 {
			groups = append(groups, string(fields[2]))
		}
	}
	return groups, nil
}

// PIDs returns the processes that can be seen, in order.
func (f FS) PIDs() ([]int, error) {
	d, err := os.Open(f.root)
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	defer func() { _ = d.Close() }()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	var pids []int
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil && pid > 0 {
			pids = append(pids, pid)
		}
	}
	slices.Sort(pids)
	return pids, nil
}

// Relatives knows the children of processes at one moment, on all kernels. It is for one
// goroutine.
type Relatives struct {
	fs    FS
	table map[int][]int // of all processes, where the kernel does not tell those of one; nil: not read
}

// Relatives returns them for this moment.
func (f FS) Relatives() *Relatives { return &Relatives{fs: f} }

// Children returns the children of a process; none of one that has ended.
func (r *Relatives) Children(pid int) ([]int, error) {
	if r.table == nil {
		children, err := r.fs.Children(pid)
		if !errors.Is(err, fs.ErrNotExist) {
			return children, err
		}
		if _, err := r.fs.Stat(pid); errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		if r.table, err = r.fs.families(); err != nil {
			return nil, err
		}
	}
	return r.table[pid], nil
}

// families reads the state of every process there is, and returns the children of each, in
// the order of their ids.
func (f FS) families() (map[int][]int, error) {
	pids, err := f.PIDs()
	if err != nil {
		return nil, err
	}
	children := map[int][]int{}
	for _, pid := range pids {
		if s, err := f.Stat(pid); err == nil { // else it has ended
			children[s.Parent] = append(children[s.Parent], pid)
		}
	}
	return children, nil
}

// Children returns the children of a process, each thread's in the order of their birth;
// [fs.ErrNotExist] on kernels that do not tell them, too. One that is born or ends
// meanwhile may be missing, or another.
func (f FS) Children(pid int) ([]int, error) {
	threads, err := f.threads(pid)
	if err != nil {
		return nil, fmt.Errorf("list the children of process %d: %w", pid, err)
	}
	var children []int
	for _, thread := range threads {
		b, err := readFile(f.Path(pid, filepath.Join("task", thread, "children")))
		if errors.Is(err, fs.ErrNotExist) && len(threads) > 1 {
			continue // it has ended
		}
		if err != nil {
			return nil, fmt.Errorf("list the children of process %d: %w", pid, err)
		}
		for _, field := range bytes.Fields(b) {
			child, err := strconv.Atoi(string(field))
			if err != nil {
				return nil, fmt.Errorf("list the children of process %d: %q: want a process id", pid, field)
			}
			children = append(children, child)
		}
	}
	return children, nil
}

// threads returns the names of a process's threads. Most masters have one: then it is not
// looked for in the directory, which takes longer.
func (f FS) threads(pid int) (names []string, err error) {
	s, err := f.Stat(pid)
	if err != nil {
		return nil, err
	}
	if s.Threads == 1 {
		return []string{strconv.Itoa(pid)}, nil
	}
	entries, err := os.ReadDir(f.Path(pid, "task"))
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names, err
}

// BootID returns what tells this run of the machine from all others; empty: nobody knows.
func (f FS) BootID() string {
	b, err := readFile(filepath.Join(f.root, "sys/kernel/random/boot_id"))
	if err != nil {
		return ""
	}
	return string(bytes.TrimSpace(b))
}

// readFile reads a file of the kernel's. A process that ends meanwhile is one that is not there.
func readFile(name string) ([]byte, error) {
	b, err := readAt(unix.AT_FDCWD, name, make([]byte, 0, mostly))
	if errors.Is(err, errNoProcess) {
		err = fs.ErrNotExist
	}
	if err != nil {
		return nil, &fs.PathError{Op: "read", Path: name, Err: err}
	}
	return b, nil
}

// mostly is more than most files have.
const mostly = 1 << 10
