package main

import (
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prefork-exporter/prefork_exporter/registry"
	"github.com/prefork-exporter/prefork_exporter/registry/notify"
)

// handlers are the endpoints. They are safe for concurrent use.
type handlers struct {
	metrics *registry.Metrics
	hung    atomic.Bool // no sign of life any more

	mu     sync.Mutex
	leaked [][]byte
}

// endpoint is one path and what is there.
type endpoint struct {
	pattern, example, help string
	serve                  http.HandlerFunc
}

func (h *handlers) endpoints() []endpoint {
	return []endpoint{
		{"/{$}", "/", "says which worker it is", h.index},
		{"/fast", "/fast", "answers at once", h.index},
		{"/slow", "/slow?seconds=1", "answers after a while", slow},
		{"/echo", "/echo", "answers with the body of the request", echo},
		{"/fail", "/fail?status=500", "answers with an error", fail},
		{"/handle", "/handle", "answers, though there was an error, which it has handled", h.handle},
		{"/panic", "/panic", "panics: the request fails, the worker lives", func(http.ResponseWriter, *http.Request) { panic("asked to") }},
		{"/crash", "/crash?code=1", "ends the process", crash},
		{"/leak", "/leak?bytes=1048576", "keeps memory", h.leak},
		{"/hang", "/hang", "never answers; the worker gives no sign of life any more", h.hang},
	}
}

// endpointHelp lists the endpoints.
func endpointHelp() string {
	var b strings.Builder
	for _, e := range new(handlers).endpoints() {
		fmt.Fprintf(&b, "  %-20s %s\n", e.example, e.help)
	}
	return b.String()
}

func (h *handlers) mux() *http.ServeMux {
	mux := http.NewServeMux()
	for _, e := range h.endpoints() {
		mux.HandleFunc(e.pattern, e.serve)
	}
	return mux
}

func (h *handlers) index(w http.ResponseWriter, _ *http.Request) {
	fmt.Fprintf(w, "worker %s, process %d\n", h.metrics.Worker(), os.Getpid())
}

// number returns a parameter of the query. One that cannot be is answered here.
func number(w http.ResponseWriter, r *http.Request, name string, normal, least, most float64) (float64, bool) {
	text := r.URL.Query().Get(name)
	if text == "" {
		return normal, true
	}
	v, err := strconv.ParseFloat(text, 64)
	if err != nil || !(v >= least && v <= most) {
		http.Error(w, fmt.Sprintf("%s is %q: want a number from %.0f to %.0f", name, text, least, most), http.StatusBadRequest)
		return 0, false
	}
	return v, true
}

func slow(w http.ResponseWriter, r *http.Request) {
	seconds, ok := number(w, r, "seconds", 1, 0, 3600)
	if !ok {
		return
	}
	select {
	case <-time.After(time.Duration(seconds * float64(time.Second))):
		_, _ = io.WriteString(w, "slow\n")
	case <-r.Context().Done(): // the client is gone
	}
}

func echo(w http.ResponseWriter, r *http.Request) {
	const most = 16 << 20
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, most)) // whole: an answer that begins may cut it off
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	_, _ = w.Write(body)
}

func fail(w http.ResponseWriter, r *http.Request) {
	if status, ok := number(w, r, "status", http.StatusInternalServerError, 400, 599); ok {
		http.Error(w, "failed, as it was asked to", int(status))
	}
}

func (h *handlers) handle(w http.ResponseWriter, r *http.Request) {
	h.metrics.RecordError(h.metrics.Worker(), r.Method, r.Pattern, registry.RequestError)
	_, _ = io.WriteString(w, "handled\n")
}

func crash(w http.ResponseWriter, r *http.Request) {
	if code, ok := number(w, r, "code", 1, 0, 255); ok {
		os.Exit(int(code))
	}
}

func (h *handlers) leak(w http.ResponseWriter, r *http.Request) {
	size, ok := number(w, r, "bytes", 1<<20, 0, 1<<30)
	if !ok {
		return
	}
	b := make([]byte, int(size))
	for i := 0; i < len(b); i += os.Getpagesize() {
		b[i] = 1 // memory that is not written is not there
	}
	h.mu.Lock()
	h.leaked = append(h.leaked, b)
	n := len(h.leaked)
	h.mu.Unlock()
	fmt.Fprintf(w, "leaked %d bytes, %d times so far\n", len(b), n)
}

func (h *handlers) hang(http.ResponseWriter, *http.Request) {
	h.hung.Store(true)
	select {}
}

// watchdog gives a sign of life at once, since a parent waits for the next one only, and
// then in half the time that it wants them in, until the worker hangs or what it returns
// is called.
func (h *handlers) watchdog(within time.Duration, logger *slog.Logger) (stop func()) {
	if within == 0 {
		return func() {}
	}
	ticker, done := time.NewTicker(max(within/2, time.Microsecond)), make(chan struct{})
	var group sync.WaitGroup
	group.Go(func() {
		unheard := false
		for !h.hung.Load() {
			err := notify.Alive()
			if err != nil && !unheard {
				logger.Warn("the parent gets no sign of life", "err", err)
			}
			unheard = err != nil
			select {
			case <-ticker.C:
			case <-done:
				return
			}
		}
	})
	return func() {
		ticker.Stop()
		close(done)
		group.Wait()
	}
}
