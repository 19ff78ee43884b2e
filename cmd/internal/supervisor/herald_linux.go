package supervisor

import (
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// herald tells who has started a master how that is, in lines of sd_notify(3). Nobody
// waits for who listens.
type herald struct {
	words chan []string
	done  chan struct{} // closed when all has been told

	serves, reloads, stops bool
	status                 string
}

// newHerald returns a herald that speaks by tell, until close.
func newHerald(tell func(lines ...string)) *herald {
	const room = 64
	h := &herald{words: make(chan []string, room), done: make(chan struct{})}
	go func() {
		defer close(h.done)
		for lines := range h.words {
			tell(lines...)
		}
	}()
	return h
}

// close waits until all has been told, as far as it soon is.
func (h *herald) close() {
	close(h.words)
	select {
	case <-h.done:
	case <-time.After(soon):
	}
}

func (h *herald) say(lines ...string) {
	select {
	case h.words <- lines:
	default: // nobody listens
	}
}

// beat is a sign of life, unless those before have not been told yet.
func (h *herald) beat() {
	if len(h.words) == 0 {
		h.say("WATCHDOG=1")
	}
}

// hear tells what a report has that is new.
func (h *herald) hear(r Report) {
	var lines []string
	running := r.running()
	first := !h.serves && r.Target > 0 && running >= r.Target
	switch {
	case r.Stopping && !h.stops:
		lines = append(lines, "STOPPING=1")
	case r.Reloading && !h.reloads:
		lines = append(lines, "RELOADING=1", "MONOTONIC_USEC="+monotonicMicroseconds())
	case first, !r.Reloading && h.reloads && h.serves:
		lines = append(lines, "READY=1", "MAINPID="+strconv.Itoa(os.Getpid()))
	}
	if status := fmt.Sprintf("STATUS=%d of %d workers run", running, r.Target); status != h.status {
		h.status = status
		lines = append(lines, status)
	}
	h.serves, h.reloads, h.stops = h.serves || first, r.Reloading, r.Stopping
	if len(lines) > 0 {
		h.say(lines...)
	}
}

func (r Report) running() (n int) {
	for _, w := range r.Workers {
		if w.State == Running {
			n++
		}
	}
	return n
}

// monotonicMicroseconds reads the clock by which systemd tells reloads apart.
func monotonicMicroseconds() string {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &t) // it cannot fail
	return strconv.FormatInt(t.Nano()/1000, 10)
}
