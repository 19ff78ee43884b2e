package supervisor

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// lineage is a server that was launched, with all that has come of it: the masters that
// have taken its place, and what they leave behind.
type lineage struct {
	spawner *Spawner
	group   int // the process group that the server was launched as the leader of
}

// ErrStart says that the server could not be started at all.
var ErrStart = errors.New("start the server")

// launch starts the server, with what it would have without us: our standard input, the
// sockets that were passed to us, and the terminal, if there is one. Its output is c's.
func (l *lineage) launch(c Command) (Process, error) {
	path, err := exec.LookPath(c.Args[0])
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrStart, err)
	}
	cmd := &exec.Cmd{
		Path: path, Args: c.Args, Env: c.Env, ExtraFiles: c.Files, Stdin: os.Stdin, Stdout: c.Stdout, Stderr: c.Stderr,
		SysProcAttr: &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM},
	}
	if len(c.Files) > 0 {
		cmd.Path, cmd.Args = c.Shim, slices.Concat([]string{shimName, path}, c.Args)
		cmd.Env = append(slices.Clone(c.Env), c.listenVariables()...)
	}
	p, err := l.spawner.start(cmd)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrStart, err)
	}
	l.group = p.PID()
	handTerminal(unix.Getpgrp(), l.group)
	return p, nil
}

// handTerminal has the terminal, if there is one and it talks to the process group from,
// talk to another.
func handTerminal(from, to int) {
	stdin := int(os.Stdin.Fd())
	if now, err := unix.IoctlGetInt(stdin, unix.TIOCGPGRP); err != nil || now != from {
		return
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	mask(unix.SIG_BLOCK) // TTOU, which a group gets that is not the one, would stop us
	defer mask(unix.SIG_UNBLOCK)
	if err := unix.IoctlSetPointerInt(stdin, unix.TIOCSPGRP, to); err == nil {
		_ = unix.Kill(-to, syscall.SIGCONT) // who has read too early stands still
	}
}

// successor takes over the master that a server has started in its own place, as
// gunicorn and unicorn do on USR2, when the server has ended. We have to be who is left
// with orphans. Until it is ours nobody can reap it.
func (l *lineage) successor(old Process) (Process, time.Time) {
	l.spawner.mu.Lock()
	defer l.spawner.mu.Unlock()
	all := processes()
	pid := heir(all, l.group, old.PID(), l.spawner.ours)
	if pid == 0 {
		return nil, time.Time{}
	}
	l.spawner.ours[pid] = true
	return newChild(pid, false, l.spawner), all[pid].born()
}

// leave asks what a server that has ended has left in its process group to end as well:
// it would hold the sockets. What has made itself a session of its own is let alone.
func (l *lineage) leave(old Process) (gone <-chan struct{}) {
	_ = unix.Kill(-l.group, syscall.SIGTERM) // before the last of the group may be reaped
	old.Reap()
	handTerminal(l.group, unix.Getpgrp())
	return l.spawner.endGroup(l.group, groupDeadline())
}

// heir returns the orphan that is a successor of the process old; zero if there is none,
// or if nobody knows which. Orphans that are workers have not become another program
// since they were forked, and helpers that have are no masters.
func heir(all map[int]kin, group, old int, known map[int]bool) (found int) {
	for pid, p := range all {
		if p.parent != os.Getpid() || p.group != group || p.forked || p.dead || known[pid] {
			continue
		}
		if !inherits(pid, old) && (!hasWorkers(all, pid) || !listens(pid)) {
			continue
		}
		if found != 0 {
			return 0
		}
		found = pid
	}
	return found
}

func hasWorkers(all map[int]kin, pid int) bool {
	for _, p := range all {
		if p.parent == pid && p.forked {
			return true
		}
	}
	return false
}

// kin is what the kernel tells everybody of a process.
type kin struct {
	parent, group int
	dead          bool
	forked        bool   // and has not become another program since
	start         uint64 // in ticks since the machine's start
}

// processes returns those of this PID namespace; none if /proc shows another one.
func processes() map[int]kin {
	all := map[int]kin{}
	if self, err := os.Readlink("/proc/self"); err != nil || self != strconv.Itoa(os.Getpid()) {
		return all
	}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat") // the pattern is a good one
	for _, path := range stats {
		stat, err := os.ReadFile(path)
		pid, convErr := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if p, ok := parseKin(string(stat)); ok && err == nil && convErr == nil {
			all[pid] = p
		}
	}
	return all
}

// parseKin reads what proc_pid_stat(5) describes.
func parseKin(stat string) (p kin, ok bool) {
	const (
		state, parent, group, flags, start = 0, 1, 2, 6, 19 // fields behind the name
		forkNoExec                         = 0x40           // PF_FORKNOEXEC of the kernel
	)
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	if len(fields) <= start {
		return p, false
	}
	var numbers [start + 1]int
	for _, i := range []int{parent, group, flags, start} {
		n, err := strconv.Atoi(fields[i])
		if err != nil {
			return p, false
		}
		numbers[i] = n
	}
	return kin{
		parent: numbers[parent], group: numbers[group], dead: fields[state] == "Z" || fields[state] == "X",
		forked: numbers[flags]&forkNoExec != 0, start: uint64(max(0, numbers[start])),
	}, true
}

// born returns when the process was started.
func (p kin) born() time.Time {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		return time.Now()
	}
	const tick = time.Second / 100 // for all programs
	return time.Now().Add(time.Duration(p.start)*tick - time.Duration(t.Nano()))
}

