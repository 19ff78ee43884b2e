// Command bench measures a scrape of prefork_exporter beside what a user would run without it: the client
// libraries that merge the same directory. Every figure of a table comes from one run, and contenders take
// turns, so that a machine that gets slower or faster in between does so for all of them. Ratios are printed
// and never asserted: the command fails when something cannot be run or when the outputs differ.
//
// A part of its own measures supervise: how soon a worker that was killed is followed, requests that fail while
// signals come, and what ten thousand births leave behind. It fails when the counts do not add up. Another measures
// a sidecar that watches a server from outside: what it costs, and how soon it knows of a death.
//
// It promises nothing to other packages.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/pflag"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// options are the flags.
type options struct {
	data     string
	keep     bool
	tmpfs    bool
	only     []string
	binary   string
	python   string
	ruby     string
	runs     int
	peerRuns int
	changing int
	cpuLimit string
	soak     int
	wrk      string
	deaths   int
	requests int
	births   int

	gunicorn    string // empty: there is none
	window      time.Duration
	scrapes     int
	watchDeaths int
	pairs       int
	pairTime    time.Duration
}

func parseOptions(args []string, stderr io.Writer) (options, error) {
	var o options
	f := pflag.NewFlagSet("bench", pflag.ContinueOnError)
	f.SetOutput(stderr)
	f.StringVar(&o.data, "data", "", "directory for the data sets (default: a temporary one)")
	f.BoolVar(&o.keep, "keep", false, "keep the data sets; a later run with the same --data uses them again")
	f.BoolVar(&o.tmpfs, "tmpfs", false, "put the temporary directory on /dev/shm")
	f.StringSliceVar(&o.only, "only", nil, "what to measure, such as D1,D3, supervise or watch (default: all)")
	f.StringVar(&o.binary, "binary", "", "exporter to measure (default: built from this module)")
	f.StringVar(&o.python, "python", "/usr/bin/python3", "interpreter that has prometheus_client")
	f.StringVar(&o.ruby, "ruby", "/usr/bin/ruby", "interpreter that has prometheus-client-mmap")
	f.IntVar(&o.runs, "runs", 30, "measured scrapes of the exporter")
	f.IntVar(&o.peerRuns, "peer-runs", 7, "measured merges of each client library, first scrapes, and steps of D6")
	f.IntVar(&o.changing, "changing", 10, "percentage of the values that change before every measured run")
	f.StringVar(&o.cpuLimit, "cpu-limit", "100m", "CPU limit for the part with a limit; empty leaves it out")
	f.IntVar(&o.soak, "soak", 1000, "scrapes of the part that watches memory; 0 leaves it out")
	f.StringVar(&o.wrk, "wrk", "/usr/bin/wrk", "program that makes load for supervise and watch")
	f.IntVar(&o.deaths, "deaths", 200, "workers of supervise that are killed; 0 leaves it out")
	f.IntVar(&o.requests, "requests", 100_000, "requests to supervise's workers, at least; 0 leaves it out")
	f.IntVar(&o.births, "births", 10_000, "workers of supervise that end at once; 0 leaves it out")
	f.StringVar(&o.gunicorn, "gunicorn", "/usr/bin/gunicorn", "server that is watched")
	f.DurationVar(&o.window, "watch-window", 2*time.Minute, "how long a server at rest is watched; 0s leaves it out")
	f.IntVar(&o.scrapes, "watch-scrapes", 50, "scrapes of a server of very many workers; 0 leaves it out")
	f.IntVar(&o.watchDeaths, "watch-deaths", 50, "workers that are killed while their server is watched; 0 leaves it out")
	f.IntVar(&o.pairs, "pairs", 20, "runs of wrk with a sidecar and as many without, at least 5; 0 leaves it out")
	f.DurationVar(&o.pairTime, "pair-time", 2*time.Second, "how long each of them takes")
	if err := f.Parse(args); err != nil {
		return options{}, err
	}
	if f.NArg() > 0 {
		return options{}, fmt.Errorf("unexpected argument %q: want flags only", f.Arg(0))
	}
	return o, o.validate()
}

func (o options) validate() error {
	for _, name := range o.only {
		known := slices.ContainsFunc(allDatasets(), func(d dataset) bool { return d.name == name })
		if !known && name != supervisePart && name != watchPart {
			return fmt.Errorf("--only: unknown data set %q: want D1 to D6, %s or %s", name, supervisePart, watchPart)
		}
	}
	if o.runs < 1 || o.peerRuns < 1 {
		return errors.New("--runs and --peer-runs: want at least 1")
	}
	if o.changing < 0 || o.changing > 100 {
		return fmt.Errorf("--changing: %d is not a percentage", o.changing)
	}
	for flag, n := range map[string]int{
		"soak": o.soak, "deaths": o.deaths, "requests": o.requests, "births": o.births,
		"watch-scrapes": o.scrapes, "watch-deaths": o.watchDeaths,
	} {
		if n < 0 {
			return fmt.Errorf("--%s: %d is negative", flag, n)
		}
	}
	if o.window < 0 || o.pairTime <= 0 {
		return errors.New("--watch-window and --pair-time: want no less than 0s, and more")
	}
	if o.pairs != 0 && o.pairs < fewestPairs {
		return fmt.Errorf("--pairs: %d: want at least %d, or 0", o.pairs, fewestPairs)
	}
	if o.data != "" && o.tmpfs {
		return errors.New("--data and --tmpfs: want one of them")
	}
	if o.cpuLimit != "" {
		if _, err := parseCPULimit(o.cpuLimit); err != nil {
			return fmt.Errorf("--cpu-limit: %w", err)
		}
	}
	return nil
}

