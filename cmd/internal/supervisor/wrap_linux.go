package supervisor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Wrapper is the whole of run: one server that is its own master, and the sidecar that
// tells of it.
type Wrapper struct {
	Args    []string                  // the server and its arguments
	Dir     string                    // of metric files; empty: one of our own, which ends with us
	Sidecar func(dir string) []string // as that of a [Master]
	Logger  *slog.Logger
	Signals <-chan os.Signal // those of [WrapperSignals]

	// StopSignal is what the server gets for a SIGTERM. Zero: what its kind wants.
	StopSignal syscall.Signal
	// Linger is how long the sidecar goes on to answer when the server has ended, until
	// it is scraped once: else what the server counted last would be lost.
	Linger time.Duration
}

// WrapperSignals are those that a wrapper has to get. All go on to the server but PIPE,
// which would end this process. CHLD and URG, which is Go's own and puma takes for a
// command, are not of them, nor, on a terminal, what that sends to all it knows.
func WrapperSignals(terminal bool) []os.Signal {
	all := []os.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGPIPE}
	if terminal {
		return all
	}
	return append(all, syscall.SIGTTIN, syscall.SIGTTOU, syscall.SIGWINCH)
}

// stopSignalOf returns the signal with which a server ends when its requests are done.
func stopSignalOf(args []string) syscall.Signal {
	switch name := serverName(args); {
	case strings.HasPrefix(name, "uwsgi"):
		return syscall.SIGINT // it takes TERM for a reload
	case name == "unicorn", name == "unicorn_rails", name == "pitchfork", strings.HasPrefix(name, "php-fpm"):
		return syscall.SIGQUIT // TERM cuts off requests
	}
	return syscall.SIGTERM
}

// serverName returns the name of the program that args run, behind an interpreter.
func serverName(args []string) string {
	name := filepath.Base(args[0])
	switch {
	case len(args) > 1 && (strings.HasPrefix(name, "python") || strings.HasPrefix(name, "ruby")):
		return filepath.Base(args[1])
	case len(args) > 2 && name == "bundle" && args[1] == "exec":
		return filepath.Base(args[2])
	}
	return name
}

// Run runs the server, and returns how it has ended.
func (w *Wrapper) Run(ctx context.Context) (status Status, err error) {
	var undo cleanup
	defer func() { err = errors.Join(err, undo.run()) }()
	private, err := os.MkdirTemp("", "prefork-")
	if err != nil {
		return status, fmt.Errorf("make a directory of our own: %w", err)
	}
	undo.add(func() error { return os.RemoveAll(private) })
	if w.Dir, err = prepareDirectory(w.Dir, private, w.Logger); err != nil {
		return status, err
	}
	self, err := os.Executable()
	if err != nil {
		return status, fmt.Errorf("find this program: %w", err)
	}
	spawner := NewSpawner()
	go spawner.Run()
	undo.add(func() error { spawner.Close(); return nil })
	env := append(os.Environ(), "PROMETHEUS_MULTIPROC_DIR="+w.Dir, "prometheus_multiproc_dir="+w.Dir)
	server, err := w.launch(spawner, env)
	if err != nil {
		return status, err
	}
	sidecar := newSidecar(spawner, slices.Concat([]string{self}, w.Sidecar(w.Dir)), env, w.Logger)
	report := Report{Version: reportVersion, At: time.Now(), Started: time.Now(), Target: -1}
	sidecar.Take(report)

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var group sync.WaitGroup
	told := make(chan struct{}) // closed when the sidecar has nothing more to tell
	group.Go(func() {
		defer close(told)
		sidecar.Run(ctx)
	})
	if os.Getpid() == 1 {
		group.Go(func() { reapOrphans(ctx, spawner) })
	}
	status = w.stand(server)
	report.At, report.Over = time.Now(), true
	sidecar.Take(report)
	w.linger(told)
	cancel()
	group.Wait()
	return status, nil
}

// launch starts the server, with what it would have without us: our standard streams,
// and the terminal, if there is one.
func (w *Wrapper) launch(spawner *Spawner, env []string) (Process, error) {
	path, err := exec.LookPath(w.Args[0])
	if err != nil {
		return nil, fmt.Errorf("start the server: %w", err)
	}
	attributes := &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if Terminal() {
		attributes.Foreground, attributes.Ctty = true, int(os.Stdin.Fd())
	}
	p, err := spawner.start(&exec.Cmd{
		Path: path, Args: w.Args, Env: env, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, SysProcAttr: attributes,
	})
	if err != nil {
		return nil, fmt.Errorf("start the server: %w", err)
	}
	return p, nil
}

// Terminal says whether our standard input is one.
func Terminal() bool {
	_, err := unix.IoctlGetTermios(int(os.Stdin.Fd()), unix.TCGETS)
	return err == nil
}

// stand hands on signals until the server has ended.
func (w *Wrapper) stand(server Process) Status {
	defer server.Reap()
	stop := w.StopSignal
	if stop == 0 {
		stop = stopSignalOf(w.Args)
	}
	ended := make(chan Status, 1)
	go func() { ended <- server.Wait() }()
	for {
		select {
		case status := <-ended:
			return status
		case s := <-w.Signals:
			if s == syscall.SIGPIPE {
				continue // a log that nobody reads any more
			}
			forwarded := s.(syscall.Signal)
			if forwarded == syscall.SIGTERM {
				forwarded = stop
			}
			w.Logger.Info("signal", "signal", s, "forwarded_as", forwarded)
			server.Signal(forwarded)
		}
	}
}

// linger waits until all has been told, but not for ever.
func (w *Wrapper) linger(told <-chan struct{}) {
	if w.Linger <= 0 {
		return
	}
	timer := time.NewTimer(w.Linger)
	defer timer.Stop()
	select {
	case <-told:
	case <-timer.C:
	case <-w.Signals: // somebody is in a hurry
	}
}

// reapOrphans waits for the processes that were left to us, as the first process of a
// container, until ctx is done. Our own children are left to who waits for them.
func reapOrphans(ctx context.Context, spawner *Spawner) {
	dead := make(chan os.Signal, 1)
	signal.Notify(dead, syscall.SIGCHLD)
	defer signal.Stop(dead)
	for {
		spawner.reapOthers()
		select {
		case <-ctx.Done():
			return
		case <-dead:
		case <-spawner.freed: // one of ours may have been before them
		}
	}
}
