package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// watchPart is what --only calls the part about a server that is watched from outside.
const watchPart = "watch"

// watchedData are the metric files of the server that is watched: 5,000 series when they are merged, for those of
// a gauge in mode all stay apart.
func watchedData() dataset {
	return dataset{name: watchPart, processes: restWorkers, series: 3571, histogram: 40}
}

// watched measures what it costs to watch a server from outside, and how soon a death is known.
func (b *bench) watched(ctx context.Context) error {
	if !b.options.watches() {
		return nil
	}
	var errs []error
	for _, part := range []struct {
		name string
		size int // zero leaves it out
		run  func(context.Context) error
	}{
		{"rest", int(b.options.window), b.measureRest},
		{"scrapes", b.options.scrapes, b.measureCrowd},
		{"deaths", b.options.watchDeaths, b.measureWatchDeaths},
		{"pairs", b.options.pairs, b.measurePairs},
	} {
		if part.size == 0 {
			continue
		}
		b.say("%s: %s", watchPart, part.name)
		if err := part.run(ctx); err != nil {
			errs = append(errs, fmt.Errorf("%s: %s: %w", watchPart, part.name, err))
		}
	}
	return errors.Join(errs...)
}

// watches says whether the part about watching was asked for.
func (o options) watches() bool {
	return len(o.only) == 0 || slices.Contains(o.only, watchPart)
}

// findGunicorn says what stands in for a gunicorn that is missing.
func (b *bench) findGunicorn() {
	o := b.options
	if _, err := os.Stat(o.gunicorn); err == nil || !o.watches() {
		return
	}
	b.report.absent = append(b.report.absent, fmt.Sprintf("watch has a small master of sleeping workers instead of gunicorn, "+
		"and no pairs: no gunicorn at %s: want Debian's package gunicorn, which `make setup` installs", o.gunicorn))
	b.options.gunicorn, b.options.pairs = "", 0
}

// server is a master that is watched, and none of ours.
type server struct {
	*exporter        // its process, and nothing else of it
	pidfile   string // which it writes itself
}

// startServer starts gunicorn, or what stands in for it.
func (b *bench) startServer(ctx context.Context, workers int) (*server, error) {
	if b.options.gunicorn == "" {
		return b.startForker(ctx, workers)
	}
	return b.startAny(ctx, func(address, pidfile string) []string {
		return []string{
			b.options.gunicorn, "--workers", strconv.Itoa(workers), "--bind", address, "--pid", pidfile,
			"--chdir", b.ws.scripts, "--log-level", "warning", "app:application",
		}
	})
}

// startForker starts a master of workers that sleep.
func (b *bench) startForker(ctx context.Context, workers int) (*server, error) {
	return b.startAny(ctx, func(address, pidfile string) []string {
		host, port, _ := net.SplitHostPort(address)
		return []string{b.options.python, filepath.Join(b.ws.scripts, "forker.py"), host, port, pidfile, strconv.Itoa(workers)}
	})
}

func (b *bench) startAny(ctx context.Context, command func(address, pidfile string) []string) (*server, error) {
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	pidfile := filepath.Join(b.ws.scratch, fmt.Sprintf("pid-%d", monotonic()))
	e, err := launch(ctx, command(address, pidfile), address, b.ws.scratch)
	if err != nil {
		return nil, err
	}
	return &server{e, pidfile}, nil
}

// workers returns the process ids of the server's workers, the oldest first.
func (s *server) workers() ([]int, error) {
	pid := s.cmd.Process.Pid
	text, err := os.ReadFile(procPath(pid, filepath.Join("task", strconv.Itoa(pid), "children")))
	if err != nil {
		return nil, fmt.Errorf("list workers: %w", err)
	}
	var pids []int
	for _, word := range strings.Fields(string(text)) {
		n, err := strconv.Atoi(word)
		if err != nil {
			return nil, fmt.Errorf("list workers: %w", err)
		}
		pids = append(pids, n)
	}
	return pids, nil
}

