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
)

// Master is the whole of supervise: sockets, workers, and the sidecar that tells of them.
type Master struct {
	Options          // what Launch, Memory, OOMKills and Report are, Run decides
	Args    []string // of a worker: a program and its arguments
	Listen  []string // addresses of sockets that workers inherit
	Dir     string   // of metric files; empty: one of our own, which ends with us

	// Sidecar returns the arguments of this program as the sidecar, by the directory of
	// metric files. It inherits the socket for reports as the descriptor that
	// SidecarVariable tells.
	Sidecar func(dir string) []string
	// Signals are those of the operator.
	Signals <-chan os.Signal
	// ClearAway is told of each worker that has ended, and where its files are. Nil: nobody is.
	ClearAway func(dir string, pid int)
	// Serving is called once, when as many workers run as there should be. It must not block.
	Serving func()
}

// SidecarVariable is the variable that tells a sidecar where reports come out.
const SidecarVariable = "PREFORK_SUPERVISOR_FD"

// Run keeps workers and the sidecar running until a signal or ctx ends them.
func (m *Master) Run(ctx context.Context) (err error) {
	var undo cleanup
	defer func() { err = errors.Join(err, undo.run()) }()
	sockets, err := Listen(m.Listen)
	if err != nil {
		return err
	}
	undo.add(sockets.Close)
	private, err := os.MkdirTemp("", "prefork-")
	if err != nil {
		return fmt.Errorf("make a directory of our own: %w", err)
	}
	undo.add(func() error { return os.RemoveAll(private) })
	if m.Dir, err = prepareDirectory(m.Dir, private, m.Logger); err != nil {
		return err
	}
	ear, err := NewEar(filepath.Join(private, "notify"))
	if err != nil {
		return err
	}
	undo.add(ear.Close)
	spawner := NewSpawner()
	go spawner.Run()
	undo.add(func() error { spawner.Close(); return nil })
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	env := append(os.Environ(), "PROMETHEUS_MULTIPROC_DIR="+m.Dir)

	sidecar := newSidecar(spawner, slices.Concat([]string{self}, m.Sidecar(m.Dir)), env, m.Logger)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s := New(m.options(spawner, sidecar, ear, Command{
		Args: m.Args, Env: env, Notify: filepath.Join(private, "notify"), Watchdog: m.HeartbeatTimeout,
		Files: sockets.Files, Names: sockets.Names, Stdout: os.Stdout, Stderr: os.Stderr, Shim: self,
	}))
	sidecarCtx, stopSidecar := context.WithCancel(context.WithoutCancel(ctx))
	var group sync.WaitGroup
	group.Go(func() { ear.Listen(func(pid int, said Said) { _ = s.Hear(pid, said) }) })
	group.Go(func() { sidecar.Run(sidecarCtx) })
	group.Go(func() { m.obey(ctx, s) })
	if os.Getpid() == 1 {
		group.Go(func() { reapOrphans(ctx, spawner) })
	}
	err = s.Run(ctx)
	cancel()
	stopSidecar() // the last report has been told
	err = errors.Join(err, ear.Close())
	group.Wait()
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
	return dir, nil
}

// options are those of the supervisor.
func (m *Master) options(spawner *Spawner, sidecar *Sidecar, ear *Ear, c Command) Options {
	o := m.Options
	o.Settle = ear.Flush
	if m.ClearAway != nil {
		o.Died = func(pid int) { m.ClearAway(m.Dir, pid) }
	}
	o.Launch = func(b Birth) (Process, error) { return spawner.Launch(c, b) }
	o.Memory, o.OOMKills = ResidentMemory, OOMKills()
	serving := m.Serving
	o.Report = func(r Report) {
		sidecar.Take(r)
		if serving != nil && r.Target > 0 && r.running() >= r.Target {
			serving()
			serving = nil
			go forgetProgram()
		}
	}
	return o
}

func (r Report) running() (n int) {
	for _, w := range r.Workers {
		if w.State == Running {
			n++
		}
	}
	return n
}

// newSidecar returns what keeps a sidecar running.
func newSidecar(spawner *Spawner, args, env []string, log *slog.Logger) *Sidecar {
	return &Sidecar{
		Backoff: DefaultBackoff(), StopTimeout: 5 * time.Second, Logger: log,
		Launch: func(socket *os.File) (Process, error) {
			const firstExtra = 3
			return spawner.Launch(Command{
				Args: args, Extra: []*os.File{socket}, Stdout: os.Stdout, Stderr: os.Stderr,
				Env: append(slices.Clone(env), SidecarVariable+"="+strconv.Itoa(firstExtra)),
			}, Birth{})
		},
	}
}

// obey does what signals ask for.
func (m *Master) obey(ctx context.Context, s *Supervisor) {
	for {
		select {
		case <-ctx.Done():
			return
		case signal := <-m.Signals:
			if signal != syscall.SIGPIPE {
				m.Logger.Info("signal", "signal", signal)
			}
			_ = apply(s, signal) // the supervisor has ended: there is nothing to ask any more
		}
	}
}

// apply does what a signal asks for.
func apply(s *Supervisor, signal os.Signal) error {
	switch signal {
	case syscall.SIGTERM:
		return s.Stop(syscall.SIGTERM)
	case syscall.SIGINT, syscall.SIGQUIT:
		return s.Stop(signal.(syscall.Signal))
	case syscall.SIGHUP:
		return s.Reload()
	case syscall.SIGTTIN:
		return s.Scale(1)
	case syscall.SIGTTOU:
		return s.Scale(-1)
	case syscall.SIGUSR1:
		return s.Forward(syscall.SIGUSR1)
	}
	return nil
}

// MasterSignals are those that a master knows.
func MasterSignals() []os.Signal {
	return []os.Signal{
		syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGHUP, syscall.SIGTTIN, syscall.SIGTTOU, syscall.SIGUSR1,
		syscall.SIGUSR2, syscall.SIGPIPE, // which would end this process
	}
}
