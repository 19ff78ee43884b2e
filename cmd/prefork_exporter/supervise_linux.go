package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/prometheus/common/promslog"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/prefork-exporter/prefork_exporter/cmd/internal/supervisor"
	"github.com/prefork-exporter/prefork_exporter/multiproc/writer"
	"github.com/prefork-exporter/prefork_exporter/registry/notify"
)

const superviseHelp = `Runs CMD as so many workers, which share listening sockets, and keeps them running:
a worker that ends is followed by another, at once or, when it fails again and again,
after a while. Metrics of the workers and of their restarts are served beside them, as
the program does without a command; its flags hold here, too.

A worker inherits the sockets of --listen as LISTEN_FDS, and finds where to write metric
files in PROMETHEUS_MULTIPROC_DIR and its number in PREFORK_WORKER_ID. It may tell by
sd_notify that it is ready (READY=1), alive (WATCHDOG=1) and why it stops
(X_PREFORK_REASON=max_requests); one that tells nothing is ready after --ready-after.

Without --multiproc.dir and PROMETHEUS_MULTIPROC_DIR the directory of metric files is one
of our own in $TMPDIR, which ends with us. A command that is not there, or cannot be run, is
tried again like one that fails.

Signals: TERM stops the workers, INT and QUIT too, with that signal instead; HUP replaces
all workers, one after another; TTIN adds a worker, TTOU takes one; USR1 goes to the
workers; USR2 has the program that has this one's name by now, a newer one say, take over
all that there is, as the same process. When this process is killed its workers are, too,
but not what they have started in another session or what has another user. A script that
starts the server should do so with exec.

Under systemd: Type=notify; sockets that it passes go to the workers, beside those of
--listen. The unit needs KillMode=mixed: else workers get a TERM of systemd's, too.`

const superviseExample = `  prefork_exporter supervise --workers=4 --listen=127.0.0.1:8000 -- prefork_worker
  prefork_exporter supervise --listen=unix:/run/app.sock --heartbeat-timeout=30s -- ./server --fast`

// supervision are the flags of supervise.
type supervision struct {
	*settings
	supervisor.Options
	listen    []string
	reusePort bool
	prefix    bool
}

// newSuperviseCommand returns the command of a master.
func newSuperviseCommand(env environment) *cobra.Command {
	s := &supervision{settings: newSettings()}
	s.settings.options.Supervises = true
	return withSidecar(&cobra.Command{
		Use:     "supervise [flags] -- CMD [ARG…]",
		Short:   "Runs a command as workers that share sockets, and keeps them running",
		Long:    superviseHelp,
		Example: superviseExample,
	}, env, s.settings, flagGroup{"Workers", s.flags()}, s.check, s.runMaster)
}

func (s *supervision) flags() *pflag.FlagSet {
	flags, o := newFlagSet(), &s.Options
	o.Backoff = supervisor.DefaultBackoff()
	o.AbortTimeout = time.Second
	flags.IntVar(&o.Workers, "workers", 1, "workers that there should be")
	flags.StringArrayVar(&s.listen, "listen", nil, "`ADDRESS` of a socket that workers inherit: HOST:PORT or unix:/PATH; may be repeated")
	flags.BoolVar(&s.reusePort, "reuse-port", false, "open the TCP sockets of --listen for each worker anew (SO_REUSEPORT): the kernel spreads connections "+
		"evenly, but those that wait for a worker that TTOU takes are lost")
	flags.BoolVar(&s.prefix, "prefix-output", false, "begin each line that a worker writes with its number, as [3]")
	flags.DurationVar(&o.StopTimeout, "stop-timeout", 10*time.Second, "how long a worker may take to end before it is killed")
	flags.DurationVar(&o.StartTimeout, "start-timeout", time.Minute, "how long a worker may take to say that it is ready, once one has")
	flags.DurationVar(&o.ReadyAfter, "ready-after", time.Second, "when a worker that says nothing counts as ready")
	flags.DurationVar(&o.HeartbeatTimeout, "heartbeat-timeout", 0, "how long a worker may give no sign of life, once one has given any; 0s: for ever")
	flags.DurationVar(&o.Backoff.GoodRun, "good-run", o.Backoff.GoodRun, "how long a worker must have served for its next end to be followed by another at once")
	flags.DurationVar(&o.Backoff.Max, "backoff-max", o.Backoff.Max, "how long a start waits at most after failures in a row; each waits twice as long as the one before")
	flags.DurationVar(&o.MaxLifetime, "max-lifetime", 0, "after how long a worker is replaced; 0s: never")
	flags.DurationVar(&o.LifetimeJitter, "max-lifetime-jitter", 0, "and up to how much later")
	flags.Int64Var(&o.MaxMemory, "max-memory", 0, "with how many bytes of resident memory a worker is replaced; 0: never")
	flags.Int64Var(&o.MemoryJitter, "max-memory-jitter", 0, "and up to how many more")
	return flags
}

