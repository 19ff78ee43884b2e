package app

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/prefork-exporter/prefork_exporter/collector"
	"github.com/prefork-exporter/prefork_exporter/collector/watch"
)

// observed is a target of which more is known than its files tell: its master, its accept
// queues, its control group. It goes on over reloads for as long as its target stays.
type observed struct {
	target
	key string // what it is known by

	source  watch.Source   // what is known of its master; nil: it has none
	watcher *watch.Watcher // follows the master from outside; nil: nobody has to
	queues  *collector.Listen
	workers *collector.Worker // nil: there are none, or that collector is switched off

	collectors map[string]collector.Collector // with the target's labels, by name
	families   []string                       // that they expose
	search     search

	cancel context.CancelFunc // nil: it does not run
	group  sync.WaitGroup
}

// observedTargets returns those of the targets that are observed. That of the flags is one
// in any case where no other is: it has at least a control group.
func (o Options) observedTargets(all []target) ([]target, error) {
	var watched []target
	own := target{name: "the flags", place: "the flags", own: true, master: o.Master}
	for _, t := range all {
		switch {
		case t.own:
			own = t
		case t.master.given() || len(t.listen) > 0:
			watched = append(watched, t)
		}
	}
	own.listen = o.QueueAddresses
	own.started = o.Supervisor != nil
	if own.master.given() || len(own.listen) > 0 || own.started || len(watched) == 0 {
		watched = slices.Insert(watched, 0, own)
	}
	return watched, checkObserved(watched)
}

// checkObserved refuses targets whose series nobody could tell apart.
func checkObserved(targets []target) error {
	known := map[string]target{}
	for _, t := range targets {
		labels := strings.Join(labelPairs(t.labels, "%s=%q"), ",")
		if first, ok := known[labels]; ok {
			return fmt.Errorf("%s: labels {%s}: those of %s, too: want labels that differ", t.place, labels, first.place)
		}
		known[labels] = t
	}
	return nil
}

// identity returns what a target is known by.
func (t target) identity() string {
	return fmt.Sprintf("%q %+v %q %t", labelPairs(t.labels, "%s=%s"), t.master, t.listen, len(t.directories) == 0)
}

// observe returns a target as it is observed. Nothing runs yet.
func (a *App) observe(t target) (*observed, error) {
	w := &observed{target: t, key: t.identity(), collectors: map[string]collector.Collector{}}
	if err := a.follow(w); err != nil {
		return nil, err
	}
	for _, spec := range Collectors() {
		if spec.each == nil || !slices.Contains(a.o.Collectors, spec.Name) {
			continue
		}
		c, err := spec.each(a, w)
		if err != nil {
			return nil, err
		}
		if f, ok := c.(interface{ Families() []string }); ok && w.source != nil {
			w.families = append(w.families, f.Families()...)
		}
		w.collectors[spec.Name] = collector.Labelled(t.labels, c)
	}
	return w, nil
}

// follow sets who knows the target's master.
func (a *App) follow(w *observed) error {
	o := watch.Options{
		Kind: watch.Kind(w.master.Kind), Timeout: w.master.Timeout, StateFile: a.stateFile(w.target),
		Logger: a.log.With("target", w.name),
	}
	switch {
	case w.started && a.o.Wraps:
		o.Parent, o.Master = &a.supervision, watch.FindChild(a.supervision.server)
	case w.started:
		w.source = &a.supervision
		return nil
	case w.master.given():
		finder, err := w.master.finder()
		if err != nil {
			return fmt.Errorf("%s: %w", w.place, err)
		}
		o.Master = finder
	default:
		return nil
	}
	o.OOMKills = collector.NewCgroup(collector.CgroupOptions{Mounted: a.o.CgroupFS, Process: w.masterPID}).OOMKills
	w.watcher = watch.New(o)
	w.source = w.watcher
	return nil
}

// stateFile returns where the watcher of a target keeps what outlives the exporter. Who
// starts servers beside tells itself from others by where it serves.
func (a *App) stateFile(t target) string {
	if a.o.StateDir == "" {
		return ""
	}
	h := sha256.New()
	_, _ = fmt.Fprintf(h, "%q %q %d %q %q %q", labelPairs(t.labels, "%s=%s"), t.master.PIDFile, t.master.PID, t.master.Process, t.master.User, t.master.Cgroup)
	if t.started {
		_, _ = fmt.Fprintf(h, "%q", a.o.Listen)
	}
	return filepath.Join(a.o.StateDir, "watch-"+hex.EncodeToString(h.Sum(nil)[:8])+".json")
}

