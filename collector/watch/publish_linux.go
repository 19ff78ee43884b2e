package watch

import (
	"maps"
	"slices"
	"time"
)

// publish hands out what is known now.
func (w *Watcher) publish(now time.Time) {
	s := &State{
		Kind: w.book.kind, Target: w.target(), Workers: w.workers(now), Exits: w.book.exited(), Restarts: w.book.restarted(),
		Reloads: map[string]float64{"success": w.book.reloads}, Masters: maps.Clone(w.masters.restarts), Used: maps.Clone(w.book.used),
		Deaths: slices.Clone(w.book.deaths), Features: w.features(),
	}
	if m := w.masters.present; m != nil && !m.gone {
		s.Master, s.StartTime = m.PID, m.born.Born(w.boot)
	}
	w.state.Store(s)
}

// target is how many workers there should be: by gunicorn's own word, else as its master's doings show.
func (w *Watcher) target() int {
	const unknown = -1
	if m := w.masters.present; m == nil || m.gone {
		return unknown
	}
	switch told := w.inside.control.told(); {
	case told != nil && told.err == nil:
		return told.target
	case w.book.starting:
		return unknown
	}
	return w.book.expected
}

func (w *Watcher) workers(now time.Time) []Worker {
	all := []Worker{}
	for _, m := range w.book.living {
		if m.ended {
			continue // its death is told when it is known how it has ended
		}
		all = append(all, Worker{
			Slot: m.slot, PID: m.PID, Start: m.Start, State: w.stateOf(m, now), Born: m.born, LifeSign: m.sign,
		})
	}
	slices.SortFunc(all, func(a, b Worker) int { return a.PID - b.PID })
	return all
}

// stateOf is a worker's state, as far as it shows.
func (w *Watcher) stateOf(m *member, now time.Time) string {
	d := w.masters.doings(m.master)
	patience := w.inside.patience()
	switch {
	case d.stopping, w.book.renewal != nil && w.book.renewal.isTrue(w.book) && m.born.Before(w.book.renewal.since):
		return "stopping"
	case m.paused, patience > 0 && !m.sign.IsZero() && now.Sub(m.sign) > patience:
		return "unresponsive"
	case m.booting:
		return "starting"
	}
	return "running"
}

// exited returns how many workers have ended in each way.
func (b *book) exited() (all []Exit) {
	for e, n := range b.exits {
		e.Count = n
		all = append(all, e)
	}
	return all
}

// restarted returns how often workers were restarted for each reason.
func (b *book) restarted() (all []Restart) {
	for r, n := range b.restarts {
		r.Count = n
		all = append(all, r)
	}
	return all
}

// features are what can be watched here, and what cannot. All of it needs a master.
func (w *Watcher) features() []Feature {
	missing := w.masters.whyNone()
	all := []Feature{{Name: "master", Reason: missing}}
	if missing != "" {
		return all
	}
	all = append(all, Feature{Name: "exit_status", Reason: w.exits.Feature().Reason})
	if w.book.kind != Gunicorn {
		return all
	}
	heartbeat := w.inside.beats.why
	timeout := ""
	if w.inside.patience() == 0 && !w.inside.known().Timeout.Known {
		timeout = "gunicorn's timeout is not known: --master.timeout tells it"
	}
	return append(all, Feature{Name: "worker_heartbeat", Reason: heartbeat}, Feature{Name: "worker_timeout", Reason: timeout}, w.controlFeature())
}

func (w *Watcher) controlFeature() Feature {
	f := Feature{Name: "control_socket"}
	switch told := w.inside.control.told(); {
	case w.inside.control.socket.Load() == nil:
		f.Reason = "it is switched off, or where it is cannot be known"
	case told == nil:
		f.Reason = "it was not asked yet"
	case told.err != nil:
		f.Reason = "it does not answer: gunicorn has one since 25.1"
	}
	return f
}