// check returns what cannot be.
func (s *supervision) check() error {
	for _, check := range []func() error{s.checkTimes, s.checkLimits, s.checkSockets} {
		if err := check(); err != nil {
			return err
		}
	}
	return supervisor.CheckHandover()
}

func (s *supervision) checkTimes() error {
	o := s.Options
	switch {
	case o.StopTimeout <= 0 || o.StartTimeout <= 0 || o.ReadyAfter <= 0:
		return errors.New("--stop-timeout, --start-timeout, --ready-after: want more than 0s")
	case o.Backoff.GoodRun < 0 || o.Backoff.Max < 0:
		return errors.New("--good-run, --backoff-max: want 0s or more")
	case o.HeartbeatTimeout != 0 && o.HeartbeatTimeout < leastHeartbeat:
		return fmt.Errorf("--heartbeat-timeout: %v: want 0s, or %v or more", o.HeartbeatTimeout, leastHeartbeat)
	case o.MaxLifetime != 0 && o.MaxLifetime < leastLifetime:
		return fmt.Errorf("--max-lifetime: %v: want 0s, or %v or more", o.MaxLifetime, leastLifetime)
	}
	return nil
}

func (s *supervision) checkLimits() error {
	o := s.Options
	switch {
	case o.Workers < 1 || o.Workers > supervisor.MaxWorkers:
		return fmt.Errorf("--workers: %d: want a number from 1 to %d", o.Workers, supervisor.MaxWorkers)
	case o.LifetimeJitter < 0 || o.MaxMemory < 0 || o.MemoryJitter < 0:
		return errors.New("--max-lifetime-jitter, --max-memory, --max-memory-jitter: want 0 or more")
	case o.LifetimeJitter > 0 && o.MaxLifetime == 0:
		return errors.New("--max-lifetime-jitter: want --max-lifetime, too")
	case o.MemoryJitter > 0 && o.MaxMemory == 0:
		return errors.New("--max-memory-jitter: want --max-memory, too")
	}
	return nil
}

func (s *supervision) checkSockets() error {
	for _, address := range s.listen {
		if err := supervisor.CheckAddress(address); err != nil {
			return fmt.Errorf("--listen: %q: %w", address, err)
		}
	}
	if s.reusePort && len(s.listen) == 0 {
		return errors.New("--reuse-port: want --listen, too")
	}
	return nil
}

// Less than that is a storm.
const leastHeartbeat, leastLifetime = 100 * time.Millisecond, time.Second

// runMaster keeps workers running, and this program again as their sidecar.
func (s *supervision) runMaster(ctx context.Context, args []string, stderr io.Writer) error {
	dir := s.metricDirectory()
	signals, stop := supervisor.CatchMasterSignals()
	defer stop()
	logs := supervisor.NewPatientWriter(stderr)
	defer logs.Close()
	s.Logger = promslog.New(&promslog.Config{Level: s.level.Level, Format: s.format.Format, Writer: logs})
	if within := notify.Watchdog(); within > 0 {
		const often = 10 * time.Millisecond
		s.BeatEvery = max(within/2, often)
	}
	deaf := false
	m := &supervisor.Master{
		Options: s.Options, Args: args, Listen: s.listen, ReusePort: s.reusePort, Dir: dir, Prefix: s.prefix,
		Sidecar: s.sidecarArgs(), Check: s.checkArgs(), Signals: signals, Flush: logs.Flush,
		ClearAway: func(dir string, pid int) {
			if err := writer.MarkProcessDead(dir, strconv.Itoa(pid)); err != nil {
				s.Logger.Warn("live gauges of a worker that has ended stay", "pid", pid, "err", err)
			}
		},
		Tell: func(lines ...string) {
			err := notify.Send(lines...)
			if err != nil && !deaf {
				s.Logger.Warn("who started this program is not told how it is", "err", err)
			}
			deaf = err != nil // which is said once
		},
	}
	return m.Run(ctx)
}
