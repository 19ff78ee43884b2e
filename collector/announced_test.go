package collector

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/prefork-exporter/prefork_exporter/multiproc"
	"github.com/prefork-exporter/prefork_exporter/multiproc/writer"
)

// announce writes a gauge of this process, and returns the directory.
func announce(t *testing.T, name string, mode writer.Mode, value float64) string {
	t.Helper()
	dir := t.TempDir()
	w, err := writer.Open(writer.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	w.NewGauge(writer.GaugeOpts{Opts: writer.Opts{Name: name, Help: "It."}, Mode: mode}).Set(value)
	t.Cleanup(func() { _ = w.Close() }) // which removes the gauges of the living
	return dir
}

func TestWhatAWorkerAnnounces(t *testing.T) {
	const name = "prefork_worker_slot"
	for title, tc := range map[string]struct {
		dir  string
		want string
	}{
		"its slot":                    {announce(t, name, writer.ModeLiveAll, 3), "3"},
		"the first one":               {announce(t, name, writer.ModeLiveAll, 0), "0"},
		"half a slot":                 {announce(t, name, writer.ModeLiveAll, .5), ""},
		"one below zero":              {announce(t, name, writer.ModeLiveAll, -1), ""},
		"more than there can be":      {announce(t, name, writer.ModeLiveAll, 1e9), ""},
		"something else":              {announce(t, "other", writer.ModeLiveAll, 3), ""},
		"in a file that is not asked": {announce(t, name, writer.ModeAll, 3), ""},
		"nothing":                     {t.TempDir(), ""},
		"nowhere":                     {filepath.Join(t.TempDir(), "none"), ""},
	} {
		t.Run(title, func(t *testing.T) {
			got, ok := AnnouncedSlot([]multiproc.Source{{Path: t.TempDir()}, {Path: tc.dir}}, os.Getpid())
			if got != tc.want || ok != (tc.want != "") {
				t.Errorf("%q, %t; want %q", got, ok, tc.want)
			}
		})
	}
}
