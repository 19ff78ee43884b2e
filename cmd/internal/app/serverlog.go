package app

import (
	"context"
	"errors"
	"os"
	"sync"

	"github.com/prefork-exporter/prefork_exporter/collector/watch"
)

// hearServer reads what the server writes.
func (a *App) hearServer(context.Context) (func(context.Context) error, error) {
	ctx, cancel := context.WithCancel(context.Background())
	var group sync.WaitGroup
	for _, f := range a.o.ServerLog {
		group.Go(func() {
			if err := watch.ReadLog(ctx, f, a.heardServer); err != nil && !errors.Is(err, os.ErrClosed) {
				a.log.Error("The server's log is not read any more", "err", err)
			}
		})
	}
	if why := a.o.ServerLogGap; why != "" {
		a.log.Debug("Not all that the server writes is read", "reason", why)
	}
	return func(context.Context) (err error) {
		cancel()
		for _, f := range a.o.ServerLog {
			err = errors.Join(err, f.Close())
		}
		group.Wait()
		return err
	}, nil
}

// heardServer takes an event of the server's log. Readers of its streams take turns.
func (a *App) heardServer(e watch.LogEvent) {
	a.hearing.Lock()
	defer a.hearing.Unlock()
	a.log.Debug("The server tells", "server", e.Server, "what", e.What, "by", e.By, "pid", e.PID, "worker", e.Worker, "signal", e.Signal, "code", e.Code)
	a.hear(e)
}

// tellWatcher tells it to who watches the server.
func (a *App) tellWatcher(e watch.LogEvent) {
	for _, w := range a.observed() {
		if w.started && w.watcher != nil {
			w.watcher.Hear(e)
		}
	}
}
