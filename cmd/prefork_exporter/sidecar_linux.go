package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strconv"
	"unsafe"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/prefork-exporter/prefork_exporter/cmd/internal/app"
	"github.com/prefork-exporter/prefork_exporter/cmd/internal/supervisor"
)

// commandsWithSidecar returns the commands that start a server.
func commandsWithSidecar(env environment) []*cobra.Command {
	return []*cobra.Command{newRunCommand(env), newSuperviseCommand(env), newDemoCommand()}
}

// begin turns this process into a worker, if a master started it for that. Else what runs
// here keeps its first thread, the only one that lasts when this program is replaced by
// a newer one, and of which a master's workers are the children.
func begin() {
	supervisor.Shim()
	runtime.LockOSThread()
}

// withSidecar completes a command that starts a server: run is the parent. The same
// command line, started again by the parent, is the sidecar, whose flags the command has
// beside its own.
func withSidecar(
	cmd *cobra.Command, env environment, s *settings, own flagGroup, check func() error,
	run func(ctx context.Context, args []string, stderr io.Writer) error,
) *cobra.Command {
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 || cmd.ArgsLenAtDash() != 0 {
			return usageError{fmt.Errorf("want -- and a command behind the flags: see %s --help", cmd.CommandPath())}
		}
		return nil
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := s.complete(cmd.Flags(), env); err != nil {
			return usageError{err}
		}
		if fd, is := env[supervisor.SidecarVariable]; is {
			return s.runSidecar(cmd.Context(), env, fd, cmd.OutOrStdout(), cmd.ErrOrStderr())
		}
		if err := check(); err != nil {
			return usageError{err}
		}
		if s.options.SystemdSocket {
			return usageError{errors.New("--web.systemd-socket: not with a server beside: want --web.listen-address")}
		}
		if err := s.checkSidecar(); err != nil {
			return s.asTyped(err)
		}
		if s.check {
			return s.asTyped(s.printCheck(cmd.OutOrStdout()))
		}
		return run(cmd.Context(), args, cmd.ErrOrStderr())
	}
	cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return fmt.Errorf("%w (flags of the server's own go behind --)", flagError(cmd.CommandPath(), err))
	})
	cmd.Flags().SortFlags = false
	groups := slices.Concat([]flagGroup{own}, s.groups)
	for _, g := range groups {
		cmd.Flags().AddFlagSet(g.flags)
	}
	withGroupedHelp(cmd, groups)
	return cmd
}

// checkSidecar returns what the sidecar would object to.
func (s *settings) checkSidecar() error {
	o := s.options
	if s.metricDirectory() == "" {
		o.AmbientDirectory = os.TempDir() // one will be made
	}
	_, _, err := app.Check(o)
	return err
}

// metricDirectory returns where workers write, if anybody says so.
func (s *settings) metricDirectory() string {
	if all := s.options.Directories; len(all) > 0 {
		return all[0].Path
	}
	return s.options.AmbientDirectory
}

// sidecarArgs returns the arguments of the sidecar: ours, and where the files are, if
// that is our decision.
func (s *settings) sidecarArgs() func(dir string) []string {
	given := len(s.options.Directories) > 0
	return func(dir string) []string {
		if given {
			return os.Args[1:]
		}
		return withFlag("--" + directoryFlag + "=" + dir)
	}
}

// checkArgs returns the arguments with which this program only says whether it would run.
func (s *settings) checkArgs() []string { return withFlag("--config.check") }

// withFlag returns our arguments, with one more flag.
func withFlag(flag string) []string {
	return slices.Insert(slices.Clone(os.Args[1:]), slices.Index(os.Args, "--")-1, flag)
}

const directoryFlag = "multiproc.dir"

// runSidecar is this program as the sidecar of itself.
func (s *settings) runSidecar(ctx context.Context, env environment, fd string, stdout, stderr io.Writer) error {
	n, err := strconv.Atoi(fd)
	if err != nil || n < 3 {
		return usageError{fmt.Errorf("%s: %q: want a descriptor", supervisor.SidecarVariable, fd)}
	}
	s.options.Supervisor = os.NewFile(uintptr(n), "supervisor")
	if views, is := env[supervisor.ServerLogVariable]; is {
		s.options.ServerLog, s.options.ServerLogGap = supervisor.OpenServerLog(views)
	}
	if name, err := unix.BytePtrFromString(program); err == nil { // not that of the link in /proc by which we were started
		_ = unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(name)), 0, 0, 0)
	}
	logs := supervisor.NewPatientWriter(stderr) // the server writes there, too, and may have filled it
	defer logs.Close()
	return s.asTyped(s.run(ctx, stdout, logs))
}
