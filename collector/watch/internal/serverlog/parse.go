package serverlog

import (
	"bytes"
	"strconv"
	"strings"
)

// Parse returns the event of a line, without its end. Most lines have none.
func Parse(line []byte) (Event, bool) {
	if !mayCount(line) {
		return Event{}, false
	}
	text := strings.TrimSuffix(string(line), "\r")
	for _, s := range servers {
		if by, message, ok := s.prefix(text); ok {
			return s.event(by, message)
		}
	}
	return Event{}, false
}

// event returns the event of a message.
func (s server) event(by int, message string) (Event, bool) {
	for _, r := range s.rules {
		e := Event{What: r.what, Server: s.name, By: by, PID: None, Worker: None, Signal: r.signal, Code: None}
		if !match(r.form, message, &e) {
			continue
		}
		if r.own {
			e.PID = by
		}
		return e, true
	}
	return Event{}, false
}

// mayCount says whether a line is worth a look: most lines are not.
func mayCount(line []byte) bool {
	if len(line) < 2 || !opens[line[0]] || line[0] == '[' && !isDigit(line[1]) {
		return false
	}
	return bytes.IndexByte(line, gap) < 0
}

// match says whether a message has a form, and fills in what that names:
//
//	%p a process id         %s a signal, by name or number
//	%w a worker's number    %c an exit code
//	%n a number that does not matter, such as 1.5
//	%a a word: no blanks, no brackets
//	%* anything, up to the last place of the text that comes next
//
// When it does not match, the event is void.
func match(form, message string, e *Event) bool {
	for form != "" {
		if form[0] != '%' {
			if message == "" || message[0] != form[0] {
				return false
			}
			form, message = form[1:], message[1:]
			continue
		}
		kind, rest := form[1], form[2:]
		if kind == '*' {
			return matchLast(rest, message, e)
		}
		n := span(kind, message)
		if n == 0 || !e.set(kind, message[:n]) {
			return false
		}
		form, message = rest, message[n:]
	}
	return message == ""
}

// matchLast matches a form with the end of a message, as late as can be.
func matchLast(form, message string, e *Event) bool {
	if form == "" {
		return true
	}
	literal, _, _ := strings.Cut(form, "%")
	at := strings.LastIndex(message, literal)
	return at >= 0 && match(form, message[at:], e)
}

// span returns how much of a text is of a kind.
func span(kind byte, text string) int {
	not := func(of func(c byte) bool) int {
		for i := range len(text) {
			if !of(text[i]) {
				return i
			}
		}
		return len(text)
	}
	switch kind {
	case 'n':
		return not(func(c byte) bool { return isDigit(c) || c == '.' })
	case 's':
		return not(func(c byte) bool { return isDigit(c) || 'A' <= c && c <= 'Z' || c == '+' || c == '-' })
	case 'a':
		return not(func(c byte) bool { return c > ' ' && !strings.ContainsRune("()[]", rune(c)) })
	default:
		return not(isDigit)
	}
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// set fills in a field. It says whether the word can be that.
func (e *Event) set(kind byte, word string) bool {
	switch kind {
	case 's':
		e.Signal = signalName(word)
		return e.Signal != ""
	case 'n', 'a':
		return true
	}
	const most = 1 << 22 // process ids of Linux are smaller
	n, err := strconv.Atoi(word)
	if err != nil || n > most {
		return false
	}
	switch kind {
	case 'p':
		e.PID = n
		return n > 0
	case 'w':
		e.Worker = n
	case 'c':
		e.Code = n
		return n < 256
	}
	return true
}

// signalName returns a signal without SIG; empty if there is none of that name or number.
func signalName(word string) string {
	if n, err := strconv.Atoi(word); err == nil {
		if n <= 0 || n > 64 {
			return ""
		}
		if n < len(signals) {
			return signals[n]
		}
		return word
	}
	name, ok := strings.CutPrefix(word, "SIG")
	if !ok || name == "" || len(name) > len("RTMAX-14") {
		return ""
	}
	return name
}

// signals are Linux's by number, the same on all architectures that we are built for but
// mips, where some would have another's name.
var signals = [...]string{
	1: "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM",
	"STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
}
