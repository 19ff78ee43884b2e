// Package middleware counts what a worker that serves with net/http does, in the
// metrics of package registry: requests, their duration, sizes, time in the queue,
// those in progress and those that failed. It can have a worker retire.
//
//	metrics, err := registry.Shared("")
//	if err != nil {
//		log.Fatal(err)
//	}
//	mux := http.NewServeMux()
//	mux.HandleFunc("GET /users/{id}", user)
//	count := middleware.New(metrics, middleware.Options{})
//	log.Fatal(http.ListenAndServe("localhost:8000", count(mux)))
package middleware

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prefork-exporter/prefork_exporter/multiproc/writer"
	"github.com/prefork-exporter/prefork_exporter/registry"
)

// Options may all be left out.
type Options struct {
	// Route returns the route pattern of a request that was served, for the label
	// endpoint: never a path, which clients choose. Nil: the pattern by which
	// http.ServeMux found the handler, without its method. What stands between this
	// middleware and the mux must hand on the same *http.Request then. Routers that
	// keep the pattern in the context need the middleware inside, as in
	// r.Use(middleware.New(metrics, options)) of chi, and its
	// chi.RouteContext(r.Context()).RoutePattern() here.
	Route func(*http.Request) string

	// Limits say when the worker has served enough.
	Limits Limits
}

// Unmatched is the endpoint of requests without a route.
const Unmatched = "unmatched"

// New returns a middleware that counts in m, as m's worker; a process needs one. A
// request counts when its handler is done, failed ones included. It has failed when
// the handler panicked, as Panic, and the panic goes on; or answered with a status of
// 500 or more: as TimeoutError with 504, or when its context's deadline is over, else,
// and that is http.TimeoutHandler's 503 too, as RequestError. http.ErrAbortHandler is
// no failure. Of a hijacked connection no size is known. Bodies of requests are
// counted as far as they were read. About once a second the worker's memory and uptime
// are set as well.
//
// Handlers see http.Flusher, http.Hijacker and io.ReaderFrom where the server has
// them, and through http.ResponseController the rest. http.MaxBytesReader limits as
// ever, but no longer closes the connection by itself.
func New(m *registry.Metrics, o Options) func(http.Handler) http.Handler {
	worker := m.Worker()
	c := &counting{
		metrics: m, worker: worker, route: o.Route, retirement: newRetirement(o.Limits),
		requests:   m.WorkerRequests.WithLabelValues(worker),
		duration:   m.WorkerRequestDuration.WithLabelValues(worker),
		inProgress: m.WorkerRequestsInProgress.WithLabelValues(worker),
		memory:     m.WorkerMemory.WithLabelValues(worker),
		uptime:     m.WorkerUptime.WithLabelValues(worker),
		queue:      m.WorkerRequestQueue.WithLabelValues(worker),
		received:   m.WorkerRequestSize.WithLabelValues(worker),
		sent:       m.WorkerResponseSize.WithLabelValues(worker),
	}
	if c.route == nil {
		c.route = muxPattern
	}
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { c.serve(next, w, r) })
	}
}

// muxPattern returns the pattern of the mux without its method.
func muxPattern(r *http.Request) string {
	if _, pattern, ok := strings.Cut(r.Pattern, " "); ok {
		return strings.TrimLeft(pattern, " \t")
	}
	return r.Pattern
}

// counting counts requests.
type counting struct {
	metrics    *registry.Metrics
	worker     string
	route      func(*http.Request) string
	retirement *retirement

	requests                        *writer.Counter
	inProgress, memory, uptime      *writer.Gauge
	duration, queue, received, sent *writer.Histogram
}

func (c *counting) serve(next http.Handler, w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	c.inProgress.Inc()
	if seconds, ok := queued(r.Header, start); ok {
		c.queue.Observe(seconds)
	}
	body := countBody(r)
	rec := newRecorder(w)
	if c.retirement.begun() {
		w.Header().Set("Connection", "close") // the client's next request goes to another worker
	}
	defer func() {
		p, end := recover(), time.Now()
		c.inProgress.Dec()
		c.requests.Inc()
		c.duration.Observe(end.Sub(start).Seconds())
		c.sizes(r, rec, body)
		c.retirement.served(end, c.setSelf)
		if failure := failure(r, rec, p); failure != "" {
			c.metrics.RecordFailure(c.worker, r.Method, c.endpoint(r), failure)
		}
		if p != nil {
			panic(p)
		}
	}()
	next.ServeHTTP(rec.writer(), r)
}

// setSelf sets what the worker knows of itself.
func (c *counting) setSelf(now time.Time, memory int64) {
	c.memory.Set(float64(memory))
	c.uptime.Set(now.Sub(c.retirement.began).Seconds())
}

// sizes counts the bytes of bodies.
func (c *counting) sizes(r *http.Request, rec *recorder, body *countedBody) {
	if rec.hijacked {
		return
	}
	size := int64(0)
	if body != nil {
		size = body.n.Load()
	}
	c.received.Observe(float64(size))
	if r.Method == http.MethodHead {
		rec.bytes = 0 // the server does not send what was written
	}
	c.sent.Observe(float64(rec.bytes))
}

func (c *counting) endpoint(r *http.Request) string {
	if pattern := c.route(r); pattern != "" {
		return pattern
	}
	return Unmatched
}

// failure returns the error type of a request that failed, or nothing. p is what
// its handler panicked with.
func failure(r *http.Request, rec *recorder, p any) string {
	switch {
	case p == http.ErrAbortHandler: //nolint:errorlint // as net/http compares it
		return ""
	case p != nil:
		return panicked
	case rec.hijacked || rec.status < http.StatusInternalServerError:
		return ""
	case rec.status == http.StatusGatewayTimeout || errors.Is(r.Context().Err(), context.DeadlineExceeded):
		return registry.TimeoutError
	}
	return registry.RequestError
}

// panicked is the error type of requests whose handler panicked.
const panicked = "Panic"

// countedBody counts what is read of a request's body.
type countedBody struct {
	io.ReadCloser
	n atomic.Int64 // a handler's goroutine may still read
}

func (b *countedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.n.Add(int64(n))
	return n, err
}

// countBody puts a body that is counted into the request; the server has kept its
// own. Without a body it returns nil. The request itself must stay the same: the
// server finds trailers and files of forms there.
func countBody(r *http.Request) *countedBody {
	if r.Body == nil || r.Body == http.NoBody {
		return nil
	}
	body := &countedBody{ReadCloser: r.Body}
	r.Body = body
	return body
}
