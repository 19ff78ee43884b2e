package supervisor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Master is the whole of supervise: sockets, workers, and the sidecar that tells of them.
type Master struct {
	Options            // what Launch, Scaled, Memory, OOMKills, Beat and Report are, Run decides
	Args      []string // of a worker: a program and its arguments
	Listen    []string // addresses of sockets that workers inherit
	ReusePort bool     // each worker has TCP sockets of its own
	Dir       string   // of metric files; empty: one of our own, which ends with us
	Prefix    bool     // lines that workers write begin with their slot

	// Sidecar returns the arguments of this program as the sidecar, by the directory of
	// metric files. It inherits the socket for reports as the descriptor that
	// SidecarVariable tells.
	Sidecar func(dir string) []string
	// Check are the arguments with which this program only says whether it would run, by
	// [CheckHandover] as well.
	Check []string
	// Signals are those of the operator, by [CatchMasterSignals].
	Signals chan os.Signal
	// ClearAway is told of each worker that has ended, and where its files are. Nil: nobody is.
	ClearAway func(dir string, pid int)
	// Tell tells who has started us how we are, in lines of sd_notify(3).
	Tell func(lines ...string)
	// Flush writes what was logged.
	Flush func()
}

// SidecarVariable is the variable that tells a sidecar where reports come out.
const SidecarVariable = "PREFORK_SUPERVISOR_FD"

// ourself is this very program, whatever has its name by now: what a master starts of its
// own kind has to be of its own version.
const ourself = "/proc/self/exe"

// sidecarName is how the sidecar is shown among the processes.
const sidecarName = "prefork_exporter: sidecar"

// firstExtra is the first descriptor that a process inherits beside its standard streams.
const firstExtra = 3

// household is what a master has beside its workers.
type household struct {
	sockets *Sockets
	private string // a directory of our own
	dir     string // of metric files
	ear     *Ear
	output  *Output // nil: workers write where we do
}

func (h household) notifyPath() string { return filepath.Join(h.private, "notify") }

// Run keeps workers and the sidecar running until a signal or ctx ends them. The thread
// that calls it has to last as long as this process: workers end with it.
func (m *Master) Run(ctx context.Context) (err error) {
	spawner := NewSpawner()
	over := make(chan struct{})
	go func() {
		defer close(over)
		defer spawner.Close()
		err = m.run(ctx, spawner)
	}()
	spawner.Run()
	<-over
	return err
}

func (m *Master) run(ctx context.Context, spawner *Spawner) (err error) {
	var undo cleanup
	defer func() { err = errors.Join(err, undo.run()) }()
	before, err := takeOver()
	if err != nil {
		return err
	}
	h, err := m.household(before, &undo)
	if err != nil {
		return err
	}
	env := append(os.Environ(), "PROMETHEUS_MULTIPROC_DIR="+h.dir)
	sidecar := newSidecar(spawner, slices.Concat([]string{sidecarName}, m.Sidecar(h.dir)), env, nil, m.Logger)
	voice := newHerald(m.Tell)
	defer voice.close()
	births := make(chan struct{}, 1)
	o := m.options(spawner, sidecar, voice, births, h, Command{
		Args: m.Args, Env: env, Notify: h.notifyPath(), Watchdog: m.HeartbeatTimeout,
		Stdout: os.Stdout, Stderr: os.Stderr, Shim: ourself,
	})
	s, missed := m.supervisor(o, before, spawner, sidecar)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	sidecarCtx, stopSidecar := context.WithCancel(context.WithoutCancel(ctx))
	var group sync.WaitGroup
	group.Go(func() { h.ear.Listen(func(pid int, said Said) { _ = s.Hear(pid, said) }) })
	group.Go(func() { sidecar.Run(sidecarCtx) })
	group.Go(func() { staySmall(ctx, births) })
	group.Go(func() {
		m.obey(ctx, s, &upgrade{household: h, spawner: spawner, check: m.Check, signals: m.Signals, flush: m.Flush}, missed)
	})
	if os.Getpid() == 1 {
		group.Go(func() { reapOrphans(ctx, spawner) })
	}
	err = s.Run(ctx)
	cancel()
	stopSidecar() // the last report has been told
	err = errors.Join(err, h.ear.Close())
	group.Wait()
	return err
}

// supervisor returns one that begins, or that goes on with what was before; and the
// signals that nobody has looked at.
func (m *Master) supervisor(o Options, before *bequest, spawner *Spawner, sidecar *Sidecar) (*Supervisor, []syscall.Signal) {
	if before == nil {
		return New(o), nil
	}
	_ = spawner.do(func() error { mask(unix.SIG_UNBLOCK); return nil }) // or workers would have it so
	m.Logger.Info("this program has taken over", "workers", len(before.Estate.Workers), "dir", before.Dir)
	for _, pid := range before.Children {
		sidecar.Before = append(sidecar.Before, spawner.adopt(pid))
	}
	for _, group := range before.Groups {
		spawner.endGroup(group.ID, group.Deadline)
	}
	return Resume(o, before.Estate, spawner.adopt), before.signals
}

// household makes what a master has beside its workers, or takes it over.
func (m *Master) household(before *bequest, undo *cleanup) (h household, err error) {
	var output *Output
	if m.Prefix {
		output = NewOutput(os.Stdout, os.Stderr)
		undo.add(func() error { output.Drain(); return nil })
	}
	if before != nil {
		h, err = before.household(output, m.ReusePort)
	} else {
		h, err = m.newHousehold(output)
	}
	undo.add(h.close)
	return h, err
}

