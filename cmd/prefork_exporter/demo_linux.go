package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/prefork-exporter/prefork_exporter/cmd/internal/demo"
)

const demoHelp = `Shows the whole system on this machine: starts this program again, as supervise, around
workers of the example prefork_worker; sends them requests that are fast, slow, fail, crash,
leak and hang; and does what operators do: HUP, TTIN, TTOU, USR2, kill -9. It prints the command
line of supervise, where the metrics are, and what to try.

All of it ends with this command, by Ctrl-C or TERM, and leaves nothing behind.`

const demoExample = `  prefork_exporter demo
  prefork_exporter demo --rate=200 --round=20s --web.listen-address=:10142`

// demonstration are the flags of demo.
type demonstration struct {
	listen, web, worker string
	rate                int
	round               time.Duration
}

// newDemoCommand returns the command that shows what the others do.
func newDemoCommand() *cobra.Command {
	d := &demonstration{}
	cmd := &cobra.Command{
		Use:     "demo [flags]",
		Short:   "Shows supervise with example workers, requests, and what goes wrong",
		Long:    demoHelp,
		Example: demoExample,
		Args:    cobra.NoArgs,
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := d.check(); err != nil {
			return usageError{err}
		}
		if err := d.settle(cmd.Flags().Changed("listen")); err != nil {
			return err
		}
		return d.run(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr())
	}
	cmd.Flags().SortFlags = false
	cmd.Flags().AddFlagSet(d.flags())
	return cmd
}

func (d *demonstration) flags() *pflag.FlagSet {
	flags := newFlagSet()
	flags.StringVar(&d.web, "web.listen-address", "127.0.0.1:10142", "`ADDRESS` of the metrics: HOST:PORT")
	flags.StringVar(&d.listen, "listen", "127.0.0.1:8000", "`ADDRESS` of the workers; unless it is given, another free port will do")
	flags.IntVar(&d.rate, "rate", 20, "requests a second; 0: send your own")
	flags.DurationVar(&d.round, "round", time.Minute, "how long a round takes of all that can go wrong")
	flags.StringVar(&d.worker, "worker", "", "`PATH` of "+exampleWorker+", if it is neither beside this program nor in $PATH")
	return flags
}

const exampleWorker = "prefork_worker"

// check returns what cannot be.
func (d *demonstration) check() error {
	if d.rate < 0 || d.rate > demo.MaxRate {
		return fmt.Errorf("--rate: %d: want a number from 0 to %d", d.rate, demo.MaxRate)
	}
	if d.round < minRound || d.round > maxRound {
		return fmt.Errorf("--round: %v: want from %v to %v", d.round, minRound, maxRound)
	}
	for flag, address := range map[string]string{"web.listen-address": d.web, "listen": d.listen} {
		_, port, err := net.SplitHostPort(address)
		if err == nil {
			_, err = strconv.ParseUint(port, 10, 16)
		}
		if err != nil {
			return fmt.Errorf("--%s: %q: want HOST:PORT", flag, address)
		}
	}
	if d.worker == "" {
		return nil
	}
	if _, err := exec.LookPath(d.worker); err != nil {
		return fmt.Errorf("--worker: %w: want the path of %s, which `make build` builds", err, exampleWorker)
	}
	return nil
}

// A shorter round would be a restart loop, and a longer one nobody sees.
const minRound, maxRound = 10 * time.Second, time.Hour

// settle decides what the flags have left open: ports, and where the worker is.
func (d *demonstration) settle(listenGiven bool) (err error) {
	if d.worker == "" {
		if d.worker, err = findWorker(); err != nil {
			return err
		}
	}
	if d.web, err = free(d.web); err != nil {
		return fmt.Errorf("%w: stop the other program or choose another --web.listen-address", err)
	}
	address := d.listen
	if d.listen, err = free(address); err != nil && !listenGiven {
		d.listen, err = free("127.0.0.1:0")
	}
	if err != nil {
		return fmt.Errorf("%w: stop the other program or choose another --listen", err)
	}
	return nil
}

