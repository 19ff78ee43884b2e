package app

import (
	"context"
	"sync"
	"time"

	"github.com/prefork-exporter/prefork_exporter/collector/watch"
)

// watcher follows one master. State may be called at any time. Run returns when its context
// ends; Close is for what comes after it.
type watcher interface {
	watch.Source
	Run(ctx context.Context)
	Close() error
}

// newWatcher returns what follows a master.
func newWatcher(o watch.Options) watcher { return &lookout{o: o} }

// lookout knows which process the master is, and what our parent knows, and no more.
type lookout struct {
	o watch.Options

	mu  sync.Mutex
	pid int
}

// State implements [watch.Source].
func (l *lookout) State() (watch.State, bool) {
	if l.o.Parent != nil {
		return l.o.Parent.State()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return watch.State{Master: l.pid, Target: -1}, l.pid != 0
}

// Run looks for the master now and then.
func (l *lookout) Run(ctx context.Context) {
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	for {
		pid, _ := l.o.Master.Find()
		l.mu.Lock()
		l.pid = pid
		l.mu.Unlock()
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// lookEvery is how long it may take until a change of the master is seen.
const lookEvery = time.Second

// Close has nothing to close.
func (l *lookout) Close() error { return nil }
