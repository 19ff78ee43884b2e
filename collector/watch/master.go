package watch

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/prefork-exporter/prefork_exporter/collector/internal/procfs"
)

// NoMasterError says why there is no master.
type NoMasterError struct {
	Reason string // one of a few texts without paths, process ids and numbers: it may be a label's value
	Detail string // what was found, and what was wanted, for the log; may be empty
}

// Error implements error.
func (e *NoMasterError) Error() string { return e.Reason }

// LogValue implements [slog.LogValuer].
func (e *NoMasterError) LogValue() slog.Value {
	if e.Detail == "" {
		return slog.StringValue(e.Reason)
	}
	return slog.StringValue(e.Reason + ": " + e.Detail)
}

func noMaster(reason, detail string, args ...any) error {
	return &NoMasterError{reason, fmt.Sprintf(detail, args...)}
}

// view is what finders see of processes.
type view struct {
	procfs.FS
	self int // this process
}

func newView(proc string) view {
	if proc == "" {
		proc = "/proc"
	}
	return view{procfs.New(proc), os.Getpid()}
}

// alive returns a process that has not ended.
func (v view) alive(pid int) (procfs.Stat, bool) {
	s, err := v.Stat(pid)
	return s, err == nil && !s.Gone()
}

// is says whether a process is still there.
func (v view) is(l identity) bool {
	s, ok := v.alive(l.PID)
	return ok && s.Start == l.Start
}

// refuse says why a process cannot be a master, if it cannot: it is this one, or the first
// one of the machine. That of a container may well be a master.
func (v view) refuse(pid int) error {
	const initialNamespace = "pid:[4026531836]" // of the machine: a constant of the kernel
	if pid == v.self {
		return noMaster("the process id is the exporter's own", "%d: want that of the server's master", pid)
	}
	if space, err := os.Readlink(v.Path(v.self, "ns/pid")); pid == 1 && err == nil && space == initialNamespace {
		return noMaster("the process id is that of the machine's first process", "1: want that of the server's master")
	}
	return nil
}

// runs refuses a thread of the kernel, which has no command line: a number from another PID
// namespace is often the id of one.
func (v view) runs(pid int) error {
	if args, err := v.Args(pid); err == nil && len(args) == 0 {
		return noMaster("the process id is that of a thread of the kernel", "%d: want that of the server's master", pid)
	}
	return nil
}

// FindPID returns a finder of the process that has that id when it is looked for first.
// Who is given the id later is another one. Empty proc: /proc.
func FindPID(proc string, pid int) Finder { return &byPID{view: newView(proc), pid: pid} }

type byPID struct {
	view
	pid int

	mu    sync.Mutex
	found identity // zero: not yet
}

// Find implements [Finder].
func (f *byPID) Find() (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.refuse(f.pid); err != nil {
		return 0, err
	}
	s, ok := f.alive(f.pid)
	switch {
	case f.found != (identity{}) && (!ok || s.Start != f.found.Start):
		return 0, noMaster("the master has ended", "process %d: who comes in its place has another id", f.pid)
	case !ok:
		return 0, noMaster("there is no process of that id", "%d", f.pid)
	}
	if err := f.runs(f.pid); err != nil {
		return 0, err
	}
	f.found = identity{f.pid, s.Start}
	return f.pid, nil
}

// FindChild returns a finder of the process that pid returns: a child of our own parent. 0:
// there is none for now.
func FindChild(pid func() int) Finder { return child(pid) }

type child func() int

// Find implements [Finder].
func (f child) Find() (int, error) {
	if pid := f(); pid > 0 {
		return pid, nil
	}
	return 0, noMaster("the server is not running", "")
}

// Pattern describes the processes of a server. A command line can be forged by whoever
// runs a process; its user and its control group cannot.
type Pattern struct {
	Command *regexp.Regexp // matches the words of the command line, joined by blanks; never nil
	User    *int           // effective user id; nil: any
	Cgroup  string         // path at or below which a control group of it is; empty: any
}

// Validate returns what is wrong with p.
func (p Pattern) Validate() error {
	switch {
	case p.Command == nil:
		return errors.New("no pattern of the command line")
	case p.User == nil && p.Cgroup == "":
		return errors.New("a command line can be forged: want a user or a control group, too")
	case p.Cgroup != "" && (!path.IsAbs(p.Cgroup) || path.Clean(p.Cgroup) == "/"):
		return fmt.Errorf("control group %q: want a path such as /system.slice/shop.service", p.Cgroup)
	}
	return nil
}

// FindProcess returns a finder of the topmost process that matches: those below it are its
// workers. One that was found stays the master until it ends; its workers, if they outlive
// it, never become one. Where several are on top it finds none. Neither this process nor
// one above it matches. Empty proc: /proc.
func FindProcess(proc string, p Pattern) (Finder, error) {
	if err := p.Validate(); err != nil {
		return nil, err
	}
	p.Cgroup = strings.TrimSuffix(p.Cgroup, "/")
	return &byPattern{view: newView(proc), pattern: p}, nil
}

