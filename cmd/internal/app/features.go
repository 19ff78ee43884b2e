package app

import (
	"context"
	"log/slog"
	"slices"
	"time"

	"github.com/prefork-exporter/prefork_exporter/cmd/internal/api"
	"github.com/prefork-exporter/prefork_exporter/collector"
)

// When features are told: what is started beside has opened its sockets by then.
const (
	featuresAfter = 5 * time.Second
	featuresEvery = time.Minute
)

// tellFeatures tells the log what can be watched here, once a moment after the start, and
// when it has changed, until ctx ends.
func (a *App) tellFeatures(ctx context.Context) {
	told := features{log: a.log}
	timer := time.NewTimer(featuresAfter)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
			timer.Reset(featuresEvery)
		}
		scrape, _ := a.set.Gather(ctx, a.set.Names()) // families that contradict each other are no features
		if ctx.Err() == nil {
			told.tell(scrape)
		}
	}
}

// features are what the log was told last. The zero value has told nothing.
type features struct {
	log  *slog.Logger
	last []api.Feature
}

// tell logs one line that names what cannot be watched here and why, unless the line
// before says the same.
func (f *features) tell(s *collector.Scrape) {
	now := api.Features(s)
	if slices.Equal(now, f.last) {
		return
	}
	f.last = now
	var missing []any
	for _, one := range now {
		if !one.Available {
			missing = append(missing, slog.String(one.Name, one.Reason))
		}
	}
	if missing == nil {
		f.log.Info("Everything can be watched here")
		return
	}
	f.log.Info("Some things cannot be watched here, and are absent", missing...)
}