// findWorker looks beside this program first: what was built together belongs together.
func findWorker() (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find this program: %w", err)
	}
	for _, name := range []string{filepath.Join(filepath.Dir(self), exampleWorker), exampleWorker} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("find %s: it is neither in %s, beside this program, nor in $PATH: run `make build`, or say with --worker where it is",
		exampleWorker, filepath.Dir(self))
}

// free returns the address if somebody can listen there, with a port for the port 0.
func free(address string) (string, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return "", err
	}
	host, _, _ := net.SplitHostPort(address)
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return net.JoinHostPort(host, port), l.Close()
}

// url returns where somebody here reaches what listens on an address.
func url(address string) string {
	host, port, _ := net.SplitHostPort(address)
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	return "http://" + net.JoinHostPort(host, port)
}

const workersOfDemo = 4

// metricsOf and logOf are what else is in the directory of a demo.
func metricsOf(dir string) string { return filepath.Join(dir, "metrics") }
func logOf(dir string) string     { return filepath.Join(dir, "log") }

// arguments are those of supervise. The limits of age and requests begin early and vary
// much, so that both are reached in a round, and that of memory is reached by two leaks.
func (d *demonstration) arguments(dir string) []string {
	round := d.round.Round(time.Second)
	requests := max(60, d.rate*int(round.Seconds())/workersOfDemo) // of a worker in a round
	heartbeat := min(round/20, time.Second)                        // one that hangs is missed before it has to go anyway
	const memory = 48 << 20
	return []string{
		"supervise", "--workers=" + strconv.Itoa(workersOfDemo), "--listen=" + d.listen, "--web.listen-address=" + d.web,
		"--multiproc.dir=" + metricsOf(dir), "--state.dir=" + filepath.Join(dir, "state"),
		"--heartbeat-timeout=" + heartbeat.String(), "--stop-timeout=5s", "--max-memory=" + strconv.Itoa(memory),
		"--max-lifetime=" + (round / 6).Round(time.Millisecond).String(), "--max-lifetime-jitter=" + (round / 3).Round(time.Millisecond).String(),
		"--", d.worker, "--max-requests=" + strconv.Itoa(requests/6), "--max-requests-jitter=" + strconv.Itoa(requests/3),
		"--drain=300ms", "--stop-timeout=3s",
	}
}