type byPattern struct {
	view
	pattern Pattern

	mu      sync.Mutex
	found   identity
	workers map[identity]int // those that a master has had: its session
}

// Find implements [Finder].
func (f *byPattern) Find() (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	matching, err := f.matching()
	if err != nil {
		return 0, noMaster("the processes cannot be listed", "%s", err)
	}
	top, orphans := f.topmost(matching)
	if master, ok := matching[f.found.PID]; ok && master.Start == f.found.Start {
		top = []procfs.Stat{master}
	}
	switch {
	case len(top) == 0 && orphans > 0:
		return 0, noMaster("only workers of a master that has ended match", "%d of them", orphans)
	case len(top) == 0:
		return 0, noMaster("no process matches", "%s", f.pattern)
	case len(top) > 1:
		return 0, noMaster("several processes match that have no matching parent", "%d of them, such as %d and %d: want one: %s",
			len(top), top[0].PID, top[1].PID, f.pattern)
	}
	f.found = identity{top[0].PID, top[0].Start}
	f.note(top[0], matching)
	return f.found.PID, nil
}

// matching returns the processes that match, by their ids.
func (f *byPattern) matching() (map[int]procfs.Stat, error) {
	pids, err := f.PIDs()
	if err != nil {
		return nil, err
	}
	above := f.ancestors(f.self)
	matching := map[int]procfs.Stat{}
	for _, pid := range pids {
		if slices.Contains(above, pid) || !f.matches(pid) {
			continue
		}
		if s, ok := f.alive(pid); ok {
			matching[pid] = s
		}
	}
	return matching, nil
}

// ancestors returns a process and those above it.
func (v view) ancestors(pid int) []int {
	var all []int
	for pid > 0 && !slices.Contains(all, pid) {
		all = append(all, pid)
		s, err := v.Stat(pid)
		if err != nil {
			break
		}
		pid = s.Parent
	}
	return all
}

// longestCommand is how much of a command line is looked at.
const longestCommand = 64 << 10

func (f *byPattern) matches(pid int) bool {
	args, err := f.Args(pid)
	if err != nil || len(args) == 0 {
		return false
	}
	command := strings.Join(args, " ")
	if !f.pattern.Command.MatchString(command[:min(len(command), longestCommand)]) {
		return false
	}
	return f.hasUser(pid) && f.isInCgroup(pid)
}

func (f *byPattern) hasUser(pid int) bool {
	if f.pattern.User == nil {
		return true
	}
	s, err := f.Status(pid)
	return err == nil && s.UID == *f.pattern.User
}

func (f *byPattern) isInCgroup(pid int) bool {
	if f.pattern.Cgroup == "" {
		return true
	}
	groups, err := f.Cgroups(pid)
	return err == nil && slices.ContainsFunc(groups, func(group string) bool {
		return group == f.pattern.Cgroup || strings.HasPrefix(group, f.pattern.Cgroup+"/")
	})
}

// topmost returns those without a matching parent, in order, and counts the workers whose
// master has ended.
func (f *byPattern) topmost(matching map[int]procfs.Stat) (top []procfs.Stat, orphans int) {
	for _, s := range matching {
		if _, below := matching[s.Parent]; below {
			continue
		}
		if f.isWorker(s) {
			orphans++
			continue
		}
		top = append(top, s)
	}
	slices.SortFunc(top, func(a, b procfs.Stat) int { return a.PID - b.PID })
	return top, orphans
}

// isWorker says whether a process was a master's worker and does as it did. One that has
// begun a session of its own is a daemon, which is a master, and one that runs a program
// anew may be.
func (f *byPattern) isWorker(s procfs.Stat) bool {
	session, was := f.workers[identity{s.PID, s.Start}]
	return was && s.Forked && s.Session == session
}

// note notes the workers of a master, and forgets those that have ended.
func (f *byPattern) note(master procfs.Stat, matching map[int]procfs.Stat) {
	workers := map[identity]int{}
	for pid, s := range matching {
		who := identity{pid, s.Start}
		switch {
		case s.Parent == master.PID:
			workers[who] = master.Session
		case f.isWorker(s):
			workers[who] = f.workers[who]
		}
	}
	f.workers = workers
}

// String describes the pattern, for the log.
func (p Pattern) String() string {
	text := fmt.Sprintf("command line %q", p.Command)
	if p.User != nil {
		text += fmt.Sprintf(", user %d", *p.User)
	}
	if p.Cgroup != "" {
		text += ", control group " + p.Cgroup
	}
	return text
}
