package serverlog

import (
	"strconv"
	"strings"
)

// server is how one kind of server logs.
type server struct {
	name string
	// prefix returns what is behind what the server puts before each line, and the
	// process that has written it, if the prefix tells that.
	prefix func(line string) (by int, message string, ok bool)
	rules  []rule
}

// rule is one kind of line: what it tells, and the form that all of its message has.
type rule struct {
	form   string // as match has it
	what   What
	own    bool   // it is about the process that has written it
	signal string // that it tells by what it says
}

// opens are the signs that a line with an event may begin with: most lines are done with here.
var opens = func() (is [256]bool) {
	for _, c := range []byte("[*.!DIWEFTMSORsrwgku") {
		is[c] = true
	}
	return is
}()

// servers are those that we know, by the texts of their sources: gunicorn 19 to 26, uWSGI
// 2.0, unicorn 5 and 6, puma 4 to 7, php-fpm 7 and 8, Sidekiq 6 to 8.
var servers = []server{
	{"gunicorn", gunicornPrefix, []rule{
		{form: "WORKER TIMEOUT (pid:%p)", what: WorkerTimeout},
		{form: "Worker with pid %p was terminated due to signal %s", what: WorkerDied}, // 20.1
		{form: "Worker (pid:%p) was sent %s!", what: WorkerDied},                       // from 21 on
		{form: "Worker (pid:%p) was sent %s! Perhaps out of memory?", what: WorkerDied},
		{form: "Worker (pid:%p) was sent code %s!", what: WorkerDied}, // a signal without a name; until 23
		{form: "Worker (pid:%p) was sent signal %s!", what: WorkerDied},
		{form: "Worker (pid:%p) exited with code %c", what: WorkerDied},
		{form: "Worker (pid:%p) exited with code %c.", what: WorkerDied},
		{form: "Booting worker with pid: %p", what: WorkerBorn},
		{form: "Autorestarting worker after current request.", what: MaxRequests, own: true},
		{form: "Handling signal: hup", what: MasterReload},
		{form: "Handling signal: term", what: MasterStop},
		{form: "Handling signal: int", what: MasterStop},
		{form: "Handling signal: quit", what: MasterStop},
		{form: "Shutting down: %*", what: MasterStop},
		{form: "Handling signal: ttin", what: ScaleUp},
		{form: "Handling signal: ttou", what: ScaleDown},
		{form: "Reason: Worker failed to boot.", what: BootFailed},
		{form: "Reason: App failed to load.", what: BootFailed},
		{form: "Dirty arbiter starting (pid: %p)", what: HelperBorn}, // from 25 on
		{form: "Spawned dirty worker (pid: %p) with apps: %*", what: HelperBorn},
	}},
	{"php-fpm", phpPrefix, []rule{
		{form: "[pool %a] child %p, script %* execution timed out (%n sec), terminating", what: WorkerTimeout},
		{form: "[pool %a] child %p exited on signal %n (%s) after %n seconds from start", what: WorkerDied},
		{form: "[pool %a] child %p exited on signal %n (%s - core dumped) after %n seconds from start", what: WorkerDied},
		{form: "[pool %a] child %p exited with code %c after %n seconds from start", what: WorkerDied},
		{form: "[pool %a] child %p started", what: WorkerBorn},
		{form: "Reloading in progress ...", what: MasterReload},
		{form: "Finishing ...", what: MasterStop},
		{form: "Terminating ...", what: MasterStop},
		{form: "exiting, bye-bye!", what: MasterStop},
	}},
	{"puma", pumaPrefix, []rule{
		{form: "! Terminating timed out worker: %p", what: WorkerTimeout},                                         // until 5.2
		{form: "! Terminating timed out worker (worker failed to %* within %n seconds): %p", what: WorkerTimeout}, // until 6.5
		{form: "! Terminating timed out worker (Worker %w failed to %* within %n seconds): %p", what: WorkerTimeout},
		{form: "- Worker %w (PID: %p) booted in %ns, phase: %n", what: WorkerBorn},
		{form: "- Worker %w (PID: %p) booted, phase: %n", what: WorkerBorn}, // until 5.5
		{form: "- Worker %w (pid: %p) booted, phase: %n", what: WorkerBorn}, // until 4
		{form: "- Worker %w (PID: %p) terminating", what: ScaleDown},
		{form: "- Worker %w (pid: %p) terminating", what: ScaleDown},
		{form: "- Starting phased worker restart, phase: %n", what: MasterReload},
		{form: "- Starting worker refork, phase: %n", what: MasterReload},
		{form: "* Restarting...", what: MasterReload},
		{form: "- Gracefully shutting down workers...", what: MasterStop},
		{form: "=== puma shutdown: %*", what: MasterStop},
		{form: "! Unable to load application: %*", what: BootFailed, own: true},
		{form: "! Unable to start worker", what: BootFailed, own: true},
	}},
	{"unicorn", unicornPrefix, []rule{
		{form: "worker=%w PID:%p timeout (%ns > %ns), killing", what: WorkerTimeout},
		{form: "reaped #<Process::Status: pid %p exit %c> worker=%w", what: WorkerDied},
		{form: "reaped #<Process::Status: pid %p %s (signal %n)> worker=%w", what: WorkerDied},
		{form: "reaped #<Process::Status: pid %p %s (signal %n) (core dumped)> worker=%w", what: WorkerDied},
		{form: "worker=%w spawned pid=%p", what: WorkerBorn},
		{form: "reloading config_file=%*", what: MasterReload},
		{form: "gracefully stopping all workers", what: MasterStop}, // WINCH
		{form: "master complete", what: MasterStop},
	}},
	{"sidekiq", sidekiqPrefix, []rule{
		{form: "Shutting down", what: MasterStop, own: true},
		{form: "Received TSTP, no longer accepting new work", what: MasterStop, own: true},
	}},
	{"uwsgi", uwsgiPrefix, []rule{
		{form: "*** HARAKIRI ON WORKER %w (pid: %p, try: %n) ***", what: WorkerTimeout},
		{form: "*** HARAKIRI ON WORKER %w (pid: %p, try: %n, graceful: %a) ***", what: WorkerTimeout}, // from 2.0.22 on
		{form: "DAMN ! worker %w (pid: %p) died, killed by signal %s :( trying respawn ...", what: WorkerDied},
		{form: "DAMN ! worker %w (pid: %p) MYSTERIOUSLY killed by signal %s :( trying respawn ...", what: WorkerDied},
		{form: "DAMN ! worker %w (pid: %p) died :( trying respawn ...", what: WorkerDied},
		{form: "worker %w killed successfully (pid: %p)", what: WorkerDied},
		{form: "!!! uWSGI process %p got Segmentation Fault !!!", what: WorkerDied, signal: "SEGV"}, // it ends by itself then
		{form: "spawned uWSGI worker %w (pid: %p, cores: %n)", what: WorkerBorn},
		{form: "spawned uWSGI worker %w (and the only) (pid: %p, cores: %n)", what: WorkerBorn},
		{form: "Respawned uWSGI worker %w (new pid: %p)", what: WorkerBorn},
		{form: "spawned uWSGI %a %n (pid: %p)", what: HelperBorn}, // a router, a mule
		{form: "respawned uWSGI %a %n (pid: %p)", what: HelperBorn},
		{form: "spawned the uWSGI spooler on dir %* with pid %p", what: HelperBorn},
		{form: "...The work of process %p is done (max requests reached (%n >= %n)). Seeya!", what: MaxRequests}, // 2.1
		{form: "...The work of process %p is done (%*). Seeya!", what: Recycled},
		{form: "...The work of process %p is done. Seeya!", what: Recycled}, // which of its limits it does not say
		{form: "*** EVIL RELOAD ON WORKER %w ADDRESS SPACE: %n (pid: %p) ***", what: Recycled},
		{form: "*** EVIL RELOAD ON WORKER %w RSS: %n (pid: %p) ***", what: Recycled},
		{form: "worker %w lifetime reached, it was running for %n second(s)", what: Recycled},
		{form: "...gracefully killing workers...", what: MasterReload},
		{form: "...brutally killing workers...", what: MasterReload},
		{form: "chain reload starting...", what: MasterReload},
		{form: "SIGINT/SIGTERM received...killing workers...", what: MasterStop},
		{form: "SIGINT/SIGQUIT received...killing workers...", what: MasterStop}, // until 2.0.19
		{form: "graceful shutdown triggered...", what: MasterStop},
		{form: "goodbye to uWSGI.", what: MasterStop},
		{form: "uWSGI worker %w cheaped.", what: ScaleDown},
		{form: "cheap mode enabled: waiting for socket connection...", what: ScaleDown},
		{form: "OOPS ! failed loading app in worker %w (pid %p)", what: BootFailed},
		{form: "OOPS ! failed loading app in worker %w (pid %p) :( trying again...", what: BootFailed},
	}},
}

