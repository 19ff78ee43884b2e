package app

import (
	"errors"
	"fmt"
	"os/user"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prefork-exporter/prefork_exporter/collector/watch"
)

// Master says how a target's master is found, and what it is. At most one of PIDFile, PID
// and Process is given.
type Master struct {
	PIDFile string
	PID     int
	Process string        // regular expression (RE2) that its command line matches
	User    string        // name or number of the user that it runs as; with Process
	Cgroup  string        // path at or below which its control group is; with Process
	Kind    string        // empty: it is found out
	Timeout time.Duration // how long a worker may give no sign of life; 0: nobody knows
}

// Kinds returns the kinds of servers that a master may be.
func Kinds() []string {
	var kinds []string
	for _, k := range []watch.Kind{watch.Gunicorn, watch.UWSGI, watch.Unicorn, watch.Puma, watch.PHPFPM, watch.Sidekiq, watch.Generic} {
		kinds = append(kinds, string(k))
	}
	return kinds
}

// given says whether a master is to be found.
func (m Master) given() bool { return m.PIDFile != "" || m.PID != 0 || m.Process != "" }

// problem returns what is wrong with m, and the option that it is about. started says that
// the master is started beside, and need not be found.
func (m Master) problem(started bool) (option string, err error) {
	if option, err := m.conflict(); err != nil {
		return option, err
	}
	switch {
	case started && m.given():
		return m.option(), errors.New("not with a server that is started beside, which is the master")
	case m.Kind != "" && !slices.Contains(Kinds(), m.Kind):
		return "kind", fmt.Errorf("%q: want %s", m.Kind, strings.Join(Kinds(), ", "))
	case m.Timeout < 0:
		return "timeout", fmt.Errorf("%s: want 0s, which is unknown, or more", m.Timeout)
	case m.Kind != "" && !m.given() && !started:
		return "kind", errNoMaster
	case m.Timeout != 0 && !m.given() && !started:
		return "timeout", errNoMaster
	case m.PID < 0:
		return "pid", fmt.Errorf("%d: want a process id", m.PID)
	case strings.ContainsRune(m.PIDFile, 0):
		return "pidfile", errors.New("a zero byte in its name")
	case m.Process != "":
		return m.patternProblem()
	}
	return "", nil
}

var errNoMaster = errors.New("no master: want a pidfile, a pid or a process, too")

// option returns the one that names the master.
func (m Master) option() string {
	switch {
	case m.PIDFile != "":
		return "pidfile"
	case m.PID != 0:
		return "pid"
	}
	return "process"
}

// conflict returns which options exclude each other.
func (m Master) conflict() (option string, err error) {
	switch {
	case m.PIDFile != "" && m.PID != 0:
		return "pid", errors.New("a pidfile is given, too: want one of them")
	case m.PIDFile != "" && m.Process != "":
		return "process", errors.New("a pidfile is given, too: want one of them")
	case m.PID != 0 && m.Process != "":
		return "process", errors.New("a pid is given, too: want one of them")
	case m.User != "" && m.Process == "":
		return "user", errors.New("no process: a user says which of those that match is meant")
	case m.Cgroup != "" && m.Process == "":
		return "cgroup", errors.New("no process: a control group says which of those that match is meant")
	}
	return "", nil
}

func (m Master) patternProblem() (option string, err error) {
	if m.User == "" && m.Cgroup == "" {
		return "process", errors.New("a command line can be forged: want a user or a cgroup, too")
	}
	if _, err := regexp.Compile(m.Process); err != nil {
		return "process", fmt.Errorf("%q: want a regular expression: %s", m.Process, strings.TrimPrefix(err.Error(), "error parsing regexp: "))
	}
	if m.Cgroup != "" && (!path.IsAbs(m.Cgroup) || path.Clean(m.Cgroup) == "/") {
		return "cgroup", fmt.Errorf("%q: want a path such as /system.slice/shop.service", m.Cgroup)
	}
	if _, err := userID(m.User); err != nil {
		return "user", err
	}
	return "", nil
}

// userID returns the number of a user; nil for none.
func userID(name string) (*int, error) {
	if name == "" {
		return nil, nil
	}
	if id, err := strconv.ParseUint(name, 10, 32); err == nil {
		return new(int(id)), nil
	}
	u, err := user.Lookup(name)
	if err != nil {
		return nil, fmt.Errorf("%q: want the name or the number of a user: %w", name, err)
	}
	id, err := strconv.Atoi(u.Uid)
	if err != nil {
		return nil, fmt.Errorf("%q: user id %q: want a number", name, u.Uid)
	}
	return &id, nil
}

// finder returns what finds the master.
func (m Master) finder() (watch.Finder, error) {
	switch {
	case m.PIDFile != "":
		return watch.FindPIDFile("", m.PIDFile), nil
	case m.PID != 0:
		return watch.FindPID("", m.PID), nil
	}
	command, err := regexp.Compile(m.Process)
	if err != nil {
		return nil, fmt.Errorf("read the pattern of a command line: %w", err)
	}
	id, err := userID(m.User)
	if err != nil {
		return nil, err
	}
	return watch.FindProcess("", watch.Pattern{Command: command, User: id, Cgroup: m.Cgroup})
}