// startTicks returns when a child of ours that was not waited for yet was started; 0 if
// nobody knows. What is no child of ours is another process, in the /proc of another PID
// namespace.
func startTicks(pid int) uint64 {
	stat, err := os.ReadFile(procPath(pid, "stat"))
	if p, ok := parseKin(string(stat)); ok && err == nil && p.parent == os.Getpid() {
		return p.start
	}
	return 0
}

// inherits says whether the process was started to take over from the process old: it
// need not have workers yet.
func inherits(pid, old int) bool {
	environ, err := os.ReadFile(procPath(pid, "environ"))
	if err != nil {
		return false
	}
	for pair := range strings.SplitSeq(string(environ), "\x00") {
		if pair == "GUNICORN_PID="+strconv.Itoa(old) {
			return true
		}
		// What unicorn's workers start has the variable, too, but not the sockets.
		if fds, ok := strings.CutPrefix(pair, "UNICORN_FD="); ok {
			first, _, _ := strings.Cut(fds, ",")
			return socketOf(procPath(pid, "fd/"+first)) != ""
		}
	}
	return false
}

func procPath(pid int, name string) string {
	return filepath.Join("/proc", strconv.Itoa(pid), name)
}

// socketOf returns the number of the socket that a link below /proc/PID/fd is; empty if
// it is none.
func socketOf(link string) string {
	to, _ := os.Readlink(link) // empty when it cannot be read
	number, ok := strings.CutPrefix(to, "socket:[")
	if !ok {
		return ""
	}
	return strings.TrimSuffix(number, "]")
}

// listens says whether a process has a socket that listens.
func listens(pid int) bool {
	listening := map[string]bool{}
	for _, table := range []struct {
		name          string
		state, number int // fields
		listen        string
	}{{"net/tcp", 3, 9, "0A"}, {"net/tcp6", 3, 9, "0A"}, {"net/unix", 3, 6, "00010000"}} {
		rows, _ := os.ReadFile(procPath(pid, table.name)) // there may be no such sockets at all
		for row := range strings.Lines(string(rows)) {
			if fields := strings.Fields(row); len(fields) > table.number && fields[table.state] == table.listen {
				listening[fields[table.number]] = true
			}
		}
	}
	links, _ := filepath.Glob(procPath(pid, "fd/*"))
	for _, link := range links {
		if listening[socketOf(link)] {
			return true
		}
	}
	return false
}