// process returns what tells the process whose sockets and control group are watched: that
// which starts the server beside, our parent, or the master. Nil: there is none.
func (w *observed) process() func() int {
	switch {
	case w.started:
		return os.Getppid
	case w.watcher != nil:
		return w.masterPID
	}
	return nil
}

// masterPID returns the process id of the master; 0: it is not there, or nobody knows.
func (w *observed) masterPID() int {
	if w.source == nil {
		return 0
	}
	s, ok := w.source.State()
	if !ok {
		return 0
	}
	return s.Master
}

// start begins what goes on between scrapes.
func (w *observed) start(log *slog.Logger) {
	ctx, cancel := context.WithCancel(context.Background())
	w.cancel = cancel
	if w.watcher != nil {
		w.group.Go(func() {
			if err := w.watcher.Run(ctx); err != nil {
				log.Error("The master is not watched any more", "target", w.name, "err", err)
			}
		})
	}
	if w.queues != nil {
		w.group.Go(func() { w.queues.Run(ctx) })
	}
	if w.workers != nil {
		w.group.Go(func() { w.workers.Run(ctx) })
	}
}

// stop ends it, if it has begun, and lets go of what is open.
func (w *observed) stop() error {
	if w.cancel != nil {
		w.cancel()
		w.group.Wait()
	}
	var err error
	if w.queues != nil {
		err = errors.Join(err, w.queues.Close())
	}
	if w.workers != nil {
		err = errors.Join(err, w.workers.Close())
	}
	return err
}

// observeAll makes those targets the observed ones. One that was observed goes on; one that
// is not observed any more is stopped. What is new is started if the sidecar runs.
func (a *App) observeAll(targets []target) error {
	before := map[string]*observed{}
	for _, w := range a.observed() {
		before[w.key] = w
	}
	var now, fresh []*observed
	for _, t := range targets {
		w := before[t.identity()]
		if w == nil {
			var err error
			if w, err = a.observe(t); err != nil {
				return errors.Join(err, stopAll(fresh))
			}
			fresh = append(fresh, w)
		}
		delete(before, w.key)
		now = append(now, w)
	}
	if a.running {
		for _, w := range fresh {
			w.start(a.log)
		}
	}
	a.present.Store(&now)
	if err := stopAll(slices.Collect(maps.Values(before))); err != nil {
		a.log.Error("A target that is not observed any more is not let go of", "err", err)
	}
	return nil
}

func stopAll(targets []*observed) (err error) {
	for _, w := range targets {
		err = errors.Join(err, w.stop())
	}
	return err
}

// observed returns what is observed now.
func (a *App) observed() []*observed {
	if all := a.present.Load(); all != nil {
		return *all
	}
	return nil
}

// mastersThere says whether every master is there that is looked for.
func (a *App) mastersThere() bool {
	return !slices.ContainsFunc(a.observed(), func(w *observed) bool { return w.watcher != nil && !w.started && w.masterPID() == 0 })
}

// ofTargets is the collector of that name of each target that is observed. One that fails
// costs the others nothing.
type ofTargets struct {
	app  *App
	name string
}

// Describe implements [collector.Collector].
func (c ofTargets) Describe(ch chan<- *prometheus.Desc) {
	for _, w := range c.app.observed() {
		w.collectors[c.name].Describe(ch)
	}
}

// Update implements [collector.Collector].
func (c ofTargets) Update(ctx context.Context, out *collector.Output) error {
	var errs []error
	for _, w := range c.app.observed() {
		if err := w.collectors[c.name].Update(ctx, out); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", w.name, err))
		}
	}
	return errors.Join(errs...)
}

// shadowing returns the families that are observed: files may not have them then.
func (a *App) shadowing() (names []string) {
	for _, w := range a.observed() {
		names = append(names, w.families...)
	}
	slices.Sort(names)
	return slices.Compact(names)
}