// gunicornPrefix cuts off "[2026-11-21 23:23:51 +0000] [27057] [INFO] ".
func gunicornPrefix(line string) (by int, message string, ok bool) {
	time, rest, ok := strings.Cut(line, "] [")
	if !ok || !isTime(time, '[') {
		return None, "", false
	}
	pid, rest, ok := strings.Cut(rest, "] [")
	by, isPID := number(pid)
	level, message, ends := strings.Cut(rest, "] ")
	return by, message, ok && isPID && ends && isLevel(level)
}

// phpPrefix cuts off "[21-Nov-2026 23:28:03] WARNING: ", or with log_level = debug
// "[21-Nov-2026 23:28:03.123456] WARNING: pid 30158, fpm_children_bury(), line 289: ".
func phpPrefix(line string) (by int, message string, ok bool) {
	time, rest, ok := strings.Cut(line, "] ")
	if !ok || !isTime(time, '[') {
		return None, "", false
	}
	level, message, ok := strings.Cut(rest, ": ")
	if !ok || !isLevel(level) {
		return None, "", false
	}
	if rest, ok := strings.CutPrefix(message, "pid "); ok {
		pid, rest, _ := strings.Cut(rest, ", ")
		place, rest, found := strings.Cut(rest, ": ")
		if by, isPID := number(pid); found && isPID && strings.Contains(place, "(), line ") {
			return by, rest, true
		}
	}
	return None, message, true
}

