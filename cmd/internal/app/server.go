package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/exporter-toolkit/web"
)

// serve answers on every listener. Each has a server of its own, for
// [web.Serve] changes the one that it is given: with one for several listeners
// it would race with itself and ask for a password twice.
func (a *App) serve(context.Context) (func(context.Context) error, error) {
	base, cancel := context.WithCancel(context.Background())
	a.failed = make(chan error, len(a.listeners))
	flags := &web.FlagConfig{WebConfigFile: &a.o.WebConfigFile}
	var servers []*http.Server
	var serving sync.WaitGroup
	for _, l := range a.listeners {
		s := a.newServer(base)
		servers = append(servers, s)
		serving.Go(func() {
			if err := web.Serve(l, s, flags, a.log); !errors.Is(err, http.ErrServerClosed) {
				a.failed <- fmt.Errorf("serve on %s: %w", l.Addr(), err)
			}
		})
	}
	return func(ctx context.Context) error {
		defer cancel() // of requests that go on
		err := a.shutDown(ctx, servers)
		serving.Wait()
		return err
	}, nil
}

// shutDown lets requests in flight end, for as long as the grace lasts, and
// cuts off the rest.
func (a *App) shutDown(ctx context.Context, servers []*http.Server) error {
	ctx, cancel := context.WithTimeout(ctx, a.o.Grace)
	defer cancel()
	errs := make([]error, len(servers))
	var stopping sync.WaitGroup
	for i, s := range servers {
		stopping.Go(func() {
			if s.Shutdown(ctx) != nil {
				a.log.Warn("Clients were cut off that were not done in time", "grace", a.o.Grace)
				errs[i] = ignoreClosed(s.Close())
			}
		})
	}
	stopping.Wait()
	return errors.Join(errs...)
}

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// newServer bounds what one client can hold: a scrape is short, and Prometheus
// comes back at the latest after a few minutes.
func (a *App) newServer(base context.Context) *http.Server {
	return &http.Server{
		Handler:           a.handler,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      a.o.CollectorTimeout + 2*time.Minute,
		IdleTimeout:       5 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(a.log.Handler(), slog.LevelWarn),
		BaseContext:       func(net.Listener) context.Context { return base },
	}
}
