package watch

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prefork-exporter/prefork_exporter/collector/internal/pace"
	"github.com/prefork-exporter/prefork_exporter/collector/internal/procfs"
	"github.com/prefork-exporter/prefork_exporter/collector/internal/sockdiag"
	"github.com/prefork-exporter/prefork_exporter/collector/watch/internal/exits"
)

const (
	// pollEvery is how often new workers are looked for. One that lives for less may be missed.
	pollEvery = 500 * time.Millisecond
	// For lively after a death it is every livelyPoll: what comes next may not live
	// long, and what takes the place of one that has ended has to be known when that settles.
	livelyPoll, lively = 25 * time.Millisecond, settling + 500*time.Millisecond
	// measureEvery is how often the living are looked at, so that it is known what they were when they end.
	measureEvery = time.Second
	// findEvery is how often it is asked whether there is another master, while there is one.
	findEvery = 3 * time.Second
)

// Watcher follows one master and its workers. Its methods are safe for concurrent use.
type Watcher struct {
	o     Options
	proc  procfs.FS
	log   *slog.Logger
	state atomic.Pointer[State]

	// What follows belongs to Run.
	boot       time.Time // of the machine
	exits      *exits.Watcher
	tree       tree
	book       *book
	slots      *slotKeeper
	masters    *masters
	candidates map[identity]candidate // that do not show yet whether they are workers
	lost       map[identity]bool      // workers that are gone, and of whose end nothing was told yet
	measured   time.Time
	died       time.Time // when the last one did
	memory     *memoryKills
	inside     *inside
	signals    map[string]float64 // that the parent has told of
	obeyed     time.Time          // when it was asked for them
	heard      chan LogEvent
	kernel     *sockdiag.Kernel
}

// candidate is a process that was last seen then.
type candidate struct {
	found
	since time.Time
}

// New returns a watcher of what the options name. [Watcher.Run] does the work.
func New(o Options) *Watcher {
	if o.Proc == "" {
		o.Proc = "/proc"
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	proc, slots := procfs.New(o.Proc), newSlots()
	return &Watcher{
		o: o, proc: proc, log: o.Logger, book: newBook(slots), slots: &slotKeeper{slots: slots, file: o.StateFile, proc: proc},
		tree: tree{proc: proc, known: map[int]relation{}}, masters: newMasters(proc, o.Master),
		candidates: map[identity]candidate{}, lost: map[identity]bool{}, memory: &memoryKills{read: o.OOMKills},
		inside: newInside(proc, o.Timeout), kernel: sockdiag.NewAt(o.Proc), heard: make(chan LogEvent, mostHeard),
	}
}

// State implements [Source]. Nothing is known until [Watcher.Run] has looked once, but for
// what the parent knows.
func (w *Watcher) State() (State, bool) {
	var parent State
	known := false
	if w.o.Parent != nil {
		parent, known = w.o.Parent.State()
	}
	s := w.state.Load()
	if s == nil || !known {
		if s == nil {
			return parent, known
		}
		return *s, true
	}
	both := *s
	both.Signals, both.Masters, both.StartTime = parent.Signals, parent.Masters, parent.StartTime
	both.Backoff, both.Loop, both.Stopping, both.Over = parent.Backoff, parent.Loop, parent.Stopping, parent.Over
	return both, true
}

// Run watches until ctx is done.
func (w *Watcher) Run(ctx context.Context) (err error) {
	if w.boot, err = procfs.Boot(); err != nil {
		return err
	}
	if w.exits, err = exits.Open(exits.Options{Proc: w.proc, Logger: w.log}); err != nil {
		return err
	}
	if err := w.slots.load(); err != nil {
		w.log.Warn("Workers get new slots", "err", err)
	}
	var asking sync.WaitGroup
	asking.Go(func() { w.inside.control.run(ctx) })
	defer asking.Wait()
	for {
		now := time.Now()
		w.look(now)
		poll := pace.Rest(time.Now(), pollEvery)
		if now.Sub(w.died) < lively {
			poll = livelyPoll
		}
		select {
		case <-ctx.Done():
			w.inside.beats.close()
			return errors.Join(w.kernel.Close(), w.exits.Close())
		case <-time.After(poll):
		case d := <-w.exits.Deaths():
			w.bury(d)
		case e := <-w.heard:
			w.heed(e, time.Now())
		}
	}
}

// look finds out what there is to know now, and tells it.
func (w *Watcher) look(now time.Time) {
	w.buryAll()
	w.follow(now)
	w.meet(now)
	due := now.Sub(w.measured) >= measureEvery
	if due {
		w.measured = now
		w.measure(now)
	}
	if due || len(w.book.unsure) > 0 { // of a kill it is known before anybody hears that its victim has ended
		w.book.killedForMemory(w.memory.news(), now)
	}
	if w.book.kind == Gunicorn {
		for _, m := range w.inside.beats.look(w.book.living, now) {
			w.dismiss(m.PID)
		}
	}
	w.obey(now)
	w.book.settle(w.masters.doings, now)
	w.masters.drop(w.book.living)
	if err := w.slots.save(w.book.living); err != nil {
		w.log.Warn("The slots of workers do not outlive the exporter", "err", err)
	}
	w.publish(now)
}

// follow finds out which masters there are.
func (w *Watcher) follow(now time.Time) {
	before := w.masters.present
	w.masters.look(now)
	m := w.masters.present
	if m == before && (m == nil || w.o.Kind != "" || m.kind == w.book.kind) {
		return
	}
	if m == before { // it has become another program
		clear(w.tree.known)
	} else if before == nil || before.heir != m || !m.inherits { // else its workers come beside those of before
		w.book.begin()
	}
	w.book.kind = cmp.Or(w.o.Kind, m.kind)
	w.tree.preset, w.tree.listeners = presetOf(w.book.kind), nil
	if w.book.kind == UWSGI {
		w.tree.listeners = &listeners{w.kernel}
	}
	w.inside.follow(m, w.book.kind)
	w.watch(m.identity)
	w.log.Info("A master is watched", "pid", m.PID, "kind", w.book.kind)
}

// watch has the end of a process told. That of one that has ended before is lost.
func (w *Watcher) watch(who identity) (isThere bool) {
	err := w.exits.Add(exits.Process{PID: who.PID, Start: who.Start})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		w.log.Warn("How a process ends will not be known", "pid", who.PID, "err", err)
	}
	return !errors.Is(err, fs.ErrNotExist)
}

