// Command prefork_exporter merges the metric files of a pre-fork server's
// workers and serves them to Prometheus, beside the server and from outside.
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

	"github.com/spf13/cobra"
)

const program = "prefork_exporter"

// The exit codes.
const (
	exitOK      = 0
	exitRuntime = 1
	exitUsage   = 2 // a flag, an argument or a variable that cannot be
)

func main() {
	begin()
	os.Exit(run(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
}

// interruptible returns a context that INT and TERM end; a second signal ends the
// program at once. A master has none: signals are its commands, and must reach nobody else.
func interruptible(ctx context.Context) (_ context.Context, stop context.CancelFunc) {
	ctx, stop = signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	return ctx, stop
}

// exitStatus is how a server has ended that was run, which is how we end.
type exitStatus int

// Error implements error.
func (e exitStatus) Error() string { return fmt.Sprintf("the server has ended with %d", int(e)) }

// statusError is an error with an exit code of its own.
type statusError struct {
	error
	status int
}

// Unwrap returns what is wrong.
func (e statusError) Unwrap() error { return e.error }

// usageError is the user's, before anything was done.
type usageError struct{ error }

// Unwrap returns what is wrong.
func (e usageError) Unwrap() error { return e.error }

// atLeastOne is how a command asks for arguments of a kind.
func atLeastOne(kind string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return usageError{fmt.Errorf("no argument: want a %s: see %s --help", kind, cmd.CommandPath())}
		}
		return nil
	}
}

// errReported makes the exit code 1 and prints nothing: the command has told
// already what is wrong.
var errReported = errors.New("reported already")

// run is the program. It returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	return report(execute(ctx, newEnvironment(os.Environ()), args, stdout, stderr), stderr)
}

// report prints an error as one line, quoted when a terminal would act on a sign
// in it, and returns its exit code.
func report(err error, stderr io.Writer) int {
	var server exitStatus
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &server):
		return int(server)
	case !errors.Is(err, errReported):
		fmt.Fprintf(stderr, "%s: %s\n", program, printable(strings.ReplaceAll(err.Error(), "\n", "; ")))
	}
	var own statusError
	switch {
	case errors.As(err, &usageError{}):
		return exitUsage
	case errors.As(err, &own):
		return own.status
	}
	return exitRuntime
}

// execute runs the command that args name. Whatever is wrong before it begins
// is a usageError.
func execute(ctx context.Context, env environment, args []string, stdout, stderr io.Writer) error {
	root := newRoot(env)
	begun := false
	root.PersistentPreRun = hook(&begun)
	root.SetArgs(append([]string{}, args...)) // never nil: cobra would take the process's own
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err != nil && !begun {
		return usageError{err}
	}
	return err
}
