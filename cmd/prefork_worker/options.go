package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/prefork-exporter/prefork_exporter/registry/middleware"
)

// options are what the command line says.
type options struct {
	listen []string
	dir    string
	drain  time.Duration
	stop   time.Duration
	limits middleware.Limits
}

const usage = `Serves HTTP as one worker of a pre-fork server, and counts into the metric files
that prefork_exporter merges. It listens on the sockets that its parent hands
over (LISTEN_FDS, with a LISTEN_PID that is its own), else on its own.

Usage:
  prefork_worker [flags]

Example, two workers, and the exporter beside them:
  export PROMETHEUS_MULTIPROC_DIR=$(mktemp -d)
  prefork_worker --listen 127.0.0.1:8000 &
  prefork_worker --listen 127.0.0.1:8001 &
  prefork_exporter

Endpoints:
%s
Flags:
%s`

// parse reads the command line. Help is printed to stdout, and is pflag.ErrHelp.
func parse(args []string, stdout io.Writer) (options, error) {
	var o options
	flags := pflag.NewFlagSet("prefork_worker", pflag.ContinueOnError)
	flags.SortFlags = false
	flags.StringArrayVar(&o.listen, "listen", []string{"127.0.0.1:8000"}, "address or unix:/path to listen on, may be repeated")
	flags.StringVar(&o.dir, "multiproc.dir", "", "directory of the metric files (default $PROMETHEUS_MULTIPROC_DIR, else ~/.gunicorn_prometheus)")
	flags.DurationVar(&o.drain, "drain", time.Second, "how long clients are told to close their connections before the worker stops")
	flags.DurationVar(&o.stop, "stop-timeout", 10*time.Second, "how long requests may take to end when the worker stops")
	flags.IntVar(&o.limits.Requests, "max-requests", 0, "stop after so many requests (0: never)")
	flags.IntVar(&o.limits.RequestsJitter, "max-requests-jitter", 0, "and up to so many more")
	flags.DurationVar(&o.limits.Lifetime, "max-lifetime", 0, "stop after so long (0: never)")
	flags.DurationVar(&o.limits.LifetimeJitter, "max-lifetime-jitter", 0, "and up to so much longer")
	flags.Int64Var(&o.limits.Memory, "max-memory", 0, "stop with so many bytes of resident memory (0: never)")
	flags.Usage = func() { fmt.Fprintf(stdout, usage, endpointHelp(), flags.FlagUsages()) }
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	return o, o.check(flags.Args())
}

// check returns what cannot be.
func (o options) check(rest []string) error {
	if len(rest) > 0 {
		return fmt.Errorf("argument %q: want none", strings.Join(rest, " "))
	}
	for name, v := range map[string]int64{
		"max-requests": int64(o.limits.Requests), "max-requests-jitter": int64(o.limits.RequestsJitter), "max-memory": o.limits.Memory,
		"max-lifetime": int64(o.limits.Lifetime), "max-lifetime-jitter": int64(o.limits.LifetimeJitter),
	} {
		if v < 0 {
			return fmt.Errorf("--%s is negative: want 0 or more", name)
		}
	}
	if o.stop <= 0 || o.drain <= 0 {
		return errors.New("--drain, --stop-timeout: want more than 0")
	}
	return nil
}