// meet notes the workers that have come.
func (w *Watcher) meet(now time.Time) {
	maps.DeleteFunc(w.candidates, func(_ identity, c candidate) bool { return now.Sub(c.since) > 2*undecidedEnds })
	for _, f := range w.tree.news(w.masters.all, now, w.boot) {
		who := identity{f.PID, f.Start}
		_, waited := w.candidates[who]
		switch {
		case f.isMaster(w.book.kind):
			w.masters.inherit(f)
			w.watch(who)
		case f.role == helper:
			w.book.dismiss(who)
			w.exits.Remove(exits.Process{PID: who.PID, Start: who.Start})
		case !waited && !w.watch(who):
			w.tree.forget(f.PID)
			continue // what has ended so soon need not have been a worker
		case f.role == undecided:
			w.candidates[who] = candidate{f, now}
			continue
		default:
			w.birth(f, now)
		}
		delete(w.candidates, who)
	}
}

func (w *Watcher) birth(f found, now time.Time) {
	m := member{identity: identity{f.PID, f.Start}, master: f.master.PID, born: f.Born(w.boot), placed: f.index != ""}
	m.measure(f.Stat)
	w.book.birth(m, f.index, now)
}

// measure notes what a worker is now.
func (m *member) measure(s procfs.Stat) {
	m.paused = s.State == 'T' || s.State == 't'
	m.ended = s.Gone()
	m.used = Used{
		User: procfs.Seconds(s.User + s.ChildrenUser), System: procfs.Seconds(s.System + s.ChildrenSystem),
	}
	if s.ResidentPages > 0 {
		m.resident = float64(s.ResidentPages) * pageSize()
	}
}

// measure looks at all workers. One that is gone, though its end was not told, is noted
// when that is still so the next time.
func (w *Watcher) measure(now time.Time) {
	lost := map[identity]bool{}
	for who, m := range w.book.living {
		s, err := w.proc.Stat(who.PID)
		switch {
		case err == nil && s.Start == who.Start:
			m.measure(s)
			w.place(m, now)
		case err == nil || errors.Is(err, fs.ErrNotExist):
			lost[who] = true
		}
	}
	for who := range lost {
		if w.lost[who] {
			w.book.end(who, ending{silence: -1}, now)
			w.tree.forget(who.PID)
		}
	}
	w.lost = lost
}

// place gives a worker the slot that it announces, which it does soon or never, unless its
// server has given it one.
func (w *Watcher) place(m *member, now time.Time) {
	const soon = time.Minute
	if w.o.Announced == nil || m.placed || now.Sub(m.born) > soon {
		return
	}
	if slot, ok := w.o.Announced(m.PID); ok {
		m.slot, m.placed = w.book.slots.take(m.identity, slot), true
	}
}

// buryAll notes all deaths that were told.
func (w *Watcher) buryAll() {
	for {
		select {
		case d := <-w.exits.Deaths():
			w.bury(d)
		default:
			return
		}
	}
}

// bury notes the end of a process.
func (w *Watcher) bury(d exits.Death) {
	who := identity{d.PID, d.Start}
	w.tree.forget(d.PID)
	if w.masters.end(who, d) {
		return
	}
	if f, is := w.candidates[who]; is {
		delete(w.candidates, who)
		if d.Stat != nil {
			f.Stat = *d.Stat
		}
		if f.Forked { // and has run no other program
			w.birth(f.found, d.At)
		}
	}
	m, is := w.book.living[who]
	if !is {
		return
	}
	if d.Stat != nil {
		m.measure(*d.Stat)
	}
	e := ending{exitStatus: exitStatus{d.Status, d.Known}}
	w.inside.ended(m, &e, d.At)
	w.book.end(who, e, d.At)
	w.died = d.At
}

// obey notes what the operator has told the master, as far as our own parent has heard it.
func (w *Watcher) obey(now time.Time) {
	if w.o.Parent == nil {
		return
	}
	s, ok := w.o.Parent.State()
	if !ok {
		return
	}
	for _, signal := range reloadSignals(w.book.kind) {
		if s.Signals[signal] > w.signals[signal] && w.signals != nil {
			w.book.told(now, w.obeyed)
		}
	}
	w.signals, w.masters.stopping, w.obeyed = s.Signals, s.Stopping, now
}
