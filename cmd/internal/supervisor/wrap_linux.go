package supervisor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
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

	// Restart is when the server is started again. Empty: never.
	Restart RestartPolicy
	// StopSignal is what the server gets for a SIGTERM. Zero: what its kind wants.
	StopSignal syscall.Signal
	// StopTimeout is how long a server that was asked to stop may take before it is
	// killed. Zero: as long as it wants; its master knows best.
	StopTimeout time.Duration
	// WatchLog has the sidecar read what the server writes to stdout and stderr.
	WatchLog bool
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
		if script := scriptOf(args[1:]); len(script) > 0 {
			return serverName(script)
		}
	case len(args) > 2 && name == "bundle" && args[1] == "exec":
		return serverName(args[2:])
	}
	return name
}

// scriptOf returns the words behind the options of an interpreter. Some of these have a
// word of their own.
func scriptOf(args []string) []string {
	for len(args) > 0 && strings.HasPrefix(args[0], "-") {
		switch args[0] {
		case "-W", "-X", "-I", "-r", "-C", "-E":
			args = args[1:]
		}
		args = args[min(1, len(args)):]
	}
	return args
}

// Run runs the server, and returns how it has ended.
func (w *Wrapper) Run(ctx context.Context) (status Status, err error) {
	var undo cleanup
	defer func() { err = errors.Join(err, undo.run()) }()
	c := Command{Args: w.Args}
	c.Files, c.Names = passedSockets() // before anything else has their descriptors
	undo.add(func() error { return closeAll(c.Files) })
	private, err := os.MkdirTemp("", "prefork-")
	if err != nil {
		return status, fmt.Errorf("make a directory of our own: %w", err)
	}
	undo.add(func() error { return os.RemoveAll(private) })
	if w.Dir, err = prepareDirectory(w.Dir, private, w.Logger); err != nil {
		return status, err
	}
	c.Shim = ourself
	c.Env = append(os.Environ(), "PROMETHEUS_MULTIPROC_DIR="+w.Dir, "prometheus_multiproc_dir="+w.Dir)
	log := &serverLog{Stdout: os.Stdout, Stderr: os.Stderr, blind: "switched off"}
	if w.WatchLog {
		log = openServerLog(os.Stdout, os.Stderr, startTaps)
	}
	undo.add(log.close)
	c.Stdout, c.Stderr = log.Stdout, log.Stderr
	// Left with orphans, we find the master that has taken the server's place.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		w.Logger.Warn("a server that another process goes on for will seem to have ended", "err", err)
	}
	spawner := NewSpawner()
	go spawner.Run()
	undo.add(func() error { spawner.Close(); return nil })
	return w.run(ctx, spawner, c, log)
}

func closeAll(files []*os.File) (err error) {
	for _, f := range files {
		err = errors.Join(err, f.Close())
	}
	return err
}

// run starts the server and the sidecar, and returns how the server has ended.
func (w *Wrapper) run(ctx context.Context, spawner *Spawner, c Command, log *serverLog) (status Status, err error) {
	env := append(slices.Clone(c.Env), log.variable(firstExtra+1))
	sidecar := newSidecar(spawner, slices.Concat([]string{sidecarName}, w.Sidecar(w.Dir)), env, log.views, w.Logger)
	k := w.keeper(&lineage{spawner: spawner}, sidecar, c)
	server, err := k.launch()
	if err != nil {
		return status, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var group sync.WaitGroup
	told := make(chan struct{}) // closed when the sidecar has nothing more to tell
	group.Go(func() {
		defer close(told)
		sidecar.Run(ctx)
	})
	group.Go(func() { reapOrphans(ctx, spawner) })
	status = k.run(server)
	log.finish(w.Signals)
	w.linger(told)
	cancel()
	group.Wait()
	return status, nil
}

// keeper returns what keeps the server.
func (w *Wrapper) keeper(l *lineage, sidecar *Sidecar, c Command) *keeper {
	k := &keeper{
		launch: func() (Process, error) { return l.launch(c) }, successor: l.successor, leave: l.leave,
		restart: w.Restart, terminal: Terminal(), backoff: serverBackoff(), stopSignal: w.StopSignal, stopTimeout: w.StopTimeout,
		signals: w.Signals, report: sidecar.Take, logger: w.Logger,
	}
	if k.stopSignal == 0 {
		k.stopSignal = stopSignalOf(w.Args)
	}
	return k
}

// Terminal says whether our standard input is one.
func Terminal() bool {
	_, err := unix.IoctlGetTermios(int(os.Stdin.Fd()), unix.TCGETS)
	return err == nil
}

// linger waits until all has been told, but not for ever.
func (w *Wrapper) linger(told <-chan struct{}) {
	if w.Linger <= 0 {
		return
	}
	w.Logger.Info("one more scrape is waited for", "linger", w.Linger)
	timer := time.NewTimer(w.Linger)
	defer timer.Stop()
	select {
	case <-told:
	case <-timer.C:
	case <-w.Signals: // somebody is in a hurry
	}
}

// reapOrphans waits for the processes that were left to us, as the first process of a
// container or for the server's, until ctx is done. Our own children are left to who waits for them.
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
