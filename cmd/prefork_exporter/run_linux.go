package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/common/promslog"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/prefork-exporter/prefork_exporter/cmd/internal/supervisor"
)

const runHelp = `Starts CMD, a server that is its own master (gunicorn, uWSGI, unicorn, puma, …), with
PROMETHEUS_MULTIPROC_DIR, serves the metrics of its workers beside it, as the program does
without a command, and ends as it ends: with its exit code, or 128 and its signal's number.

HUP, INT, QUIT, USR1, USR2, TERM, TTIN, TTOU and WINCH go on to the server; TERM as the
signal with which that kind of server lets requests end (--stop-signal). As the first
process of a container it reaps orphans. When it is killed, the server gets a TERM.`

const runExample = `  prefork_exporter run -- gunicorn --workers=4 app:app
  prefork_exporter run --web.listen-address=127.0.0.1:10142 --linger=30s -- uwsgi --ini app.ini`

// wrapping are the flags of run.
type wrapping struct {
	*settings
	stop   string
	signal syscall.Signal // of that name
	linger time.Duration
}

// newRunCommand returns the command that wraps a server.
func newRunCommand(env environment) *cobra.Command {
	r := &wrapping{settings: newSettings()}
	return withSidecar(&cobra.Command{
		Use:     "run [flags] -- CMD [ARG…]",
		Short:   "Starts a server that is its own master, and serves its workers' metrics beside it",
		Long:    runHelp,
		Example: runExample,
	}, env, r.settings, flagGroup{"Server", r.flags()}, r.check, r.runWrapper)
}

func (r *wrapping) flags() *pflag.FlagSet {
	flags := newFlagSet()
	flags.StringVar(&r.stop, "stop-signal", "", "`SIGNAL` that the server gets for a TERM; else INT for uWSGI, QUIT for unicorn and php-fpm, TERM for others")
	flags.DurationVar(&r.linger, "linger", 0, "how long to go on to answer when the server has ended, until the last metrics were scraped once")
	return flags
}

// check returns what cannot be.
func (r *wrapping) check() error {
	var err error
	if r.signal, err = stopSignal(r.stop); err != nil {
		return err
	}
	if r.linger < 0 {
		return errors.New("--linger: want 0s or more")
	}
	return nil
}

// stopSignal returns the signal of that name, with or without SIG; zero for none.
func stopSignal(name string) (syscall.Signal, error) {
	if name == "" {
		return 0, nil
	}
	if s := unix.SignalNum("SIG" + strings.TrimPrefix(strings.ToUpper(name), "SIG")); s != 0 {
		return s, nil
	}
	return 0, fmt.Errorf("--stop-signal: %q: want a signal such as TERM", name)
}

// runWrapper runs the server, and this program again as its sidecar.
func (r *wrapping) runWrapper(ctx context.Context, args []string, stderr io.Writer) error {
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, supervisor.WrapperSignals(supervisor.Terminal())...)
	defer signal.Stop(signals)
	logs := supervisor.NewPatientWriter(stderr)
	defer logs.Close()
	w := &supervisor.Wrapper{
		Args: args, Dir: r.metricDirectory(), Sidecar: r.sidecarArgs(), StopSignal: r.signal, Linger: r.linger, Signals: signals,
		Logger: promslog.New(&promslog.Config{Level: r.level.Level, Format: r.format.Format, Writer: logs}),
	}
	status, err := w.Run(ctx)
	switch {
	case err != nil:
		return err
	case status.Signal != 0:
		return exitStatus(128 + int(status.Signal))
	case status.Code != 0:
		return exitStatus(status.Code)
	}
	return nil
}
