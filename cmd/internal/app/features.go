package app

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"strings"
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

// tell logs what cannot be watched here and why, in a line for each target, unless what
// was told last says the same.
func (f *features) tell(s *collector.Scrape) {
	now := api.Features(s)
	if slices.EqualFunc(now, f.last, api.Feature.Equal) {
		return
	}
	f.last = now
	missing := map[string][]any{} // by labels
	for _, one := range now {
		if !one.Available {
			labels := strings.Join(labelPairs(one.Labels, "%s=%s"), ",")
			missing[labels] = append(missing[labels], slog.String(one.Name, one.Reason))
		}
	}
	if len(missing) == 0 {
		f.log.Info("Everything can be watched here")
	}
	for _, labels := range slices.Sorted(maps.Keys(missing)) {
		log := f.log
		if labels != "" {
			log = log.With("labels", labels)
		}
		log.Info("Some things cannot be watched here, and are absent", missing[labels]...)
	}
}
