package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

// deathResult is how long the successors of killed workers took.
type deathResult struct {
	how   string
	waits []time.Duration
}

// The rules of supervise under which a restart waits for nothing.
const (
	goodRun     = 10 * time.Second // after so long, a worker's end is the first failure of its slot again
	restartLoop = 20               // sooner than that, so many ends in a minute are a restart loop
)

// mostWorkers is how many a master keeps here: a death in each of their slots takes one good run.
const mostWorkers = 50

// measureDeaths kills workers that have sockets of the master, and workers that have none.
func (b *bench) measureDeaths(ctx context.Context) error {
	for _, how := range []struct {
		name  string
		flags []string
	}{
		{"workers with a socket of --listen", []string{"--listen=127.0.0.1:0"}},
		{"workers without", nil},
	} {
		waits, err := b.deaths(ctx, how.flags)
		if err != nil {
			return fmt.Errorf("%s: %w", how.name, err)
		}
		b.report.deaths = append(b.report.deaths, deathResult{how.name, waits})
	}
	return nil
}

// deaths kills workers, one at a time and each slot's in turn, and returns how long it was from each kill(2)
// to the first line of the successor's main. The death itself is in it, and so are the start of Go's runtime in
// the successor and, with sockets, that of the exporter's program, which becomes the worker.
func (b *bench) deaths(ctx context.Context, flags []string) (waits []time.Duration, err error) {
	all := b.options.deaths
	m, births, err := b.startNewborns(ctx, min(all, mostWorkers), flags)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, births.close(), m.close()) }()
	pids, err := m.firstBirths(births)
	if err != nil {
		return nil, err
	}
	for len(waits) < all {
		if all >= restartLoop {
			if err := waitUntil(ctx, time.Now().Add(goodRun+time.Second)); err != nil {
				return nil, err
			}
		}
		for slot := range pids[:min(len(pids), all-len(waits))] {
			next, took, err := births.succeed(pids[slot], slot)
			if err != nil {
				return nil, errors.Join(err, m.killed(ctx, len(waits))) // one may have ended by itself
			}
			pids[slot] = next
			waits = append(waits, took)
		}
	}
	return waits, m.killed(ctx, all)
}

// startNewborns starts a master of newborns that live on, and hears of their births.
func (b *bench) startNewborns(ctx context.Context, workers int, flags []string) (*master, *registrar, error) {
	socket := filepath.Join(b.ws.scratch, fmt.Sprintf("births-%d", monotonic()))
	births, err := hearBirths(ctx, socket)
	if err != nil {
		return nil, nil, err
	}
	flags = slices.Concat(flags, []string{"--ready-after=100ms"})
	m, err := b.startMaster(ctx, workers, flags, b.ws.program("newborn"), socket)
	if err != nil {
		return nil, nil, errors.Join(err, births.close())
	}
	return m, births, nil
}

// firstBirths returns the processes of all workers, by slot.
func (m *master) firstBirths(births *registrar) ([]int, error) {
	pids := make([]int, m.workers)
	for range pids {
		one, err := births.next(patience)
		if err != nil {
			return nil, err
		}
		if one.slot < 0 || one.slot >= m.workers || pids[one.slot] != 0 {
			return nil, fmt.Errorf("process %d is born in slot %d: want each of %d slots once", one.pid, one.slot, m.workers)
		}
		pids[one.slot] = one.pid
	}
	return pids, nil
}

// succeed kills a worker, and returns its successor and how long that took.
func (r *registrar) succeed(pid, slot int) (next int, took time.Duration, err error) {
	killed := monotonic()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		return 0, 0, fmt.Errorf("kill worker %d, process %d: %w", slot, pid, err)
	}
	one, err := r.next(patience)
	if err != nil {
		return 0, 0, fmt.Errorf("the successor of worker %d: %w", slot, err)
	}
	if one.slot != slot {
		return 0, 0, fmt.Errorf("worker %d was killed, and worker %d was born", slot, one.slot)
	}
	return one.pid, time.Duration(one.at - killed), nil
}

// killed checks that the master has counted so many ends by a kill, and no others.
func (m *master) killed(ctx context.Context, n int) error {
	seen, err := m.await(ctx, "workers at rest", m.rests)
	if err != nil {
		return err
	}
	ends := seen.of("prefork_worker_exits_total")
	if n == 0 && len(ends) == 0 || len(ends) == 1 && int(ends[`prefork_worker_exits_total{code="",signal="KILL"}`]) == n {
		return nil
	}
	return fmt.Errorf("%d workers were killed, and these ends counted: %v", n, ends)
}
