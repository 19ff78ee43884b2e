// Command example is a pre-fork server of fasthttp whose processes count with
// client_golang, as a server with one process would.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/valyala/fasthttp"
	"github.com/valyala/fasthttp/prefork"

	"github.com/prefork-exporter/prefork_exporter/multiproc/writer"
	"github.com/prefork-exporter/prefork_exporter/multiproc/writer/bridge"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, stop)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "example:", err)
		os.Exit(1)
	}
}

// run serves until ctx is done: as the master, which only starts processes, or as
// one of these. stop ends ctx.
func run(ctx context.Context, stop func()) error {
	listen := flag.String("listen", "127.0.0.1:8080", "address")
	interval := flag.Duration("interval", time.Second, "how often metrics are written")
	flag.Parse()
	if !prefork.IsChild() {
		return lead(ctx, *listen)
	}
	return serve(ctx, stop, *listen, *interval)
}

// serve answers requests and counts them. When it returns, what it counted is written.
func serve(ctx context.Context, stop func(), listen string, interval time.Duration) (err error) {
	w, err := writer.Open(writer.Options{}) // $PROMETHEUS_MULTIPROC_DIR
	if err != nil {
		return err
	}
	registry := prometheus.NewRegistry()
	b := bridge.New(w, registry, bridge.Options{Interval: interval})
	defer func() { err = errors.Join(err, b.Close(), w.Close()) }()

	server := &fasthttp.Server{Handler: newHandler(registry), CloseOnShutdown: true}
	down := make(chan error, 1)
	go func() {
		<-ctx.Done()
		down <- server.Shutdown() // waits for the requests that are being answered
	}()
	go func() {
		_, _ = io.Copy(io.Discard, os.NewFile(lifeline, "lifeline"))
		stop() // without a master there is no service
	}()
	fork := prefork.New(server)
	err = fork.ListenAndServe(listen)
	stop()
	return errors.Join(err, <-down)
}

// newHandler answers with the process's id.
func newHandler(r prometheus.Registerer) fasthttp.RequestHandler {
	requests := promauto.With(r).NewCounterVec(prometheus.CounterOpts{
		Name: "http_requests_total", Help: "Requests that were answered.",
	}, []string{"method"})
	seconds := promauto.With(r).NewHistogram(prometheus.HistogramOpts{
		Name: "http_request_duration_seconds", Help: "Time to answer.",
	})
	return func(ctx *fasthttp.RequestCtx) {
		fmt.Fprintln(ctx, os.Getpid())
		requests.WithLabelValues(string(ctx.Method())).Inc()
		seconds.Observe(time.Since(ctx.Time()).Seconds())
	}
}

// lifeline is the descriptor of a pipe that only the master could write to: it ends
// when the master has, however that came. (fasthttp's OnMasterDeath misses a master
// that dies before the process listens.) fasthttp itself has descriptor 3.
const lifeline = 4

// lead starts processes, as many as there are cores, and others for those that end.
// When ctx is done it lets go of the lifeline. The first process that has ended then
// makes fasthttp ask for another, and it stops when it gets none.
func lead(ctx context.Context, listen string) error {
	end, held, err := os.Pipe()
	if err != nil {
		return err
	}
	defer func() { _ = held.Close() }()
	defer context.AfterFunc(ctx, func() { _ = held.Close() })()

	fork := prefork.New(&fasthttp.Server{})
	fork.RecoverThreshold = math.MaxInt // goes on however many have ended
	fork.RecoverInterval = 100 * time.Millisecond
	fork.CommandProducer = func(files []*os.File) (*exec.Cmd, error) {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return startChild(slices.Concat(files, []*os.File{end}))
	}
	if err := fork.ListenAndServe(listen); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// startChild starts a process that serves.
func startChild(files []*os.File) (*exec.Cmd, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(program, os.Args[1:]...)
	cmd.Env = append(os.Environ(), "FASTHTTP_PREFORK_CHILD=1")
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = os.Stdout, os.Stderr, files
	err = cmd.Start()
	return cmd, err
}
