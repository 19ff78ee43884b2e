package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// supervisePart is what --only calls the part about supervise.
const supervisePart = "supervise"

// workerPrograms are what it runs as workers.
func workerPrograms() []string { return []string{"cmd/prefork_worker", "cmd/internal/bench/newborn"} }

// supervised measures what supervise does to its workers, and what that costs it.
func (b *bench) supervised(ctx context.Context) error {
	if !b.options.supervises() {
		return nil
	}
	var errs []error
	for _, part := range []struct {
		name string
		size int // zero leaves it out
		run  func(context.Context) error
	}{
		{"deaths", b.options.deaths, b.measureDeaths},
		{"requests", b.options.requests, b.measureLoad},
		{"births", b.options.births, b.measureBirths},
	} {
		if part.size == 0 {
			continue
		}
		b.say("%s: %d %s", supervisePart, part.size, part.name)
		if err := part.run(ctx); err != nil {
			errs = append(errs, fmt.Errorf("%s: %s: %w", supervisePart, part.name, err))
		}
	}
	return errors.Join(errs...)
}

// supervises says whether the part about supervise was asked for.
func (o options) supervises() bool {
	return len(o.only) == 0 || slices.Contains(o.only, supervisePart)
}

// master is a running supervise. Its exporter is the parent in all but the scrapes, which the sidecar answers.
type master struct {
	*exporter
	workers int
}

// startMaster starts a master of so many workers, and returns once all run. flags are those of supervise,
// command is the worker's.
func (b *bench) startMaster(ctx context.Context, workers int, flags []string, command ...string) (*master, error) {
	web, err := freeAddress()
	if err != nil {
		return nil, err
	}
	argv := slices.Concat(
		[]string{b.binary, supervisePart, "--workers=" + strconv.Itoa(workers), "--web.listen-address=" + web},
		flags, []string{"--"}, command,
	)
	e, err := launch(ctx, argv, web, b.ws.scratch)
	if err != nil {
		return nil, err
	}
	m := &master{e, workers}
	if err := m.rest(ctx); err != nil {
		return nil, errors.Join(err, m.close())
	}
	return m, nil
}

func (m *master) pid() int { return m.cmd.Process.Pid }

func (m *master) signal(s syscall.Signal) error {
	if err := syscall.Kill(m.pid(), s); err != nil {
		return fmt.Errorf("send %v to the master: %w", s, err)
	}
	return nil
}

// metrics are the samples of one scrape, by series.
type metrics map[string]float64

// of returns the series of a name.
func (m metrics) of(name string) metrics {
	family := metrics{}
	for series, v := range m {
		if before, _, _ := strings.Cut(series, "{"); before == name {
			family[series] = v
		}
	}
	return family
}

// sum adds up the series of a name.
func (m metrics) sum(name string) float64 {
	total := 0.0
	for _, v := range m.of(name) {
		total += v
	}
	return total
}

// await scrapes until ok, and returns what it saw then. A scrape that fails is none: whoever answers may be
// another one since the last.
func (m *master) await(ctx context.Context, what string, ok func(metrics) bool) (metrics, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	const often = 50 * time.Millisecond
	for {
		seen, err := m.all(ctx, identity)
		if err == nil && ok(seen) {
			return seen, nil
		}
		if err != nil {
			m.hangUp()
		}
		select {
		case <-time.After(often):
		case <-m.gone:
			return nil, fmt.Errorf("wait for %s: the master has ended", what)
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("wait for %s: %w", what, ctx.Err()), err)
		}
	}
}

// rest waits until there are all workers and no others, and all of them run.
func (m *master) rest(ctx context.Context) error {
	_, err := m.await(ctx, fmt.Sprintf("%d workers that run", m.workers), m.rests)
	return err
}

func (m *master) rests(seen metrics) bool {
	n := float64(m.workers)
	return seen[`prefork_workers{state="running"}`] == n && seen.sum("prefork_workers") == n
}

// image returns what the kernel gave a process when its program was started. There are addresses in it that
// are drawn each time, so it is another one after an exec.
func image(pid int) (string, error) {
	b, err := os.ReadFile(procPath(pid, "auxv"))
	if err != nil {
		return "", fmt.Errorf("look at a program: %w", err)
	}
	return string(b), nil
}
