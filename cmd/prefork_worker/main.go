// Command prefork_worker is a worker of a pre-fork server, as an example and for
// trials: an HTTP server that counts with package registry, and can be slow, fail,
// crash, leak and hang.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/pflag"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run is the program. It returns the exit code: 2 when the command line is wrong.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	o, err := parse(args, stdout)
	if errors.Is(err, pflag.ErrHelp) {
		return 0
	}
	if err != nil {
		fmt.Fprintf(stderr, "prefork_worker: %v: see prefork_worker --help\n", err)
		return 2
	}
	if err := serve(ctx, o, stderr); err != nil {
		fmt.Fprintf(stderr, "prefork_worker: %v\n", err)
		return 1
	}
	return 0
}
