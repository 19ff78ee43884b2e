package main

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"
)

// loadWorkers is how many answer wrk.
const loadWorkers = 4

// loadResult is what wrk saw while signals came to the master.
type loadResult struct {
	how     string
	wrk     wrkResult
	signals signalCounts
}

// signalCounts says how many signals a master got. All but those that were ignored had their effect.
type signalCounts struct{ reloads, more, fewer, execs, ignored int }

// measureLoad has wrk send requests while the master gets signals, and for as long without any.
func (b *bench) measureLoad(ctx context.Context) error {
	var took time.Duration
	withSignals := func(m *loadedMaster) error {
		began := time.Now()
		defer func() { took = time.Since(began) }()
		return errors.Join(m.disturb(ctx, disturbances(b.options.requests)), m.answer(ctx, b.options.requests))
	}
	undisturbed := func(*loadedMaster) error { return waitUntil(ctx, time.Now().Add(took)) }
	for _, how := range []struct {
		name   string
		during func(*loadedMaster) error
	}{
		{"with signals to the master", withSignals},
		{"as long without any", undisturbed},
	} {
		r, err := b.load(ctx, how.during)
		if err != nil {
			return fmt.Errorf("%s: %w", how.name, err)
		}
		r.how = how.name
		b.report.loads = append(b.report.loads, r)
	}
	return nil
}

// disturbances is how many of each signal come in a run of so many requests.
func disturbances(requests int) int { return min(max(1, requests/20_000), 5) }

// loadedMaster is a master whose workers answer wrk.
type loadedMaster struct {
	*master
	signals signalCounts
}

// load has the workers of a master answer wrk for as long as during takes.
func (b *bench) load(ctx context.Context, during func(*loadedMaster) error) (r loadResult, err error) {
	listen, err := freeAddress()
	if err != nil {
		return r, err
	}
	// The worker's own --drain of 1 s would let fewer signals into the same time.
	started, err := b.startMaster(ctx, loadWorkers, []string{"--listen=" + listen}, b.ws.program("prefork_worker"), "--drain=300ms")
	if err != nil {
		return r, err
	}
	m := &loadedMaster{master: started}
	defer func() { err = errors.Join(err, m.close()) }()
	r.wrk, err = b.wrk(ctx, "http://"+listen+"/fast", func() error { return during(m) })
	r.signals = m.signals
	if err != nil {
		return r, err
	}
	return r, m.counted(ctx, r.wrk)
}

// answer waits until so many requests were answered.
func (m *loadedMaster) answer(ctx context.Context, n int) error {
	_, err := m.await(ctx, fmt.Sprintf("%d requests", n), func(seen metrics) bool {
		return seen.sum(requestsTotal) >= float64(n)
	})
	return err
}

// requestsTotal is what the workers count requests in.
const requestsTotal = "prefork_worker_requests_total"

// counted checks that the workers, those that are gone included, have counted what wrk was answered. Nobody
// knows of the requests that were under way when wrk stopped or a connection failed.
func (m *loadedMaster) counted(ctx context.Context, w wrkResult) error {
	least, most := w.answered, w.answered+wrkConnections+w.failed()
	seen, err := m.await(ctx, "the count of the last requests", func(seen metrics) bool {
		return m.rests(seen) && seen.sum("prefork_worker_requests_in_progress") == 0
	})
	if err != nil {
		return err
	}
	if n := int(seen.sum(requestsTotal)); n < least || n > most {
		return fmt.Errorf("the workers counted %d requests: want %d, as wrk did, to %d", n, least, most)
	}
	return nil
}

// disturb sends each signal so many times, each when the one before has had its effect.
func (m *loadedMaster) disturb(ctx context.Context, times int) error {
	for range times {
		for _, signal := range []func(context.Context) error{m.reload, m.addWorker, m.takeWorker, m.exec} {
			if err := signal(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// reload has all workers replaced.
func (m *loadedMaster) reload(ctx context.Context) error {
	const succeeded, all = `prefork_master_reloads_total{result="success"}`, "prefork_master_reloads_total"
	before, err := m.await(ctx, "the count of reloads", m.rests)
	if err != nil {
		return err
	}
	if err := m.signal(syscall.SIGHUP); err != nil {
		return err
	}
	after, err := m.await(ctx, "a reload", func(seen metrics) bool { return m.rests(seen) && seen.sum(all) > before.sum(all) })
	if err != nil {
		return err
	}
	if after[succeeded] <= before[succeeded] {
		return errors.New("a reload was given up")
	}
	m.signals.reloads++
	return nil
}

func (m *loadedMaster) addWorker(ctx context.Context) error {
	m.signals.more++
	m.workers++
	return errors.Join(m.signal(syscall.SIGTTIN), m.rest(ctx))
}

func (m *loadedMaster) takeWorker(ctx context.Context) error {
	m.signals.fewer++
	m.workers--
	return errors.Join(m.signal(syscall.SIGTTOU), m.rest(ctx))
}

// exec has the master start its program anew, as the same process. A master that cannot ignores it.
func (m *loadedMaster) exec(ctx context.Context) error {
	before, err := image(m.pid())
	if err != nil {
		return err
	}
	if err := m.signal(syscall.SIGUSR2); err != nil {
		return err
	}
	m.signals.execs++
	const often, long = 10 * time.Millisecond, time.Second
	for range long / often {
		if err := waitUntil(ctx, time.Now().Add(often)); err != nil {
			return err
		}
		now, err := image(m.pid())
		if err != nil {
			return err
		}
		if now != before {
			return m.rest(ctx)
		}
	}
	m.signals.ignored++
	return nil
}
