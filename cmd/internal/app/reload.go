package app

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/prefork-exporter/prefork_exporter/collector"
)

// Reload reads the config file again, looks for directories again, and follows what it
// finds: targets may come and go. When that is an error, all stays as it is.
func (a *App) Reload() error {
	a.reloading.Lock()
	defer a.reloading.Unlock()
	err := a.plan()
	a.reloads.note(err, time.Now())
	if err != nil {
		a.log.Error("The configuration stays as it was", "err", err)
		return fmt.Errorf("reload: %w", err)
	}
	found := a.sources()
	a.merger.SetSources(found)
	a.log.Info("The configuration was read again", "directories", len(found), "targets", len(a.targets))
	return nil
}

// reloadOnHangup reloads for every signal that comes.
func (a *App) reloadOnHangup(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-a.o.Hangup:
			_ = a.Reload() // has logged it, and counts it
		}
	}
}

// serveReload reloads for a POST or PUT, where that is allowed.
func (a *App) serveReload(w http.ResponseWriter, _ *http.Request) {
	if !a.o.EnableLifecycle {
		http.Error(w, "reload is switched off: start with --web.enable-lifecycle, or send SIGHUP", http.StatusForbidden)
		return
	}
	if err := a.Reload(); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	answer(w, "reloaded\n")
}

// reloads tells how the last reload went. Its methods are safe for concurrent
// use.
type reloads struct {
	mu   sync.Mutex
	good bool
	at   time.Time // of the last good one

	success, timestamp collector.Descriptor
}

// newReloads counts the start as a good reload.
func newReloads() *reloads {
	return &reloads{
		good: true, at: time.Now(),
		success:   collector.Describe("prefork_exporter_config_last_reload_successful"),
		timestamp: collector.Describe("prefork_exporter_config_last_reload_success_timestamp_seconds"),
	}
}

func (r *reloads) note(err error, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.good = err == nil
	if r.good {
		r.at = now
	}
}

// Describe implements [collector.Collector].
func (r *reloads) Describe(ch chan<- *prometheus.Desc) {
	ch <- r.success.Desc
	ch <- r.timestamp.Desc
}

// Update implements [collector.Collector].
func (r *reloads) Update(_ context.Context, out *collector.Output) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	good := 0.0
	if r.good {
		good = 1
	}
	out.Add(
		r.success.Value(good),
		r.timestamp.Value(float64(r.at.UnixMilli())/1000),
	)
	return nil
}
