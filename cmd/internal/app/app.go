// Package app builds and runs the sidecar from one Options value: it follows
// the metric directories and serves what they merge to.
package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/common/version"
	"github.com/prometheus/exporter-toolkit/web"

	"github.com/prefork-exporter/prefork_exporter/collector"
	"github.com/prefork-exporter/prefork_exporter/collector/watch"
	"github.com/prefork-exporter/prefork_exporter/multiproc"
)

// App is one sidecar. It runs once: [App.Run], or [App.Start] and later
// [App.Stop]. Reload may be called at any time between, by any goroutine.
type App struct {
	o         Options
	log       *slog.Logger
	merger    *multiproc.Merger
	multiproc *collector.Multiproc // nil: that collector is switched off
	set       *collector.Set
	reloads   *reloads
	handler   http.Handler
	began     time.Time

	supervision supervision
	hear        func(watch.LogEvent) // gets each event of the server's log, one at a time
	hearing     sync.Mutex           // events of the server's log come one at a time

	present atomic.Pointer[[]*observed] // what is observed now

	reloading sync.Mutex // one at a time; guards what follows
	targets   []target
	direct    map[string]multiproc.DirectMetric
	running   bool // what is observed is observed all the time
	hides     bool // what files have of a master is hidden by what is observed of one

	listeners []net.Listener
	failed    chan error // of serving; has room for every listener
	started   []started
}

// New returns a sidecar that has checked its options and its files, and has
// not begun anything yet: there is nothing to stop.
func New(o Options) (*App, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if err := o.Validate(); err != nil {
		return nil, err
	}
	if err := checkWebConfig(o.WebConfigFile); err != nil {
		return nil, err
	}
	a := &App{o: o, log: o.Logger, reloads: newReloads(), began: time.Now()}
	a.supervision.told = make(chan struct{})
	a.hear = a.tellWatcher
	a.hides = true
	if err := a.plan(); err != nil {
		return nil, err
	}
	a.hides = slices.ContainsFunc(a.observed(), func(w *observed) bool { return w.source != nil })
	a.merger = multiproc.New(multiproc.Options{
		Logger: o.Logger, Limits: o.Limits, StateDir: o.StateDir,
		Refuse: collector.Refused(), Shadow: collector.Shadowed(a.shadowing()...),
	})
	var err error
	a.handler, err = a.newHandler()
	return a, err
}

// Check returns what [New] would object to, but for having no directory: that
// may be named elsewhere. It says how many targets and directories there are.
func Check(o Options) (targets, directories int, err error) {
	if err := o.Validate(); err != nil {
		return 0, 0, err
	}
	if err := checkWebConfig(o.WebConfigFile); err != nil {
		return 0, 0, err
	}
	all, c, err := o.read()
	if errors.Is(err, errNoDirectory) {
		err = nil
	}
	if err == nil {
		_, err = o.observedTargets(all)
	}
	return len(all), len(sources(all, c.direct)), err
}

func checkWebConfig(file string) error {
	if err := web.Validate(file); err != nil {
		return fmt.Errorf("--web.config.file %s: %w", file, err)
	}
	return nil
}

// read reads the config file and returns what is to be watched.
func (o Options) read() ([]target, config, error) {
	c, err := readConfig(o.ConfigFile)
	if err != nil {
		return nil, c, err
	}
	all, err := o.targets(c)
	return all, c, err
}

// plan finds out what is to be merged and observed, and makes that so but for the merger.
// Without that collector nothing is merged.
func (a *App) plan() error {
	all, c, err := a.o.read()
	if !a.merges() && errors.Is(err, errNoDirectory) {
		err = nil
	}
	if err != nil {
		return err
	}
	watched, err := a.o.observedTargets(all)
	if err != nil {
		return err
	}
	if !a.hides && slices.ContainsFunc(watched, func(t target) bool { return t.master.given() }) {
		return errFirstMaster
	}
	if err := a.observeAll(watched); err != nil {
		return err
	}
	a.targets, a.direct = all, c.direct
	return nil
}

// errFirstMaster says what a reload cannot do: what is observed of a master hides what
// files have of it, which is decided when they are read first.
var errFirstMaster = errors.New("a master where no target had one: want a restart of the exporter")

func (a *App) merges() bool { return slices.Contains(a.o.Collectors, multiprocName) }