// newHousehold returns what there is, with an error too.
func (m *Master) newHousehold(output *Output) (h household, err error) {
	h.output = output
	passed, names := passedSockets() // before anything else has their descriptors
	if h.sockets, err = Listen(m.Listen, m.ReusePort); err != nil {
		return h, err
	}
	for i, f := range passed {
		m.Logger.Info("a socket was passed to us", "name", names[i])
		h.sockets.Add(f, names[i])
	}
	if h.private, err = os.MkdirTemp("", "prefork-"); err != nil {
		return h, fmt.Errorf("make a directory of our own: %w", err)
	}
	if h.dir, err = prepareDirectory(m.Dir, h.private, m.Logger); err != nil {
		return h, err
	}
	h.ear, err = NewEar(h.notifyPath())
	return h, err
}

// close undoes what there is.
func (h household) close() (err error) {
	if h.ear != nil {
		err = h.ear.Close()
	}
	if h.private != "" {
		err = errors.Join(err, os.RemoveAll(h.private))
	}
	if h.sockets != nil {
		err = errors.Join(err, h.sockets.Close())
	}
	return err
}

// cleanup is what has to be undone, last first.
type cleanup []func() error

func (c *cleanup) add(undo func() error) { *c = append(*c, undo) }

func (c *cleanup) run() (err error) {
	for _, undo := range slices.Backward(*c) {
		err = errors.Join(err, undo())
	}
	return err
}

// prepareDirectory makes the directory of metric files, in private when none is given.
func prepareDirectory(dir, private string, log *slog.Logger) (string, error) {
	if dir == "" {
		dir = filepath.Join(private, "metrics")
		log.Info("metric files are in a directory of our own", "dir", dir)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("make the directory of metric files: %w", err)
	}
	if err := unix.Access(dir, unix.W_OK|unix.X_OK); err != nil {
		log.Warn("nobody with our user can write metric files: want another directory, or its owner or mode changed", "dir", dir, "err", err)
	}
	return dir, nil
}

// options are those of the supervisor.
func (m *Master) options(spawner *Spawner, sidecar *Sidecar, voice *herald, births chan<- struct{}, h household, c Command) Options {
	o := m.Options
	o.Settle = h.ear.Flush
	if m.ClearAway != nil {
		o.Died = func(pid int) { m.ClearAway(h.dir, pid) }
	}
	o.Launch = func(b Birth) (Process, error) { return h.launch(spawner, c, b) }
	o.Scaled = h.sockets.Keep
	o.Memory, o.OOMKills, o.StartTicks = ResidentMemory, OOMKills(), startTicks
	o.Beat = voice.beat
	var born int64
	o.Report = func(r Report) {
		sidecar.Take(r)
		voice.hear(r)
		if r.Births == born {
			return
		}
		born = r.Births
		select {
		case births <- struct{}{}:
		default: // it is told already
		}
	}
	return o
}

// launch starts a worker with all that it inherits.
func (h household) launch(spawner *Spawner, c Command, b Birth) (Process, error) {
	var err error
	if c.Files, c.Names, err = h.sockets.For(b.Slot); err != nil {
		return nil, err
	}
	if h.output == nil {
		return spawner.Launch(c, b)
	}
	if c.Stdout, c.Stderr, err = h.output.Streams(b.Slot); err != nil {
		return nil, err
	}
	defer func() { _, _ = c.Stdout.Close(), c.Stderr.Close() }()
	return spawner.Launch(c, b)
}

// newSidecar returns what keeps a sidecar running. It inherits extra behind the socket.
func newSidecar(spawner *Spawner, args, env []string, extra []*os.File, log *slog.Logger) *Sidecar {
	return &Sidecar{
		Backoff: DefaultBackoff(), StopTimeout: 5 * time.Second, Logger: log,
		Launch: func(socket *os.File) (Process, error) {
			return spawner.Launch(Command{
				Path: ourself, Args: args, Extra: slices.Concat([]*os.File{socket}, extra), Stdout: os.Stdout, Stderr: os.Stderr,
				Env: append(slices.Clone(env), SidecarVariable+"="+strconv.Itoa(firstExtra)),
			}, Birth{Slot: -1})
		},
	}
}

// obey does what signals ask for, first those that nobody has looked at.
func (m *Master) obey(ctx context.Context, s *Supervisor, u *upgrade, missed []syscall.Signal) {
	verified := make(chan error, 1)
	verifying := false
	var checks sync.WaitGroup
	for {
		for _, one := range missed {
			m.apply(s, one)
		}
		missed = nil
		select {
		case <-ctx.Done():
			checks.Wait()
			return
		case one := <-m.Signals:
			m.apply(s, one.(syscall.Signal))
			if one == syscall.SIGUSR2 && !verifying {
				verifying = true
				checks.Go(func() { verified <- u.verify(ctx) })
			}
		case err := <-verified:
			verifying = false
			if err == nil {
				missed, err = u.run(s)
			}
			m.Logger.Error("the upgrade is given up", "err", err)
		}
	}
}

// apply does what a signal asks for.
func (m *Master) apply(s *Supervisor, signal syscall.Signal) {
	if signal == syscall.SIGPIPE {
		return // a log that nobody reads any more
	}
	m.Logger.Info("signal", "signal", unix.SignalName(signal))
	_ = s.Obey(signal) // the supervisor has ended: there is nothing to ask any more
}

// masterSignals are those that a master knows.
func masterSignals() []os.Signal {
	return []os.Signal{
		syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGHUP, syscall.SIGTTIN, syscall.SIGTTOU, syscall.SIGUSR1,
		syscall.SIGUSR2, syscall.SIGPIPE, // which would end this process
	}
}
