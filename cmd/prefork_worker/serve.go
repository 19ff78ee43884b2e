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
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/activation"

	"github.com/prefork-exporter/prefork_exporter/registry"
	"github.com/prefork-exporter/prefork_exporter/registry/middleware"
	"github.com/prefork-exporter/prefork_exporter/registry/notify"
)

// serve serves until ctx is done or a limit is reached, then lets the requests end.
func serve(ctx context.Context, o options, stderr io.Writer) (err error) {
	logger := slog.New(slog.NewTextHandler(stderr, nil)).With("pid", os.Getpid())
	metrics, err := registry.Open(registry.Options{Dir: o.dir, OnError: func(err error) {
		logger.Error("metrics are counted in memory only", "err", err)
	}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, metrics.Close()) }()
	listeners, err := listen(o.listen)
	if err != nil {
		return err
	}
	ctx, retire := context.WithCancelCause(ctx)
	defer retire(nil)
	o.limits.Retire = func(reason string) { retire(errors.New(reason)) }
	h := newHandlers(metrics.Worker())
	server := &http.Server{
		Handler:           middleware.New(metrics, middleware.Options{Limits: o.limits})(h.mux()),
		ReadHeaderTimeout: 10 * time.Second,
		ErrorLog:          log.New(stderr, "", 0),
	}
	failed := make(chan error, len(listeners))
	for _, l := range listeners {
		logger.Info("listening", "address", l.Addr().String(), "worker", metrics.Worker())
		go func() { failed <- server.Serve(l) }()
	}
	stopWatchdog := h.watchdog(notify.Watchdog(), logger)
	defer stopWatchdog()
	if err := notify.Ready(); err != nil {
		logger.Warn("the parent does not hear that this worker is ready", "err", err)
	}
	select {
	case err = <-failed:
		return errors.Join(fmt.Errorf("serve: %w", err), server.Close())
	case <-ctx.Done():
	}
	logger.Info("stopping", "reason", context.Cause(ctx).Error())
	return stop(server, o.stop)
}

// stop lets requests end in their time, and cuts off the others.
func stop(server *http.Server, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	if err := server.Shutdown(ctx); err != nil {
		return errors.Join(fmt.Errorf("requests that did not end within %v were cut off: %w", timeout, err), server.Close())
	}
	return nil
}

// listen returns the sockets that the parent hands over, else those of the addresses.
func listen(addresses []string) ([]net.Listener, error) {
	inherited, err := activation.Listeners() // an entry is nil where the socket does not listen
	if err != nil {
		return nil, fmt.Errorf("take over the parent's sockets: %w", err)
	}
	var all []net.Listener
	for _, l := range inherited {
		if l != nil {
			all = append(all, l)
		}
	}
	if len(inherited) > 0 {
		if len(all) == 0 {
			return nil, errors.New("take over the parent's sockets: none of them listens")
		}
		return all, nil
	}
	for _, address := range addresses {
		network := "tcp"
		if path, ok := strings.CutPrefix(address, "unix:"); ok {
			network, address = "unix", path
		}
		l, err := net.Listen(network, address)
		if err != nil {
			for _, open := range all {
				err = errors.Join(err, open.Close())
			}
			return nil, err
		}
		all = append(all, l)
	}
	return all, nil
}