// run shows it all until ctx is done or the master has ended.
func (d *demonstration) run(ctx context.Context, stdout, stderr io.Writer) (err error) {
	ctx, stop := interruptible(ctx)
	defer stop()
	if !signal.Ignored(syscall.SIGHUP) { // as nohup has it
		ctx, stop = signal.NotifyContext(ctx, syscall.SIGHUP)
		defer stop()
	}
	broken := make(chan os.Signal, 1) // nobody looks: to write where nobody reads is an error then, not our end
	signal.Notify(broken, syscall.SIGPIPE)
	defer signal.Stop(broken)
	dir, err := os.MkdirTemp("", "prefork-demo-")
	if err != nil {
		return fmt.Errorf("make a directory for the demo: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	args := slices.Concat([]string{self}, d.arguments(dir))
	m, err := demo.Start(args, demoEnvironment(os.Environ(), dir), logOf(dir))
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "%s\n\n", commandLine(args))
	err = d.show(ctx, m, dir, stdout)

	hurry := make(chan os.Signal, 1)
	signal.Notify(hurry, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(hurry)
	err = errors.Join(err, m.Stop(stopPatience, hurry))
	if errors.Is(err, demo.ErrHurried) {
		return err
	}
	status := m.Status()
	if err != nil || status != 0 {
		fmt.Fprintf(stderr, "The master has ended with status %d. Its log ends with:\n%s", status, m.LastWords())
	}
	if err == nil && status != 0 {
		return exitStatus(status)
	}
	return err
}

// The master needs up to its --stop-timeout for the workers, and as long for the sidecar.
const startPatience, stopPatience = 30 * time.Second, 15 * time.Second

// demoEnvironment lets the command line say all, and keeps what the master makes in dir.
func demoEnvironment(env []string, dir string) []string {
	ours := slices.DeleteFunc(slices.Clone(env), func(pair string) bool { return strings.HasPrefix(pair, twinPrefix) })
	return append(ours, "TMPDIR="+dir)
}

// commandLine returns a command as a shell takes it, in lines that can be read.
func commandLine(words []string) string {
	var b strings.Builder
	column := 0
	for _, w := range words {
		if w == "" || strings.ContainsFunc(w, func(r rune) bool { return !strings.ContainsRune(plainSigns, r) }) {
			w = "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
		}
		switch {
		case column > 0 && column+len(w) > helpWidth-3:
			b.WriteString(" \\\n  ")
			column = 2
		case column > 0:
			b.WriteString(" ")
		}
		b.WriteString(w)
		column += 1 + len(w)
	}
	return b.String()
}

const plainSigns = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-+=:,./@%"

// show waits until all of it serves, and then lets it be used until ctx is done or the
// master has ended: how is the master's to tell.
func (d *demonstration) show(ctx context.Context, m *demo.Master, dir string, stdout io.Writer) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-m.Ended():
			cancel()
		case <-ctx.Done():
		}
	}()
	client := demo.NewClient(10 * time.Second)
	starting, started := context.WithTimeout(ctx, startPatience)
	defer started()
	if err := demo.Await(starting, client, url(d.web)+"/-/ready", url(d.listen)); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return fmt.Errorf("start supervise: it does not serve after %v: %w", startPatience, err)
	}
	d.explain(stdout, m.PID(), logOf(dir))
	d.live(ctx, m, client, metricsOf(dir), stdout)
	return nil
}

// explain prints what there is to see, and what to try.
func (d *demonstration) explain(stdout io.Writer, master int, log string) {
	metrics := url(d.web) + "/metrics"
	fmt.Fprintf(stdout, `%[1]s has the metrics of %[2]d workers,
which serve %[3]s and get %[4]d requests a second. Look at them,
  curl -s %[1]s
  curl -sg '%[1]s?name[]=prefork_worker_requests_total'
  curl -sg '%[1]s?name[]=prefork_master_worker_restart_total'
  curl -s %[9]s/api/v1/status
  tail -f %[5]s
and try
  kill -HUP %-9[6]d  all workers are replaced, and no request is lost
  kill -TTIN %-8[6]d  there is a worker more; with -TTOU there is one less
  kill -USR2 %-8[6]d  this program takes over from itself: as for a newer one
  kill -9 PID          of a worker, which prefork_worker_pid tells: it comes back
  curl %[3]s/crash; %[7]s --help has more.

Ctrl-C ends it all. Every %[8]v there is, beside the requests:
`, metrics, workersOfDemo, url(d.listen), d.rate, log, master, commandLine([]string{d.worker}), d.round, url(d.web))
}

// live lets clients and an operator have their way with a master, until ctx is done or
// nobody reads what is told.
func (d *demonstration) live(ctx context.Context, m *demo.Master, client *http.Client, dir string, stdout io.Writer) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	operator := &demo.Operator{
		Client: client, Workers: url(d.listen), Metrics: url(d.web) + "/metrics", Dir: dir, Round: d.round,
		Signal: m.Signal, Kill: m.KillWorker,
		Tell: func(line string) {
			if _, err := fmt.Fprintf(stdout, "  %s  %s\n", time.Now().Format(time.TimeOnly), line); err != nil {
				cancel()
			}
		},
	}
	var group sync.WaitGroup
	group.Go(func() { operator.Run(ctx) })
	traffic := &demo.Traffic{Client: client, Workers: url(d.listen), Rate: d.rate}
	sent := traffic.Run(ctx)
	group.Wait()
	fmt.Fprintf(stdout, "\n%d requests were answered, and %d lost, by what was done to their workers.\n", sent.Answered, sent.Lost)
}
