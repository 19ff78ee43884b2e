package main

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"
)

// deathPoll is how long it rests between two scrapes that look for a death. The exporter has to have time for it, too.
const deathPoll = time.Millisecond

// watchDeathResult is how long it took until a death was in the metrics.
type watchDeathResult struct {
	server string
	waits  []time.Duration
	load   under
}

// measureWatchDeaths kills workers, one at a time, when all run.
func (b *bench) measureWatchDeaths(ctx context.Context) (err error) {
	s, m, stop, err := b.startWatched(ctx, restWorkers, b.startServer)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	m.query = "?collect[]=restart"
	r := watchDeathResult{server: b.serverName(), load: beginUnder()}
	for range b.options.watchDeaths {
		took, err := m.untilDeathIsKnown(ctx, s)
		if err != nil {
			return fmt.Errorf("death %d: %w", len(r.waits)+1, err)
		}
		r.waits = append(r.waits, took)
		if err := m.rest(ctx); err != nil {
			return err
		}
	}
	r.load = r.load.end()
	b.report.watchDeaths = &r
	return m.killed(ctx, b.options.watchDeaths)
}

// exitsTotal counts the ends of workers.
const exitsTotal = "prefork_worker_exits_total"

// untilDeathIsKnown kills the oldest worker, and returns how long it was from kill(2) to the end of the first scrape
// that has one more death.
func (m *master) untilDeathIsKnown(ctx context.Context, s *server) (time.Duration, error) {
	before, err := m.all(ctx, identity)
	if err != nil {
		return 0, err
	}
	pids, err := s.workers()
	if err != nil {
		return 0, err
	}
	if len(pids) == 0 {
		return 0, errors.New("the server has no workers")
	}
	killed := time.Now()
	if err := syscall.Kill(pids[0], syscall.SIGKILL); err != nil {
		return 0, fmt.Errorf("kill worker %d: %w", pids[0], err)
	}
	for time.Since(killed) < patience {
		seen, err := m.all(ctx, identity)
		if err != nil {
			return 0, err
		}
		if took := time.Since(killed); metrics(seen).sum(exitsTotal) > metrics(before).sum(exitsTotal) {
			return took, nil
		}
		if err := waitUntil(ctx, time.Now().Add(deathPoll)); err != nil {
			return 0, err
		}
	}
	return 0, fmt.Errorf("no death in the metrics for %v", patience)
}
