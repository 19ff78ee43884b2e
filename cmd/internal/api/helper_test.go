package api

import (
	"context"
	"flag"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/prefork-exporter/prefork_exporter/collector"
	"github.com/prefork-exporter/prefork_exporter/collector/watch"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// golden compares got with a file, or writes it there.
func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(read(t, file), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", file, diff)
	}
}

func read(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// gives is a collector that adds what it is.
type gives func(out *collector.Output) error

func (gives) Describe(chan<- *prometheus.Desc) {}

func (g gives) Update(_ context.Context, out *collector.Output) error { return g(out) }

// sample is a value of the catalogue.
type sample struct {
	name   string
	value  float64
	labels []string
}

// measures is a collector of those samples, which then ends so.
func measures(err error, all ...sample) gives {
	return func(out *collector.Output) error {
		for _, s := range all {
			out.Add(collector.Describe(s.name).Value(s.value, s.labels...))
		}
		return err
	}
}

// known is a source that knows one state.
type known watch.State

func (k known) State() (watch.State, bool) { return watch.State(k), true }

// unknown knows nothing.
type unknown struct{}

func (unknown) State() (watch.State, bool) { return watch.State{}, false }

// begun is when the exporter of these tests has started, an hour ago.
func begun() time.Time { return time.Date(2026, 11, 21, 22, 0, 0, 0, time.UTC) }

// newStatus returns the handler of a target and what is measured, without directories.
func newStatus(w Watched, collectors map[string]collector.Collector) *status {
	log := slog.New(slog.DiscardHandler)
	return NewStatus(StatusOptions{
		Log: log, Set: collector.NewSet(log, collectors, time.Minute), Targets: func() []Watched { return []Watched{w} },
		Directories: func() []Directory { return nil },
		Version:     "1.2.3", PID: 99, Started: begun(), Now: func() time.Time { return begun().Add(time.Hour) },
	}).(*status)
}

func ask(h http.Handler, method string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(method, "/api/v1/status", nil))
	return w
}