// pumaPrefix cuts off "[32436] ".
func pumaPrefix(line string) (by int, message string, ok bool) {
	pid, message, ok := strings.Cut(line, "] ")
	if !ok || pid == "" || pid[0] != '[' {
		return None, "", false
	}
	by, ok = number(pid[1:])
	return by, message, ok
}

// unicornPrefix cuts off "E, [2026-11-21T23:28:41.455547 #32099] ERROR -- : ", as Ruby's logger
// has it.
func unicornPrefix(line string) (by int, message string, ok bool) {
	head, rest, ok := strings.Cut(line, "] ")
	if !ok || len(head) < len("E, [") || head[1:3] != ", " {
		return None, "", false
	}
	time, pid, ok := strings.Cut(head[3:], " #")
	by, isPID := number(pid)
	level, message, ends := strings.Cut(strings.TrimLeft(rest, " "), " -- : ")
	return by, message, ok && isPID && ends && isTime(time, '[') && isLevel(level)
}

// sidekiqPrefix cuts off "INFO  2026-11-21T23:28:41.455Z pid=32099 tid=abc: ".
func sidekiqPrefix(line string) (by int, message string, ok bool) {
	level, rest, ok := strings.Cut(line, " ")
	if !ok || !isLevel(level) {
		return None, "", false
	}
	time, rest, ok := strings.Cut(strings.TrimLeft(rest, " "), " pid=")
	if !ok || !isTime(time, 0) {
		return None, "", false
	}
	pid, rest, ok := strings.Cut(rest, " tid=")
	by, isPID := number(pid)
	tid, message, ends := strings.Cut(rest, ": ")
	return by, message, ok && isPID && ends && span('a', tid) == len(tid)
}

// uwsgiPrefix cuts off "Sat Nov 21 23:24:21 2026 - ", which some lines have.
func uwsgiPrefix(line string) (by int, message string, ok bool) {
	const date = "Sat Nov 21 23:24:21 2026"
	if len(line) > len(date) && line[3] == ' ' && strings.HasPrefix(line[len(date):], " - ") && isDigit(line[len(date)-1]) {
		return None, line[len(date)+len(" - "):], true
	}
	return None, line, true
}

// isTime says whether a text could be a time, behind a bracket if there is to be one.
func isTime(text string, bracket byte) bool {
	if bracket != 0 {
		if text == "" || text[0] != bracket {
			return false
		}
		text = text[1:]
	}
	digits := 0
	for i := range len(text) {
		switch c := text[i]; {
		case isDigit(c):
			digits++
		case c >= 0x80 || c == '[' || c == ']' || c == '"' || c == '=':
			return false
		}
	}
	const clock = len("235959")
	return digits >= clock && len(text) < 40
}

// isLevel says whether a word could be the level of a message.
func isLevel(word string) bool {
	for i := range len(word) {
		if c := word[i]; c < 'A' || c > 'Z' {
			return false
		}
	}
	return len(word) >= len("INFO") && len(word) <= len("CRITICAL")
}

// number reads a process id.
func number(word string) (int, bool) {
	if len(word) == 0 || len(word) > len("4194304") || span('p', word) != len(word) {
		return None, false
	}
	n, err := strconv.Atoi(word)
	return n, err == nil && n > 0
}
