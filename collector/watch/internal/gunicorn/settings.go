// Package gunicorn reads what gunicorn shows from outside: its workers' signs of life, the
// settings of its command line, and its control socket. It changes nothing. It promises
// nothing to other modules.
package gunicorn

import (
	"strconv"
	"strings"
	"time"
)

// Setting is a value that may not be known; then it is the zero value.
type Setting[T any] struct {
	Value T
	Known bool
}

// Settings are a part of gunicorn's. Those of a configuration file, which is a program,
// cannot be known from outside.
type Settings struct {
	// Timeout is how long a worker may give no sign of life; 0: for ever. A worker of class
	// sync gives none while it answers a request. Others do, so a timeout of theirs says that
	// their main loop hung.
	Timeout         Setting[time.Duration]
	GracefulTimeout Setting[time.Duration]
	// Workers is how many there are at the start. The operator may have changed that since.
	Workers           Setting[int]
	Threads           Setting[int]
	MaxRequests       Setting[int] // 0: no limit
	MaxRequestsJitter Setting[int]
	// WorkerClass is gunicorn's own short name, such as gthread (which sync with more than
	// one thread is, too), or else the name of a Python class.
	WorkerClass     Setting[string]
	PIDFile         Setting[string] // empty: none
	ControlSocket   Setting[string] // empty: at its default place
	NoControlSocket Setting[bool]
}

// Start is how a master was started.
type Start struct {
	Args []string // the command line, the program's name first
	// Environ says that the variables below are known.
	Environ                                         bool
	CmdArgs, WebConcurrency, XDGRuntimeDir, HomeDir string
	// NoConfigFile says that there was no gunicorn.conf.py in the directory.
	NoConfigFile bool
}

// SettingsOf returns the settings of a master. The command line wins over
// GUNICORN_CMD_ARGS, that over configuration files, and those over the defaults, as in
// gunicorn.app.base of every version. Nothing is known where gunicorn's own command line
// is not to be seen: a program may embed gunicorn, and with setproctitle the master
// overwrites it.
func SettingsOf(s Start) Settings {
	own, ok := gunicornArgs(s.Args)
	if !ok {
		return Settings{}
	}
	l := layers{start: s, line: parseArgs(own)}
	if words, err := splitShell(s.CmdArgs); s.Environ && err == nil {
		l.env, l.envKnown = parseArgs(words), true
	}
	return Settings{
		Timeout:           seconds(l.number(optTimeout, 30)),
		GracefulTimeout:   seconds(l.number(optGracefulTimeout, 30)),
		Workers:           l.workers(),
		Threads:           l.number(optThreads, 1),
		MaxRequests:       l.number(optMaxRequests, 0),
		MaxRequestsJitter: l.number(optMaxRequestsJitter, 0),
		WorkerClass:       effectiveClass(l.text(optWorkerClass, "sync"), l.number(optThreads, 1)),
		PIDFile:           l.text(optPIDFile, ""),
		ControlSocket:     l.text(optControlSocket, ""),
		NoControlSocket:   l.flag(optNoControlSocket),
	}
}

// layers are where a setting may come from.
type layers struct {
	start     Start
	line, env arguments
	envKnown  bool
}

// given returns what the command line or the environment say.
func (l layers) given(o option) Setting[string] {
	value, sure := l.line.value(o)
	if value == nil && sure && l.envKnown {
		value, sure = l.env.value(o)
	}
	if value == nil || !sure {
		return Setting[string]{}
	}
	return Setting[string]{*value, true}
}

// defaults says whether a setting that nobody has given has its default value.
func (l layers) defaults(o option) bool {
	if !l.envKnown || !l.start.NoConfigFile {
		return false
	}
	// With a directory of its own gunicorn has looked for its file somewhere else.
	for _, other := range []option{o, optConfig, optPaste, optChdir} {
		if l.line.has(other) || l.env.has(other) {
			return false
		}
	}
	return true
}

func (l layers) text(o option, otherwise string) Setting[string] {
	if given := l.given(o); given.Known {
		return given
	}
	if l.defaults(o) {
		return Setting[string]{otherwise, true}
	}
	return Setting[string]{}
}

func (l layers) number(o option, otherwise int) Setting[int] {
	return number(l.text(o, strconv.Itoa(otherwise)))
}

// flag returns whether a flag that takes no value was given.
func (l layers) flag(o option) Setting[bool] {
	if l.given(o).Known {
		return Setting[bool]{true, true}
	}
	return Setting[bool]{false, l.defaults(o)}
}

// workers has a default that the environment changes.
func (l layers) workers() Setting[int] {
	otherwise := "1"
	if l.start.WebConcurrency != "" {
		otherwise = l.start.WebConcurrency
	}
	return number(l.text(optWorkers, otherwise))
}

// number parses what Python's int takes, but for digits that are not ASCII. Gunicorn does
// not start with what is no number, or a negative one: then something was misunderstood.
func number(s Setting[string]) Setting[int] {
	text := strings.TrimSpace(s.Value)
	if strings.HasPrefix(text, "_") || strings.HasSuffix(text, "_") || strings.Contains(text, "__") {
		return Setting[int]{}
	}
	n, err := strconv.ParseInt(strings.ReplaceAll(text, "_", ""), 10, 32)
	if !s.Known || err != nil || n < 0 {
		return Setting[int]{}
	}
	return Setting[int]{int(n), true}
}

func seconds(s Setting[int]) Setting[time.Duration] {
	return Setting[time.Duration]{time.Duration(s.Value) * time.Second, s.Known}
}

// effectiveClass returns the class that gunicorn takes: a sync worker with threads is
// another one.
func effectiveClass(class Setting[string], threads Setting[int]) Setting[string] {
	if !class.Known {
		return class
	}
	name := shortClass(class.Value)
	switch {
	case name != "sync" && !strings.HasSuffix(name, "SyncWorker"):
		return Setting[string]{name, true}
	case !threads.Known:
		return Setting[string]{}
	case threads.Value > 1:
		return Setting[string]{"gthread", true}
	}
	return Setting[string]{name, true}
}

// shortClass returns gunicorn's own name for a class of its own.
func shortClass(class string) string {
	switch class {
	case "gunicorn.workers.sync.SyncWorker":
		return "sync"
	case "gunicorn.workers.gthread.ThreadWorker":
		return "gthread"
	case "gunicorn.workers.ggevent.GeventWorker":
		return "gevent"
	case "gunicorn.workers.ggevent.GeventPyWSGIWorker", "gevent_wsgi":
		return "gevent_pywsgi"
	case "gunicorn.workers.geventlet.EventletWorker":
		return "eventlet"
	case "gunicorn.workers.gtornado.TornadoWorker":
		return "tornado"
	case "gunicorn.workers.gasgi.ASGIWorker":
		return "asgi"
	}
	return class
}

// ControlSockets returns where the master's control socket may be: relative to its
// working directory, by its own file names. There is none before gunicorn 25.1. Whoever
// asks there has to see that it is the master who answers.
func (s Start) ControlSockets(of Settings) []string {
	if of.NoControlSocket.Value {
		return nil
	}
	if of.ControlSocket.Value != "" {
		return []string{of.ControlSocket.Value}
	}
	var paths []string
	if s.XDGRuntimeDir != "" { // the first choice, if it is there
		paths = append(paths, s.XDGRuntimeDir+"/gunicorn.ctl")
	}
	if s.HomeDir != "" {
		paths = append(paths, s.HomeDir+"/.gunicorn/gunicorn.ctl")
	}
	return paths
}