// sidecar watches a server of so many workers, with all collectors. It returns once it knows that all of them run.
func (b *bench) sidecar(ctx context.Context, s *server, workers int) (*master, error) {
	dir, err := b.watchedFiles(ctx)
	if err != nil {
		return nil, err
	}
	web, err := freeAddress()
	if err != nil {
		return nil, err
	}
	argv := []string{
		b.binary, "--multiproc.dir", dir, "--multiproc.liveness=off", "--master.pidfile", s.pidfile, "--web.listen-address", web,
	}
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

// watchedFiles returns the metric directory of what is watched. The first call fills it.
func (b *bench) watchedFiles(ctx context.Context) (string, error) {
	d := watchedData()
	if dirs := b.dirs[d.name]; len(dirs) > 0 {
		return dirs[0].path, nil
	}
	p := pythonPeer(b.options.python, b.ws.scripts)
	if err := p.describe(ctx); err != nil {
		return "", err
	}
	path, err := b.ws.fill(ctx, d, p)
	if err != nil {
		return "", err
	}
	b.dirs[d.name] = []directory{{path, p}}
	return path, nil
}

// startWatched starts a server, and a sidecar that watches it.
func (b *bench) startWatched(
	ctx context.Context, workers int, start func(context.Context, int) (*server, error),
) (s *server, m *master, stop func() error, err error) {
	if s, err = start(ctx, workers); err != nil {
		return nil, nil, nil, err
	}
	if m, err = b.sidecar(ctx, s, workers); err != nil {
		return nil, nil, nil, errors.Join(err, s.close())
	}
	return s, m, func() error { return errors.Join(m.close(), s.close()) }, nil
}

// loadAverage returns how many processes had something to do in the last minute, as the kernel has it.
func loadAverage() string {
	text, _ := os.ReadFile("/proc/loadavg") // without it it is unknown, which is no reason to stop
	average, _, found := strings.Cut(string(text), " ")
	if !found {
		return "unknown"
	}
	return average
}

// under is the load average from the begin of a measurement to its end.
type under struct{ from, to string }

func (u under) String() string { return "load average " + u.from + " to " + u.to }

// beginUnder notes the load average at the begin.
func beginUnder() under { return under{from: loadAverage()} }

// end notes that at the end.
func (u under) end() under { return under{u.from, loadAverage()} }

// restWorkers is how many the server has that is watched at rest.
const restWorkers = 16

// restInterval is how often that server is scraped, unless the window is short.
const restInterval = 15 * time.Second

// restResult is what a sidecar costs while nothing happens but scrapes.
type restResult struct {
	server        string
	workers       int
	series        int // merged
	window        time.Duration
	scrapes       int
	cpu           time.Duration
	memory, atEnd memory // the largest, and that at the end
	load          under
}

// measureRest watches a server that has nothing to do. The start, and one scrape after it, are not measured.
func (b *bench) measureRest(ctx context.Context) (err error) {
	_, m, stop, err := b.startWatched(ctx, restWorkers, b.startServer)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	r := restResult{server: b.serverName(), workers: restWorkers, load: beginUnder()}
	samples, err := m.samples(ctx, gzipped)
	if err != nil {
		return err
	}
	r.series = len(samples)
	interval := min(restInterval, b.options.window/2)
	if err := waitUntil(ctx, time.Now().Add(interval)); err != nil {
		return err
	}
	if err := r.observe(ctx, m, b.options.window, interval); err != nil {
		return err
	}
	r.load = r.load.end()
	b.report.rest = &r
	return nil
}

// observe scrapes at intervals for a window.
func (r *restResult) observe(ctx context.Context, m *master, window, interval time.Duration) error {
	began := time.Now()
	before, err := cpuTime(m.pid())
	if err != nil {
		return err
	}
	for due := began.Add(interval); !due.After(began.Add(window)); due = due.Add(interval) {
		if err := waitUntil(ctx, due); err != nil {
			return err
		}
		if _, err := m.scrape(ctx, gzipped); err != nil {
			return err
		}
		r.scrapes++
		if r.atEnd, err = m.memory(); err != nil {
			return err
		}
		r.memory = memory{max(r.memory.rss, r.atEnd.rss), max(r.memory.peak, r.atEnd.peak)}
	}
	after, err := m.cpu()
	r.cpu, r.window = after-before, time.Since(began)
	return err
}

// percent is the processor time, as a part of one core.
func (r *restResult) percent() float64 { return 100 * r.cpu.Seconds() / r.window.Seconds() }

func (b *bench) serverName() string {
	if b.options.gunicorn == "" {
		return "forker.py"
	}
	return "gunicorn"
}

// crowdWorkers is how many a scrape has to look at that must not take long.
const crowdWorkers = 500

// crowdPause is longer than the exporter is content with what it saw before.
const crowdPause = 250 * time.Millisecond

// crowdResult is how long scrapes of many workers took.
type crowdResult struct {
	workers int
	walls   []time.Duration
	memory  memory
	load    under
}

// measureCrowd scrapes a server of very many workers. The proportional memory of workers is read between scrapes, by
// the exporter's own measure.
func (b *bench) measureCrowd(ctx context.Context) (err error) {
	_, m, stop, err := b.startWatched(ctx, crowdWorkers, b.startForker)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	r := crowdResult{workers: crowdWorkers, load: beginUnder()}
	for range b.options.scrapes {
		if err := waitUntil(ctx, time.Now().Add(crowdPause)); err != nil {
			return err
		}
		took, err := m.scrape(ctx, gzipped)
		if err != nil {
			return err
		}
		r.walls = append(r.walls, took)
	}
	if r.memory, err = m.memory(); err != nil {
		return err
	}
	r.load = r.load.end()
	b.report.crowd = &r
	return nil
}
