package collector

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/prefork-exporter/prefork_exporter/collector/watch"
)

// Restart exposes what a master does with its workers: how many there are and should
// be, how they end, and why they are started again.
type Restart struct {
	source watch.Source

	workers, target, exits, restarts, bySlot, reloads, masters, signals, backoff, loop, start, feature Descriptor
}

// NewRestart returns the collector of a master.
func NewRestart(source watch.Source) *Restart {
	return &Restart{
		source:   source,
		workers:  Describe("prefork_workers"),
		target:   Describe("prefork_workers_target"),
		exits:    Describe("prefork_worker_exits_total"),
		restarts: Describe("prefork_master_worker_restart_total"),
		bySlot:   Describe("prefork_worker_restart_total"),
		reloads:  Describe("prefork_master_reloads_total"),
		masters:  Describe("prefork_master_restarts_total"),
		signals:  Describe("prefork_master_signals_total"),
		backoff:  Describe("prefork_restart_backoff_seconds"),
		loop:     Describe("prefork_restart_loop"),
		start:    Describe("prefork_master_start_time_seconds"),
		feature:  Describe("prefork_feature_available"),
	}
}

// Families returns the families that it exposes: files may not have them then.
func (c *Restart) Families() (names []string) {
	for _, d := range c.descriptors() {
		names = append(names, d.definition.Name)
	}
	return names
}

func (c *Restart) descriptors() []Descriptor {
	return []Descriptor{c.workers, c.target, c.exits, c.restarts, c.bySlot, c.reloads, c.masters, c.signals, c.backoff, c.loop, c.start}
}

// Describe implements [Collector].
func (c *Restart) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range append(c.descriptors(), c.feature) {
		ch <- d.Desc
	}
}

// workerStates and reasons are closed sets: each is there from the start, at 0.
func workerStates() []string { return []string{"starting", "running", "stopping", "unresponsive"} }

func restartReasons() []string {
	return []string{
		"clean", "max_requests", "max_memory", "max_lifetime", "reload", "timeout", "oom", "signal", "exit_code", "boot_error", "unknown",
	}
}

// masterReasons and masterSignals are closed sets, too.
func masterReasons() []string { return []string{"clean", "reload", "signal", "exit_code", "unknown"} }

func masterSignals() []string {
	return []string{"HUP", "INT", "QUIT", "TERM", "TTIN", "TTOU", "USR1", "USR2", "WINCH"}
}

// Update implements [Collector].
func (c *Restart) Update(_ context.Context, out *Output) error {
	s, ok := c.source.State()
	if !ok {
		return nil
	}
	if !s.StartTime.IsZero() {
		out.Add(gauge(c.start, unixSeconds(s.StartTime)))
	}
	for _, f := range s.Features {
		out.Add(gauge(c.feature, boolean(f.Reason == ""), f.Name, f.Reason))
	}
	if s.Masters != nil {
		for _, reason := range masterReasons() {
			out.Add(counter(c.masters, s.Masters[reason], reason))
		}
	}
	if s.Signals != nil {
		c.addParent(out, s)
	}
	if s.Target >= 0 {
		out.Add(gauge(c.target, float64(s.Target)))
	}
	if s.Target >= 0 || s.Workers != nil {
		c.addWorkers(out, s)
	}
	return nil
}

// addWorkers adds what is known of workers by who watches them.
func (c *Restart) addWorkers(out *Output, s watch.State) {
	states, reasons := map[string]float64{}, map[string]float64{}
	for _, w := range s.Workers {
		states[w.State]++
	}
	for _, r := range s.Restarts {
		reasons[r.Reason] += r.Count
		out.Add(counter(c.bySlot, r.Count, r.Slot, r.Reason))
	}
	for _, state := range workerStates() {
		out.Add(gauge(c.workers, states[state], state))
	}
	for _, reason := range restartReasons() {
		out.Add(counter(c.restarts, reasons[reason], reason))
	}
	for _, e := range s.Exits {
		out.Add(counter(c.exits, e.Count, e.Code, e.Signal))
	}
	for result, n := range s.Reloads {
		out.Add(counter(c.reloads, n, result))
	}
}

// addParent adds what only the parent of a server knows of it.
func (c *Restart) addParent(out *Output, s watch.State) {
	out.Add(gauge(c.backoff, s.Backoff.Seconds()), gauge(c.loop, boolean(s.Loop)))
	for _, signal := range masterSignals() {
		out.Add(counter(c.signals, s.Signals[signal], signal))
	}
}

func unixSeconds(t time.Time) float64 { return float64(t.UnixNano()) / 1e9 }