// run is the program. It prints what was measured even when a part failed, and returns every failure.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	o, err := parseOptions(args, stderr)
	if errors.Is(err, pflag.ErrHelp) {
		return nil
	}
	if err != nil {
		return err
	}
	ws, err := newWorkspace(o)
	if err != nil {
		return err
	}
	b, err := newBench(ctx, o, ws, stderr)
	if err != nil {
		return errors.Join(err, ws.remove())
	}
	err = b.all(ctx)
	if o.keep {
		b.say("the data sets stay in %s", ws.data)
	}
	return errors.Join(err, b.report.write(stdout), ws.remove())
}

// bench is one run of the program.
type bench struct {
	options options
	ws      *workspace
	binary  string
	peers   []*peer
	dirs    map[string][]directory // by data set, for the parts that come after it
	report  *report
	log     io.Writer // progress, for who waits
}

func newBench(ctx context.Context, o options, ws *workspace, log io.Writer) (*bench, error) {
	b := &bench{options: o, ws: ws, binary: o.binary, report: newReport(), log: log}
	b.dirs = make(map[string][]directory)
	if err := b.findPeers(ctx); err != nil {
		return nil, err
	}
	if err := b.build(ctx); err != nil {
		return nil, err
	}
	return b, nil
}

// findPeers describes what else the selected parts run, and in what they run.
func (b *bench) findPeers(ctx context.Context) error {
	b.report.setup = describeHost()
	if len(b.selected()) > 0 {
		if err := b.findLibraries(ctx); err != nil {
			return err
		}
		b.report.setup = append(b.report.setup, b.setup()...)
	}
	b.findGunicorn()
	if !b.options.loads() {
		return nil
	}
	version, err := describeWrk(ctx, b.options.wrk)
	b.report.setup = append(b.report.setup, "load: wrk "+version)
	return err
}

// loads says whether a part needs wrk.
func (o options) loads() bool {
	return o.supervises() && o.requests > 0 || o.watches() && o.pairs > 0
}

func (b *bench) findLibraries(ctx context.Context) error {
	o := b.options
	for _, p := range []*peer{pythonPeer(o.python, b.ws.scripts), rubyPeer(o.ruby, b.ws.scripts)} {
		if err := p.describe(ctx); err != nil {
			b.report.absent = append(b.report.absent, fmt.Sprintf("%s files are left out: %v", p.files, err))
			continue
		}
		b.peers = append(b.peers, p)
	}
	if len(b.peers) == 0 {
		return fmt.Errorf("no client library, so nothing to measure: %s", strings.Join(b.report.absent, "; "))
	}
	return nil
}

// build compiles what is to be measured.
func (b *bench) build(ctx context.Context) error {
	var programs []string
	if b.binary == "" {
		programs = append(programs, "cmd/prefork_exporter")
		b.binary = b.ws.program("prefork_exporter")
	}
	if b.options.supervises() {
		programs = append(programs, workerPrograms()...)
	}
	if len(programs) == 0 {
		return nil
	}
	b.say("build %s", strings.Join(programs, ", "))
	return b.ws.build(ctx, programs...)
}

// setup describes how data sets are measured.
func (b *bench) setup() []string {
	lines := []string{"data: " + describeFileSystem(b.ws.data) + ", page cache warm"}
	for _, p := range b.peers {
		lines = append(lines, fmt.Sprintf("%s: %s, %s; gzip is %s", p.files, p.name, p.language, p.gzip))
	}
	return append(lines,
		fmt.Sprintf("runs: %d of the exporter, %d of the libraries, taking turns; wall is the median, CPU the mean",
			b.options.runs, b.options.peerRuns),
		fmt.Sprintf("%d %% of the values change before every run; D6 changes as its description says",
			b.options.changing))
}

// all measures every part. A part that fails does not stop the others, an interrupt does.
func (b *bench) all(ctx context.Context) error {
	var errs []error
	for _, d := range b.selected() {
		if err := b.measure(ctx, d); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", d.name, err))
		}
	}
	for _, part := range []func(context.Context) error{b.limited, b.soaked, b.supervised, b.watched} {
		errs = append(errs, part(ctx))
	}
	if ctx.Err() != nil {
		return fmt.Errorf("interrupted: %w", context.Cause(ctx))
	}
	return errors.Join(errs...)
}

func (b *bench) selected() []dataset {
	if len(b.options.only) == 0 {
		return allDatasets()
	}
	return slices.DeleteFunc(allDatasets(), func(d dataset) bool {
		return !slices.Contains(b.options.only, d.name)
	})
}

func (b *bench) say(format string, args ...any) {
	fmt.Fprintf(b.log, "bench: "+format+"\n", args...)
}
