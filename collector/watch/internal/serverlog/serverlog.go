// Package serverlog reads what pre-fork servers log, for the few lines that tell why
// workers are born and die. The rest is no event. Applications write to the same place,
// and what their users want: a line counts only if all of it has the form of the server's
// own, and even then it is a hint that has to agree with what the kernel says.
package serverlog

import (
	"bytes"
	"io"
)

// What is what an event tells.
type What string

// The events of workers.
const (
	WorkerBorn    What = "worker_born"
	WorkerDied    What = "worker_died"    // with its signal or code, if that is told
	WorkerTimeout What = "worker_timeout" // its master is about to kill it
	MaxRequests   What = "max_requests"   // it will end, because it has answered as many as it shall
	Recycled      What = "recycled"       // it will end, because of another limit, of memory or age; or nobody says which
	BootFailed    What = "boot_failed"    // its application cannot be loaded
	HelperBorn    What = "helper_born"    // a child of the master's that is no worker
)

// The events of masters.
const (
	MasterReload What = "master_reload" // all workers will be replaced
	MasterStop   What = "master_stop"   // all will end
	ScaleUp      What = "scale_up"      // there will be more workers
	ScaleDown    What = "scale_down"    // there will be fewer, without the one that is named
)

// None is what a number is that the line does not tell.
const None = -1

// Event is what one line says.
type Event struct {
	What   What
	Server string // whose line it is: gunicorn, uwsgi, unicorn, puma, php-fpm or sidekiq
	// By is the process that has written it; None: it does not say. What is said of workers
	// the master says: anybody else may have been made to.
	By     int
	PID    int    // process that it is about; None, too
	Worker int    // number that the server has given that; None, too
	Signal string // which has ended it, without SIG; empty: none, or it does not say
	Code   int    // with which it has ended; None: by a signal, or it does not say
}

const (
	maxLine   = 4 << 10 // what is longer is cut off
	chunkSize = 32 << 10
	// gap is what stands for bytes that are missing: a line with it is none.
	gap = 0
)

// Read reads lines until r ends, and hands over their events, in order. Whatever they are,
// they are no error. Only that of r is, but not its end. Read keeps nothing of an event.
func Read(r io.Reader, take func(Event)) error {
	var l lines
	chunk := make([]byte, chunkSize)
	for {
		n, err := r.Read(chunk)
		l.add(chunk[:n], take)
		switch {
		case err == io.EOF:
			l.end(take)
			return nil
		case err != nil:
			return err //nolint:wrapcheck // it is the caller's reader
		}
	}
}

// lines makes lines of chunks.
type lines struct {
	begun []byte // the line that has no end yet, at most maxLine of it
	torn  bool   // a part of it is missing
}

func (l *lines) add(b []byte, take func(Event)) {
	for {
		i := bytes.IndexByte(b, '\n')
		if i < 0 {
			l.keep(b)
			return
		}
		if len(l.begun) == 0 && !l.torn { // all of it is here
			l.line(b[:i], take)
		} else {
			l.keep(b[:i])
			l.end(take)
		}
		b = b[i+1:]
	}
}

// keep adds a part to the line that has no end yet.
func (l *lines) keep(part []byte) {
	l.torn = l.torn || bytes.IndexByte(part, gap) >= 0
	l.begun = append(l.begun, part[:min(len(part), maxLine-len(l.begun))]...)
}

func (l *lines) end(take func(Event)) {
	if !l.torn {
		l.line(l.begun, take)
	}
	l.begun, l.torn = l.begun[:0], false
}

func (l *lines) line(line []byte, take func(Event)) {
	kept := line[:min(len(line), maxLine)]
	if bytes.IndexByte(line[len(kept):], gap) >= 0 {
		return
	}
	if e, ok := Parse(kept); ok {
		take(e)
	}
}
