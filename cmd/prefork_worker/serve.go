package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"time"

	"github.com/prefork-exporter/prefork_exporter/registry"
	"github.com/prefork-exporter/prefork_exporter/registry/middleware"
	"github.com/prefork-exporter/prefork_exporter/registry/notify"
)

// serve serves until ctx is done or a limit is reached, then lets the requests end.
func serve(ctx context.Context, o options, stderr io.Writer) (err error) {
	logger := slog.New(slog.NewTextHandler(stderr, nil)).With("pid", os.Getpid())
	listeners, err := listen(o.listen)
	if err != nil {
		return err
	}
	metrics, err := registry.Open(registry.Options{Dir: o.dir, OnError: func(err error) {
		logger.Error("metrics are not written as they should", "err", err)
	}})
	if err != nil {
		return errors.Join(err, closeAll(listeners))
	}
	defer func() { err = errors.Join(err, metrics.Close()) }()

	ctx, retire := context.WithCancelCause(ctx)
	defer retire(nil)
	o.limits.Drain, o.limits.Retire = o.drain, func(reason string) { retire(errors.New(reason)) }
	h := &handlers{metrics: metrics}
	s := newServer(middleware.New(metrics, middleware.Options{Limits: o.limits})(h.mux()), stderr)
	failed := make(chan error, len(listeners))
	for _, l := range listeners {
		logger.Info("listening", "address", l.Addr().String(), "worker", metrics.Worker())
		go func() { failed <- s.Serve(l) }()
	}
	if err := notify.Ready(); err != nil {
		logger.Warn("the parent does not hear that this worker is ready", "err", err)
	}
	stopWatchdog := h.watchdog(notify.Watchdog(), logger)
	defer stopWatchdog()
	select {
	case err = <-failed:
		return errors.Join(fmt.Errorf("serve: %w", err), s.Close())
	case <-ctx.Done():
	}
	logger.Info("stopping", "reason", context.Cause(ctx).Error())
	return s.stop(listeners, o)
}

// server is an HTTP server that can let go of its clients.
type server struct {
	http.Server
	leaving atomic.Bool // answers tell clients to close the connection
}

func newServer(h http.Handler, stderr io.Writer) *server {
	s := &server{Server: http.Server{ReadHeaderTimeout: 10 * time.Second, ErrorLog: log.New(stderr, "", 0)}}
	s.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.leaving.Load() {
			w.Header().Set("Connection", "close")
		}
		h.ServeHTTP(w, r)
	})
	return s
}

// stop accepts no more connections, lets go of those that there are for a while, lets
// requests end in their time, and cuts off the others.
func (s *server) stop(listeners []net.Listener, o options) error {
	s.leaving.Store(true)
	err := closeAll(listeners)
	time.Sleep(o.drain)
	ctx, cancel := context.WithTimeout(context.Background(), o.stop)
	defer cancel()
	if err := s.Shutdown(ctx); err != nil && ctx.Err() != nil {
		return errors.Join(fmt.Errorf("requests that did not end within %v were cut off: %w", o.stop, err), s.Close())
	}
	return err
}
