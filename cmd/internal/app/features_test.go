package app

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/prefork-exporter/prefork_exporter/collector"
)

// changing is a collector whose features are as they are set. It is safe for concurrent use.
type changing struct {
	mu      sync.Mutex
	reasons map[string]string // why not; empty: it is available
	hangs   bool
}

func (c *changing) set(reasons map[string]string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reasons = reasons
}

func (*changing) Describe(chan<- *prometheus.Desc) {}

func (c *changing) hang() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hangs = true
}

func (c *changing) Update(ctx context.Context, out *collector.Output) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.hangs {
		<-ctx.Done()
		return ctx.Err()
	}
	feature := collector.Describe("prefork_feature_available")
	for name, reason := range c.reasons {
		available := 0.0
		if reason == "" {
			available = 1
		}
		out.Add(feature.Value(available, name, reason))
	}
	return nil
}

// written is what was logged and not taken. It is safe for concurrent use.
type written struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write implements [io.Writer].
func (w *written) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.Write(p)
}

func (w *written) take() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	defer w.b.Reset()
	return w.b.String()
}

// lines is a log of which a test sees the messages.
func lines(b io.Writer) *slog.Logger {
	return slog.New(slog.NewTextHandler(b, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
}

func TestFeaturesAreToldOnceAndWhenTheyChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log written
		c := &changing{}
		c.set(map[string]string{"b": "it is the root", "c": "", "a": "nobody listens"})
		a := &App{log: lines(&log), set: collector.NewSet(slog.New(slog.DiscardHandler), map[string]collector.Collector{"it": c}, time.Minute)}
		ctx, cancel := context.WithCancel(t.Context())
		go a.tellFeatures(ctx)
		logged := func(after time.Duration, want string) {
			t.Helper()
			time.Sleep(after)
			synctest.Wait()
			if diff := cmp.Diff(want, log.take()); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		}
		const missing = `level=INFO msg="Some things cannot be watched here, and are absent" `
		logged(featuresAfter-1, "")
		logged(1, missing+"a=\"nobody listens\" b=\"it is the root\"\n")
		logged(10*featuresEvery, "")
		c.set(map[string]string{"b": "it is the root", "c": "", "a": ""})
		logged(featuresEvery, missing+"b=\"it is the root\"\n")
		c.set(map[string]string{"b": "another reason", "c": "", "a": ""})
		logged(featuresEvery, missing+"b=\"another reason\"\n")
		c.set(map[string]string{"b": "", "c": "", "a": ""})
		logged(featuresEvery, "level=INFO msg=\"Everything can be watched here\"\n")
		c.hang()
		logged(featuresEvery, "")
		cancel() // what nobody waited for is no change
		logged(featuresEvery, "")
	})
}

func TestFeaturesAreToldByTarget(t *testing.T) {
	var log written
	of := func(labels map[string]string, reasons map[string]string) collector.Collector {
		c := &changing{}
		c.set(reasons)
		return collector.Labelled(labels, c)
	}
	set := collector.NewSet(slog.New(slog.DiscardHandler), map[string]collector.Collector{
		"flags": of(nil, map[string]string{"b": "nobody listens"}),
		"shop":  of(map[string]string{"part": "red", "app": "shop"}, map[string]string{"b": "it is the root", "a": "no server"}),
		"blog":  of(map[string]string{"app": "blog"}, map[string]string{"a": "", "b": ""}),
	}, time.Minute)
	f := features{log: lines(&log)}
	for _, want := range []string{
		`level=INFO msg="Some things cannot be watched here, and are absent" b="nobody listens"` + "\n" +
			`level=INFO msg="Some things cannot be watched here, and are absent" labels="app=shop,part=red" a="no server" b="it is the root"` + "\n",
		"", // nothing has changed
	} {
		scrape, err := set.Gather(t.Context(), set.Names())
		if err != nil {
			t.Fatal(err)
		}
		f.tell(scrape)
		if diff := cmp.Diff(want, log.take()); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
	}
}

func TestWhereThereAreNoFeaturesNothingIsTold(t *testing.T) {
	var log written
	set := collector.NewSet(slog.New(slog.DiscardHandler), map[string]collector.Collector{"it": &changing{}}, time.Minute)
	scrape, err := set.Gather(t.Context(), set.Names())
	if err != nil {
		t.Fatal(err)
	}
	f := features{log: lines(&log)}
	f.tell(scrape)
	if got := log.take(); got != "" {
		t.Errorf("logged %q, want nothing", got)
	}
}
