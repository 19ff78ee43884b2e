package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
)

// cost is what one merge or scrape took.
type cost struct{ wall, cpu time.Duration }

// contender is one way to get the metrics of a directory, in one encoding.
type contender struct {
	variant variant
	runs    int
	// prepare changes the directory before a measured run, as time would. It is not measured.
	prepare func(context.Context) error
	once    func(context.Context) (cost, error)
	memory  func() (memory, error)
	// samples returns the output for comparison; nil where another contender of the process gives the same.
	samples func(context.Context) (map[string]float64, error)
}

// race runs the contenders in turns: each round gives every one its share of its runs, and each round starts
// with another one. Each has two unmeasured runs before, and one in each of its turns.
func race(ctx context.Context, rounds int, cs []*contender, record func(variant, cost)) error {
	for _, c := range cs {
		for range 2 {
			if _, err := c.once(ctx); err != nil {
				return fmt.Errorf("%s: %w", c.variant, err)
			}
		}
	}
	for round := range rounds {
		for i := range cs {
			c := cs[(i+round)%len(cs)]
			if err := c.turn(ctx, share(c.runs, rounds, round), record); err != nil {
				return fmt.Errorf("%s: %w", c.variant, err)
			}
		}
	}
	return nil
}

// turn measures a contender's share of its runs. One more comes first, unmeasured: whoever ran before has the
// processors' caches.
func (c *contender) turn(ctx context.Context, runs int, record func(variant, cost)) error {
	for i := range runs + 1 {
		if err := c.prepare(ctx); err != nil {
			return err
		}
		took, err := c.once(ctx)
		if err != nil {
			return err
		}
		if i > 0 {
			record(c.variant, took)
		}
	}
	return nil
}

// share spreads runs evenly over rounds.
func share(runs, rounds, round int) int { return runs*(round+1)/rounds - runs*round/rounds }

// arena holds the contenders of a data set and what has to be closed after them.
type arena struct {
	contenders []*contender
	closers    []func() error
}

func (a *arena) close() error {
	var errs []error
	for i := len(a.closers) - 1; i >= 0; i-- {
		errs = append(errs, a.closers[i]())
	}
	return errors.Join(errs...)
}

func (a *arena) add(c *contender) { a.contenders = append(a.contenders, c) }

// directory is a data set as one library wrote it.
type directory struct {
	path string
	peer *peer
}

// measure makes one data set, measures first and warm scrapes of it, and compares the outputs.
func (b *bench) measure(ctx context.Context, d dataset) error {
	dirs, err := b.directories(ctx, d)
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		if err := b.first(ctx, d, dir); err != nil {
			return err
		}
	}
	if len(dirs) == 0 {
		return nil
	}
	return b.warm(ctx, d, dirs)
}

func (b *bench) directories(ctx context.Context, d dataset) ([]directory, error) {
	var dirs []directory
	for _, p := range b.peers {
		if !d.writtenBy(p) {
			continue
		}
		b.say("%s: write %s files", d.name, p.files)
		path, err := b.ws.fill(ctx, d, p)
		if err != nil {
			return nil, err
		}
		bytes, files, err := usedBytes(path)
		if err != nil {
			return nil, fmt.Errorf("measure a data set: %w", err)
		}
		b.report.sizes = append(b.report.sizes, size{d, p.files, bytes, files})
		dirs = append(dirs, directory{path, p})
	}
	b.dirs[d.name] = dirs
	return dirs, nil
}

