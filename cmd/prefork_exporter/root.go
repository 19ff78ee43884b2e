package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/prometheus/common/promslog"
	"github.com/spf13/cobra"

	"github.com/prefork-exporter/prefork_exporter/cmd/internal/app"
)

// commands returns what stands beside the sidecar, each from its own file.
func commands(env environment) []*cobra.Command {
	return append(commandsWithSidecar(env), newMergeCommand(), newDumpCommand(), newVersionCommand())
}

// newRoot returns the whole command line. The root command is the sidecar.
// Commands must not set PersistentPreRun: execute has it.
func newRoot(env environment) *cobra.Command {
	s := newSettings()
	root := &cobra.Command{
		Use:           program + " [flags]",
		Short:         "Makes pre-fork servers observable",
		Long:          longHelp,
		Example:       exampleHelp,
		Args:          noSuchCommand,
		Version:       app.Version(),
		SilenceErrors: true, // run prints them
		SilenceUsage:  true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := s.complete(cmd.Flags(), env); err != nil {
				return usageError{err}
			}
			return s.asTyped(s.run(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr()))
		},
	}
	root.SetVersionTemplate(program + " {{.Version}}\n")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return flagError(cmd.CommandPath(), err)
	})
	root.Flags().SortFlags = false
	for _, g := range s.groups {
		root.Flags().AddFlagSet(g.flags)
	}
	completeFlags(root)
	root.AddCommand(commands(env)...)
	withGroupedHelp(root, s.groups)
	return root
}

// completeFlags tells the shell what the values of flags may be. Its errors
// would say that a flag is missing; a test sees that.
func completeFlags(root *cobra.Command) {
	for _, flag := range []string{"multiproc.dir", "path.cgroupfs", "state.dir"} {
		_ = root.MarkFlagDirname(flag)
	}
	_ = root.MarkFlagFilename("master.pidfile", "pid")
	for _, flag := range []string{"config.file", "web.config.file"} {
		_ = root.MarkFlagFilename(flag, "yml", "yaml")
	}
	for flag, values := range map[string][]string{
		"master.kind":        app.Kinds(),
		"multiproc.liveness": {"auto", "off"},
		"log.level":          promslog.LevelFlagOptions,
		"log.format":         promslog.FormatFlagOptions,
	} {
		_ = root.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
	}
}

// hook notes that a command has begun to run.
func hook(begun *bool) func(*cobra.Command, []string) {
	return func(*cobra.Command, []string) { *begun = true }
}

// noSuchCommand is reached by what is neither a flag nor a command.
func noSuchCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	var names []string
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() {
			names = append(names, c.Name())
		}
	}
	return fmt.Errorf("unknown command %q: want %s, or flags only", args[0], strings.Join(names, ", "))
}

// run is the sidecar: it ends when ctx does, or on a signal.
func (s *settings) run(ctx context.Context, stdout, stderr io.Writer) error {
	if s.check {
		return s.printCheck(stdout)
	}
	ctx, stop := interruptible(ctx)
	defer stop()
	log := promslog.New(&promslog.Config{Level: s.level.Level, Format: s.format.Format, Writer: stderr})
	for _, name := range s.unknownVars {
		log.Warn("There is no flag that this variable could stand for", "variable", name)
	}
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)

	o := s.options
	o.Logger, o.Hangup = log, hangup
	o.Started = func() { warnRoot(log, os.Geteuid()) }
	a, err := app.New(o)
	if err != nil {
		return err
	}
	return a.Run(ctx)
}

// warnRoot takes the effective user.
func warnRoot(log *slog.Logger, user int) {
	if user == 0 {
		log.Warn("Running as root: the application's user or group would do, to read its metric files")
	}
}

// printCheck prints one line when the flags and files are right.
func (s *settings) printCheck(stdout io.Writer) error {
	targets, directories, err := app.Check(s.options)
	if err != nil {
		return err
	}
	file := "no config file"
	if s.options.ConfigFile != "" {
		file = s.options.ConfigFile
	}
	_, err = fmt.Fprintf(stdout, "%s: valid: targets: %d, directories: %d\n", file, targets, directories)
	return err
}

// asTyped makes the error of an option a usage error that names what the user
// has typed: the flag, or the variable.
func (s *settings) asTyped(err error) error {
	var option *app.OptionError
	if !errors.As(err, &option) {
		return err
	}
	name := "--" + option.Flag
	if variable := s.from[option.Flag]; variable != "" {
		name = variable
	}
	return usageError{fmt.Errorf("%s: %w", name, option.Err)}
}
