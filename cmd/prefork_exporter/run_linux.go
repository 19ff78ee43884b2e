package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
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
without a command, and ends as it ends: with its exit code, or 128 and its signal's number;
with 127 if there is no such command, and 126 if it cannot be run.

CMD must stay in the foreground: no gunicorn -D, no uwsgi --daemonize. Without
--multiproc.dir and PROMETHEUS_MULTIPROC_DIR the directory of metric files is one of our own
in $TMPDIR, which ends with us.

HUP, INT, QUIT, USR1, USR2, TERM, TTIN, TTOU and WINCH go on to the server; TERM as the
signal with which that kind of server lets requests end (--stop-signal), as far as it has one:
uWSGI has with --hook-master-start "unix_signal:15 gracefully_kill_them_all" (and
--stop-signal=TERM here), php-fpm with a process_control_timeout. After a TERM, INT or QUIT
the server has as long as it wants, or --stop-timeout; another such signal goes on to it, too.
On a terminal the server is in the foreground: Ctrl-C is for it alone.

When the server has put another master in its place (USR2 of gunicorn and unicorn, then an
end of the old master), that is the server from then on. When a server ends that has not, it
is started again if --restart says so and no signal has asked it to stop: after 1s, 2s, 4s
and so on up to 1m, from the beginning when it has run for 10s. After five failures within
10m each start waits for 1m; HUP starts it at once. On a terminal exit code 0 or an interrupt
ends it for good.

When a server has ended for good, what it has left running in its process group gets a TERM,
and a KILL 10s later; a daemon, which has a session of its own, goes on. This program reaps
orphans, as the first process of a container or not. When it is killed, the server gets a
TERM, but not one that has taken another's place.

What the server writes to stdout and stderr the sidecar reads, too: from the file, where that
is one; and where it is a pipe, the server gets another pipe, out of which a process of ours
moves all into that one, for as long as anybody writes. The server still waits for a slow
reader, gets a SIGPIPE when there is none, and can open /dev/stderr. A terminal, a socket
(such as systemd's journal), a named pipe and a device are the server's alone; so is
everything with --server-log=off.

Sockets that systemd passes (LISTEN_FDS) are the server's, and so is NOTIFY_SOCKET: the unit
needs NotifyAccess=all.`

const runExample = `  prefork_exporter run -- gunicorn --workers=4 app:app
  prefork_exporter run --web.listen-address=127.0.0.1:10142 --linger=30s -- uwsgi --ini app.ini
  prefork_exporter run --restart=on-failure --stop-timeout=30s -- puma -w 2`

// wrapping are the flags of run.
type wrapping struct {
	*settings
	restart     string
	stop        string
	signal      syscall.Signal // of that name
	stopTimeout time.Duration
	linger      time.Duration
	serverLog   string
}

// newRunCommand returns the command that wraps a server.
func newRunCommand(env environment) *cobra.Command {
	r := &wrapping{settings: newSettings()}
	r.options.Wraps = true
	return withSidecar(&cobra.Command{
		Use:     "run [flags] -- CMD [ARG…]",
		Short:   "Starts a server that is its own master, and serves its workers' metrics beside it",
		Long:    runHelp,
		Example: runExample,
	}, env, r.settings, flagGroup{"Server", r.flags()}, r.check, r.runWrapper)
}

func (r *wrapping) flags() *pflag.FlagSet {
	flags := newFlagSet()
	flags.StringVar(&r.restart, "restart", string(supervisor.RestartNo), "`WHEN` to start the server again that has ended by itself: no, on-failure "+
		"(with an exit code but 0, or by a signal) or always")
	flags.StringVar(&r.stop, "stop-signal", "", "`SIGNAL` that the server gets for a TERM; else INT for uWSGI, which cuts off requests, QUIT for unicorn and php-fpm, TERM for others")
	flags.DurationVar(&r.stopTimeout, "stop-timeout", 0, "how long a server that was asked to stop may take before it is killed; 0s: as long as it wants")
	flags.DurationVar(&r.linger, "linger", 0, "how long to go on to answer when the server has ended, until the last metrics were scraped once")
	flags.StringVar(&r.serverLog, "server-log", "auto", "`MODE` auto or off: whether the sidecar reads what the server writes to stdout and stderr, "+
		"which tells why workers end; it passes unaltered")
	return flags
}

// check returns what cannot be.
func (r *wrapping) check() error {
	var err error
	if r.signal, err = stopSignal(r.stop); err != nil {
		return err
	}
	if r.linger < 0 || r.stopTimeout < 0 {
		return errors.New("--linger, --stop-timeout: want 0s or more")
	}
	if r.serverLog != "auto" && r.serverLog != "off" {
		return fmt.Errorf("--server-log: %q: want auto or off", r.serverLog)
	}
	switch supervisor.RestartPolicy(r.restart) {
	case supervisor.RestartNo, supervisor.RestartOnFailure, supervisor.RestartAlways:
	default:
		return fmt.Errorf("--restart: %q: want no, on-failure or always", r.restart)
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
		Args: args, Dir: r.metricDirectory(), Sidecar: r.sidecarArgs(), Signals: signals,
		Restart: supervisor.RestartPolicy(r.restart), StopSignal: r.signal, StopTimeout: r.stopTimeout, Linger: r.linger, WatchLog: r.serverLog == "auto",
		Logger: promslog.New(&promslog.Config{Level: r.level.Level, Format: r.format.Format, Writer: logs}),
	}
	status, err := w.Run(ctx)
	switch {
	case errors.Is(err, supervisor.ErrStart):
		return statusError{err, statusOfStart(err)}
	case err != nil:
		return err
	case status.Signal != 0:
		return exitStatus(128 + int(status.Signal))
	case status.Code != 0:
		return exitStatus(status.Code)
	}
	return nil
}

// statusOfStart returns the exit code for a command that could not be started, as shells have it.
func statusOfStart(err error) int {
	const cannotRun, notFound = 126, 127
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		return notFound
	}
	return cannotRun
}