// first measures fresh processes: the first merge or scrape by itself, and the whole way from the start of
// the program.
func (b *bench) first(ctx context.Context, d dataset, dir directory) error {
	b.say("%s: first scrapes of %s files", d.name, dir.peer.files)
	for range b.options.peerRuns {
		if err := b.firstOfPeer(ctx, d, dir); err != nil {
			return err
		}
		if err := b.firstOfOurs(ctx, d, dir); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) firstOfPeer(ctx context.Context, d dataset, dir directory) error {
	start := time.Now()
	m, err := dir.peer.start(ctx, dir.path)
	if err != nil {
		return err
	}
	a, err := m.merge(identity)
	whole := time.Since(start)
	if err != nil {
		return errors.Join(err, m.close())
	}
	mem, err := m.memory()
	v := variant{who: dir.peer.name, files: dir.peer.files, scrape: first, encoding: identity}
	b.report.add(d, v, cost{seconds(a.Wall), seconds(a.CPU)}, mem)
	v.scrape = fromExec
	b.report.add(d, v, cost{whole, seconds(a.Total)}, mem)
	return errors.Join(err, m.close())
}

func (b *bench) firstOfOurs(ctx context.Context, d dataset, dir directory) error {
	start := time.Now()
	e, err := startExporter(ctx, b.binary, dir.path, b.ws.scratch)
	if err != nil {
		return err
	}
	before, err := cpuTime(e.cmd.Process.Pid) // not at rest: a wait would let it merge ahead
	if err != nil {
		return errors.Join(err, e.close())
	}
	wall, err := e.scrape(ctx, identity)
	whole := time.Since(start)
	if err != nil {
		return errors.Join(err, e.close())
	}
	after, err := e.cpu()
	if err != nil {
		return errors.Join(err, e.close())
	}
	mem, err := e.memory()
	v := variant{who: ours, files: dir.peer.files, scrape: first, encoding: identity}
	b.report.add(d, v, cost{wall, after - before}, mem)
	v.scrape = fromExec
	b.report.add(d, v, cost{whole, after}, mem)
	return errors.Join(err, e.close())
}

// warm measures processes that have merged the directory before.
func (b *bench) warm(ctx context.Context, d dataset, dirs []directory) (err error) {
	b.say("%s: warm scrapes", d.name)
	a := &arena{}
	defer func() { err = errors.Join(err, a.close()) }()
	enter := b.together
	if d.churn {
		enter = b.apart
	}
	for _, dir := range dirs {
		if err := enter(ctx, d, dir, a); err != nil {
			return err
		}
	}
	record := func(v variant, c cost) { b.report.add(d, v, c, memory{}) }
	if err := race(ctx, b.options.peerRuns, a.contenders, record); err != nil {
		return err
	}
	for _, c := range a.contenders {
		mem, err := c.memory()
		if err != nil {
			return err
		}
		b.report.remember(d, c.variant, mem)
	}
	return compare(ctx, a.contenders)
}

// together lets all contenders use dir, where a part of the values changes before each run.
func (b *bench) together(ctx context.Context, _ dataset, dir directory, a *arena) error {
	w, err := openWorkers(dir.path, b.options.changing)
	if err != nil {
		return err
	}
	a.closers = append(a.closers, w.close)
	prepare := func(context.Context) error { w.advance(); return nil }
	for _, enc := range peerEncodings() {
		if err := b.enterPeer(ctx, dir, enc, prepare, a); err != nil {
			return err
		}
	}
	return b.enterOurs(ctx, dir, ourEncodings(), b.options.runs, prepare, a)
}

// apart gives each contender a copy of dir of its own, where workers and series come and go before each run
// in the same way for all.
func (b *bench) apart(ctx context.Context, d dataset, dir directory, a *arena) error {
	for _, enc := range peerEncodings() {
		own, prepare, err := b.churning(d, dir, a)
		if err != nil {
			return err
		}
		if err := b.enterPeer(ctx, own, enc, prepare, a); err != nil {
			return err
		}
	}
	for _, enc := range ourEncodings() {
		own, prepare, err := b.churning(d, dir, a)
		if err != nil {
			return err
		}
		if err := b.enterOurs(ctx, own, []string{enc}, b.options.peerRuns, prepare, a); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) churning(d dataset, dir directory, a *arena) (directory, func(context.Context) error, error) {
	path, err := b.ws.copy(dir.path)
	if err != nil {
		return directory{}, nil, err
	}
	a.closers = append(a.closers, func() error { return os.RemoveAll(path) })
	step := 0
	advance := func(ctx context.Context) error {
		args := append(d.arguments(), fmt.Sprint(step))
		step++
		return dir.peer.generate(ctx, "churn", path, args...)
	}
	return directory{path, dir.peer}, advance, nil
}

func (b *bench) enterPeer(
	ctx context.Context, dir directory, enc string, prepare func(context.Context) error, a *arena,
) error {
	m, err := dir.peer.start(ctx, dir.path)
	if err != nil {
		return err
	}
	a.closers = append(a.closers, m.close)
	c := &contender{
		variant: variant{dir.peer.name, dir.peer.files, warm, enc},
		runs:    b.options.peerRuns,
		prepare: prepare,
		once: func(context.Context) (cost, error) {
			a, err := m.merge(enc)
			return cost{seconds(a.Wall), seconds(a.CPU)}, err
		},
		memory: m.memory,
	}
	if enc == identity {
		c.samples = func(context.Context) (map[string]float64, error) { return m.samples(b.ws.scratch) }
	}
	a.add(c)
	return nil
}

func (b *bench) enterOurs(
	ctx context.Context, dir directory, encs []string, runs int, prepare func(context.Context) error, a *arena,
) error {
	e, err := startExporter(ctx, b.binary, dir.path, b.ws.scratch)
	if err != nil {
		return err
	}
	a.closers = append(a.closers, e.close)
	for _, enc := range encs {
		a.add(&contender{
			variant: variant{ours, dir.peer.files, warm, enc},
			runs:    runs,
			prepare: prepare,
			once:    func(ctx context.Context) (cost, error) { return e.measured(ctx, enc) },
			memory:  e.memory,
			samples: func(ctx context.Context) (map[string]float64, error) { return e.samples(ctx, enc) },
		})
	}
	return nil
}

// measured is a scrape with its CPU time. The exporter has been at rest since its last one, and is not waited for
// again: a pause right before the scrape would send the processor to sleep, which the libraries are spared too.
func (e *exporter) measured(ctx context.Context, enc string) (cost, error) {
	before, err := cpuTime(e.cmd.Process.Pid)
	if err != nil {
		return cost{}, err
	}
	wall, err := e.scrape(ctx, enc)
	if err != nil {
		return cost{}, err
	}
	after, err := e.cpu()
	return cost{wall, after - before}, err
}

// compare checks that all contenders on the files of one library, the library first, agree about every sample.
func compare(ctx context.Context, cs []*contender) error {
	want := make(map[string]map[string]float64)
	var errs []error
	for _, c := range cs {
		if c.samples == nil {
			continue
		}
		got, err := c.samples(ctx)
		if err != nil {
			return fmt.Errorf("%s: %w", c.variant, err)
		}
		files := c.variant.files
		if want[files] == nil {
			want[files] = got
			continue
		}
		if some, count := differences(want[files], got, 5); count > 0 {
			errs = append(errs, fmt.Errorf("%s: output differs in %d series of %d: %s",
				c.variant, count, len(want[files]), strings.Join(some, "; ")))
		}
	}
	return errors.Join(errs...)
}

func peerEncodings() []string { return []string{identity, gzipped} }

func ourEncodings() []string { return []string{identity, gzipped, zstandard} }
