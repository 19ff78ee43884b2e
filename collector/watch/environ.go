package watch

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
)

// Environment is what is read of a server's environment: these variables and no others.
// They are foreign, may hold secrets, and are never logged.
type Environment struct {
	MultiprocDir   string // PROMETHEUS_MULTIPROC_DIR, else its old name in small letters
	GunicornArgs   string // GUNICORN_CMD_ARGS
	WebConcurrency string // WEB_CONCURRENCY
	RuntimeDir     string // XDG_RUNTIME_DIR
	Home           string // HOME
}

// String implements [fmt.Stringer]: it shows nothing.
func (Environment) String() string { return "(an environment, which is not shown)" }

// largestEnvironment bounds what is read, longestValue what is taken of one variable.
const (
	largestEnvironment = 1 << 20
	longestValue       = 4096 // as long as the kernel lets a path be
)

// ReadEnvironment reads what a process was started with: what it has set since is not
// there. A process that shows a title has often overwritten it: then nothing is there.
// Empty proc: /proc. Its errors are [NoMasterError].
func ReadEnvironment(proc string, pid int) (Environment, error) {
	f, err := os.Open(newView(proc).Path(pid, "environ"))
	if err != nil {
		return Environment{}, unreadable("the environment of the master", pid, err)
	}
	defer func() { _ = f.Close() }()
	b, err := io.ReadAll(io.LimitReader(f, largestEnvironment))
	if err != nil {
		return Environment{}, unreadable("the environment of the master", pid, err)
	}
	return ParseEnvironment(b), nil
}

// unreadable says why something of a process cannot be read.
func unreadable(what string, pid int, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return noMaster("the master has ended", "process %d", pid)
	case errors.Is(err, fs.ErrPermission):
		return noMaster(what+" may not be read", "process %d: want its user, and that it may be traced, or CAP_SYS_PTRACE", pid)
	}
	return noMaster(what+" cannot be read", "process %d: %s", pid, err)
}

// ParseEnvironment parses proc_pid_environ(5). What it has may be anything. As with
// getenv(3) the first of two of a name counts. One that is cut off does not.
func ParseEnvironment(b []byte) Environment {
	var e Environment
	var old string
	wanted := map[string]*string{
		"PROMETHEUS_MULTIPROC_DIR": &e.MultiprocDir, "prometheus_multiproc_dir": &old,
		"GUNICORN_CMD_ARGS": &e.GunicornArgs, "WEB_CONCURRENCY": &e.WebConcurrency,
		"XDG_RUNTIME_DIR": &e.RuntimeDir, "HOME": &e.Home,
	}
	for len(b) > 0 && len(wanted) > 0 {
		pair, rest, whole := bytes.Cut(b, []byte{0})
		b = rest
		name, value, _ := bytes.Cut(pair, []byte("="))
		to := wanted[string(name)]
		if to == nil || !whole || len(name) == len(pair) {
			continue
		}
		delete(wanted, string(name))
		if len(value) <= longestValue {
			*to = string(value)
		}
	}
	if e.MultiprocDir == "" {
		e.MultiprocDir = old
	}
	return e
}

// Directory is a directory as a server sees it.
type Directory struct {
	Path string // from Root on; empty: there is none
	// Root opens the server's root directory, which is the caller's to close. Its errors are
	// [NoMasterError]; that of a server that has ended stays one, whoever has its id then.
	Root func() (*os.File, error)
}

// FindDirectory returns where the workers of a master write their metric files, as its
// environment says it; the zero one if that names none, or was overwritten. Whether there
// is such a directory was not looked at. Empty proc: /proc. Its errors are [NoMasterError].
func FindDirectory(proc string, master int) (Directory, error) {
	v := newView(proc)
	s, ok := v.alive(master)
	if !ok {
		return Directory{}, noMaster("the master has ended", "process %d", master)
	}
	e, err := ReadEnvironment(proc, master)
	if err != nil {
		return Directory{}, err
	}
	if e.MultiprocDir == "" {
		return Directory{}, nil
	}
	path, err := v.absolute(master, e.MultiprocDir)
	if err != nil {
		return Directory{}, err
	}
	who := identity{master, s.Start}
	return Directory{path, func() (*os.File, error) { return v.openRoot(who) }}, nil
}

// absolute returns a path that begins at a process's root, given one that may be relative
// to where it works. The kernel tells both as we see them.
func (v view) absolute(pid int, name string) (string, error) {
	if strings.HasPrefix(name, "/") {
		return name, nil
	}
	root, err := os.Readlink(v.Path(pid, "root"))
	if err != nil {
		return "", unreadable("the root directory of the master", pid, err)
	}
	cwd, err := os.Readlink(v.Path(pid, "cwd"))
	if err != nil {
		return "", unreadable("the working directory of the master", pid, err)
	}
	below, ok := strings.CutPrefix(strings.TrimSuffix(cwd, "/")+"/", strings.TrimSuffix(root, "/")+"/")
	if !ok {
		return "", noMaster("the master works outside of its root directory", "process %d", pid)
	}
	return fmt.Sprintf("/%s%s", below, name), nil
}

// openRoot opens the root directory of a process. Its id may have been given to another
// one: so it has to be the same when that is open.
func (v view) openRoot(who identity) (*os.File, error) {
	root, err := os.OpenFile(v.Path(who.PID, "root"), openPath, 0)
	if err != nil {
		return nil, unreadable("the root directory of the master", who.PID, err)
	}
	if !v.is(who) {
		_ = root.Close()
		return nil, noMaster("the master has ended", "process %d", who.PID)
	}
	return root, nil
}
