package app

import (
	"os"
	"slices"
	"testing"

	"github.com/prefork-exporter/prefork_exporter/collector/watch"
)

// Of a first line somebody else may have read a part. Streams are read at once, and events
// come one at a time. A stop does not wait for the server's end.
func TestTheServersLogIsHeard(t *testing.T) {
	var writers []*os.File
	o := testOptions(t)
	heard := make(chan watch.LogEvent)
	for range 2 {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = w.Close() })
		o.ServerLog, writers = append(o.ServerLog, r), append(writers, w)
	}
	a, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	a.hear = func(e watch.LogEvent) { heard <- e }
	runApp(t, a)
	for _, w := range writers {
		if _, err := w.WriteString("spawned uWSGI worker 1 (pid: 7, cores: 1)\ngoodbye to uWSGI.\n"); err != nil {
			t.Fatal(err)
		}
	}
	got := []watch.LogEvent{<-heard, <-heard}
	if slices.ContainsFunc(got, func(e watch.LogEvent) bool { return e.Server != "uwsgi" || e.What != "master_stop" }) {
		t.Errorf("%+v", got)
	}
	if err := a.Stop(); err != nil {
		t.Error(err)
	}
}
