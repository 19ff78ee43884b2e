package watch

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prefork-exporter/prefork_exporter/collector/internal/procfs"
	"github.com/prefork-exporter/prefork_exporter/collector/watch/internal/gunicorn"
)

// heartbeats are the signs of life that gunicorn's workers give. It is for one goroutine.
type heartbeats struct {
	proc procfs.FS
	of   map[identity]*gunicorn.Heartbeat
	next time.Time // when the missing ones are looked for again
	why  string    // why one is missing that should be there; empty: none is
}

// Some workers have none yet, others may not be looked at.
const (
	beatsEvery       = time.Second
	mostBeatsAtATime = 50
)

// look notes the last sign of each worker. It returns those that are none: all of
// gunicorn's have a heartbeat.
func (h *heartbeats) look(living map[identity]*member, now time.Time) (none []*member) {
	if now.After(h.next) {
		h.next = now.Add(beatsEvery)
		none = h.open(living, now)
	}
	for who, beat := range h.of {
		m := living[who]
		if m == nil {
			_ = beat.Close() // it was read only
			delete(h.of, who)
			continue
		}
		m.note(beat)
	}
	return none
}

func (m *member) note(beat *gunicorn.Heartbeat) {
	sign, begun := beat.LastSign()
	m.sign, m.booting = sign, !begun
}

// open opens those that are not open yet, and returns whoever has none.
func (h *heartbeats) open(living map[identity]*member, now time.Time) (none []*member) {
	h.why = ""
	left := mostBeatsAtATime
	for who, m := range living {
		if h.of[who] != nil || left == 0 {
			continue
		}
		left--
		beat, err := gunicorn.OpenHeartbeat(h.proc, m.master, who.PID)
		switch {
		case err == nil:
			h.of[who] = beat
		case errors.Is(err, fs.ErrPermission):
			h.why = "the descriptors of the server may not be read"
			return none
		case (errors.Is(err, gunicorn.ErrNoHeartbeat) || errors.Is(err, gunicorn.ErrUnsettled)) && now.Sub(m.born) > settled:
			none = append(none, m)
		}
	}
	return none
}

// settled is how old a worker is that has closed what it has inherited.
const settled = 3 * time.Second

// last reads the last sign of one that has ended.
func (h *heartbeats) last(m *member) {
	if beat := h.of[m.identity]; beat != nil {
		m.note(beat)
	}
}

func (h *heartbeats) close() {
	for _, beat := range h.of {
		_ = beat.Close() // it was read only
	}
	clear(h.of)
}

// askEvery is how often gunicorn's control socket is asked: each time costs its master a
// millisecond. One that does not answer is asked more and more seldom: most have none.
const (
	askEvery  = 5 * time.Second
	askSeldom = 40 * time.Second
)

// control asks gunicorn's control socket, where it has one. Its methods are safe for concurrent use.
type control struct {
	socket atomic.Pointer[gunicorn.Control]
	answer atomic.Pointer[controlAnswer]
}

// controlAnswer is what the socket has told.
type controlAnswer struct {
	of       *gunicorn.Control
	target   int
	settings gunicorn.Settings
	err      error
}

// run asks until ctx is done.
func (c *control) run(ctx context.Context) {
	tick := time.NewTicker(askEvery)
	defer tick.Stop()
	var pause, next time.Duration
	for ; ; next -= askEvery {
		socket, told := c.socket.Load(), c.told()
		if told == nil { // there is another
			pause, next = 0, 0
		}
		if socket != nil && next <= 0 {
			a := ask(ctx, socket)
			c.answer.Store(a)
			pause = a.pause(pause)
			next = pause
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// pause returns how long to wait for the next question, given how long it was before.
func (a *controlAnswer) pause(before time.Duration) time.Duration {
	if a.err == nil {
		return askEvery
	}
	return min(max(2*before, askEvery), askSeldom)
}

func ask(ctx context.Context, socket *gunicorn.Control) *controlAnswer {
	const patience = time.Second
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	stats, err := socket.Stats(ctx)
	if err != nil {
		return &controlAnswer{of: socket, err: err}
	}
	settings, err := socket.Config(ctx)
	return &controlAnswer{of: socket, target: stats.Target, settings: settings, err: err}
}

// told returns what the present socket has told; nil: nothing.
func (c *control) told() *controlAnswer {
	if a := c.answer.Load(); a != nil && a.of == c.socket.Load() {
		return a
	}
	return nil
}

// inside is what gunicorn tells of itself. It is for one goroutine, but for its control.
type inside struct {
	proc     procfs.FS
	timeout  time.Duration // where gunicorn tells none
	beats    heartbeats
	control  control
	settings gunicorn.Settings // of the command line
}

func newInside(proc procfs.FS, timeout time.Duration) *inside {
	return &inside{proc: proc, timeout: timeout, beats: heartbeats{proc: proc, of: map[identity]*gunicorn.Heartbeat{}}}
}

// follow turns to another master.
func (i *inside) follow(m *master, k Kind) {
	i.settings = gunicorn.Settings{}
	i.control.socket.Store(nil)
	if k == UWSGI && slices.ContainsFunc(m.args, func(arg string) bool { return strings.HasPrefix(arg, "--max-requests") }) {
		i.settings.MaxRequests = gunicorn.Setting[int]{Value: 1, Known: true} // how many does not matter
	}
	if k != Gunicorn {
		return
	}
	start, err := gunicorn.StartOf(i.proc, m.PID)
	if err != nil {
		return
	}
	i.settings = gunicorn.SettingsOf(start)
	if paths := start.ControlSockets(i.settings); len(paths) > 0 {
		i.control.socket.Store(gunicorn.NewControl(i.proc, m.PID, paths))
	}
}

// known returns the settings as far as anybody tells them.
func (i *inside) known() gunicorn.Settings {
	if told := i.control.told(); told != nil && told.err == nil {
		return told.settings
	}
	return i.settings
}

// patience is how long a worker may give no sign of life; 0: nobody knows, or for ever.
func (i *inside) patience() time.Duration {
	if s := i.known(); s.Timeout.Known {
		return s.Timeout.Value
	}
	return i.timeout
}

// ended completes what is known of a worker that has ended.
func (i *inside) ended(m *member, e *ending, at time.Time) {
	i.beats.last(m)
	e.silence, e.timeout = -1, i.patience()
	if !m.sign.IsZero() {
		e.silence = max(at.Sub(m.sign), 0)
	}
	limit := i.known().MaxRequests
	e.limited = limit.Known && limit.Value > 0
}