// Run runs the sidecar until ctx ends, or serving fails, and stops it. What it
// logs begins when it listens: a start that fails is one error and no more.
func (a *App) Run(ctx context.Context) error {
	err := a.Start(ctx)
	switch {
	case err != nil && ctx.Err() != nil:
		return nil // told to stop before it had begun
	case err != nil:
		return err
	}
	a.log.Info("Started prefork_exporter", "version", version.Info(), "build", version.BuildContext())
	if a.o.Started != nil {
		a.o.Started()
	}
	select {
	case <-ctx.Done():
		a.log.Info("Stopping")
	case <-a.supervision.over:
		a.log.Info("Stopping: the supervisor has ended")
	case <-a.supervision.told:
		a.log.Info("Stopping: the server has ended, and its last metrics were scraped")
	case err = <-a.failed:
	}
	return errors.Join(err, a.Stop())
}

// step is one thing to start, and how long its stop may take.
type step struct {
	name  string
	start func(ctx context.Context) (stop func(ctx context.Context) error, err error)
	bound time.Duration
}

// started is a step that has to be undone.
type started struct {
	step
	stop func(ctx context.Context) error
}

// steps are in the order of the start; a stop goes backwards.
func (a *App) steps() []step {
	const bound = 2 * time.Second
	return []step{
		{"metric files", a.openFiles, bound},
		{"listeners", a.listen, bound},
		{"supervisor", a.hearSupervisor, bound},
		{"server's log", a.hearServer, bound},
		{"upkeep", a.upkeep, bound},
		{"web server", a.serve, a.o.Grace + bound},
	}
}

// Start begins to serve. ctx bounds the start only. What an unfinished start
// has begun is undone.
func (a *App) Start(ctx context.Context) error {
	for _, s := range a.steps() {
		stop, err := s.start(ctx)
		if err != nil {
			return errors.Join(err, a.Stop())
		}
		a.started = append(a.started, started{s, stop})
	}
	return nil
}

// Stop undoes the start, each step within its bound: requests in flight have
// Options.Grace, then they are cut off. The error says which step is not done.
func (a *App) Stop() error {
	var errs []error
	for _, s := range slices.Backward(a.started) {
		if err := within(s.bound, s.stop); err != nil {
			errs = append(errs, fmt.Errorf("stop the %s: %w", s.name, err))
		}
	}
	a.started = nil
	return errors.Join(errs...)
}

// within returns when stop does, or after bound. A stop that hangs goes on
// behind its back: the process is about to end.
func within(bound time.Duration, stop func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), bound)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- stop(ctx) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("still busy after %s", bound)
	}
}

func (a *App) openFiles(context.Context) (func(context.Context) error, error) {
	a.merger.SetSources(a.sources())
	return func(context.Context) error {
		a.merger.Close()
		return nil
	}, nil
}

// upkeep does what has to go on between scrapes.
func (a *App) upkeep(context.Context) (func(context.Context) error, error) {
	ctx, cancel := context.WithCancel(context.Background())
	var group sync.WaitGroup
	group.Go(func() {
		a.mergeOnce(ctx)
		a.tellFeatures(ctx)
	})
	group.Go(func() { a.sweep(ctx) })
	group.Go(func() { a.reloadOnHangup(ctx) })
	group.Go(func() { a.searchDirectories(ctx) })
	a.watchTargets()
	return func(context.Context) error {
		cancel()
		group.Wait()
		return a.leaveTargets()
	}, nil
}

// mergeOnce makes the first merge before anybody asks: readiness waits for it,
// and whoever asks first need not.
func (a *App) mergeOnce(ctx context.Context) {
	if a.multiproc == nil {
		return
	}
	growFreely()
	if err := a.multiproc.Merge(ctx); err != nil {
		a.log.Warn("The first merge is not whole", "err", err)
	}
	a.merger.Sweep() // makes room to keep the files open
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	if m.HeapAlloc < 2*smallHeap { // else a scrape that waits would have to wait longer
		debug.FreeOSMemory()
		runtime.ReadMemStats(&m)
	}
	saveMemory(m.HeapAlloc)
	leaveProgram()
}

// watchTargets begins to follow masters and accept queues between scrapes.
func (a *App) watchTargets() {
	a.reloading.Lock()
	defer a.reloading.Unlock()
	a.running = true
	for _, w := range a.observed() {
		w.start(a.log)
	}
}

func (a *App) leaveTargets() error {
	a.reloading.Lock()
	defer a.reloading.Unlock()
	a.running = false
	return stopAll(a.observed())
}

// sweepEvery is how long deleted files may keep their memory.
const sweepEvery = time.Second

func (a *App) sweep(ctx context.Context) {
	ticker := time.NewTicker(sweepEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			a.merger.Sweep()
			collectGarbage()
		}
	}
}

// ready says whether metrics would be whole. A directory that is missing is no
// obstacle: a sidecar may start before its application makes it.
func (a *App) ready() bool { return !a.merges() || a.merger.Ready() }
