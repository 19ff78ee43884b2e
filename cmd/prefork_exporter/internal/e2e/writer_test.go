package e2e

import (
	"encoding/json"
	"fmt"
	"math"
	"os/exec"
	"syscall"
	"testing"
)

// A scrape in the middle of writing has every counter as it was before or after
// one step of the writer: it never falls, and is never half of a number.
func TestWriterAtFullSpeedIsReadWhole(t *testing.T) {
	need(t, pythonPeers()...)
	const scrapes = 1000
	dir := t.TempDir()
	writer := start(t, exec.Command(pythonPath, testdata(t, "writer.py")), "PROMETHEUS_MULTIPROC_DIR="+dir)
	e := startExporter(t, dir)
	await(t, "the writer's first counter", func() bool { return e.scrape(t).samples[series("writer_rounds_total")] > 0 })

	counters := rising{}
	for n := range scrapes {
		samples := e.scrape(t).application().samples
		if err := counters.see(samples); err != nil {
			t.Fatalf("scrape %d: %v", n, err)
		}
		if err := whole(samples); err != nil {
			t.Fatalf("scrape %d: %v", n, err)
		}
	}
	writer.signal(syscall.SIGTERM)
	if status := writer.status(t); status != 0 {
		t.Fatalf("the writer ended with status %d", status)
	}
	var truth struct{ Rounds, Series float64 }
	must(t, json.Unmarshal([]byte(writer.output(t, writer.stdout)), &truth))
	want := pythonMerge(t, dir)
	if rounds := want.samples[series("writer_rounds_total")]; rounds != truth.Rounds || truth.Series == 0 {
		t.Errorf("the writer made %v rounds and %v series, its files have %v rounds", truth.Rounds, truth.Series, rounds)
	}
	if err := counters.see(want.samples); err != nil {
		t.Errorf("a scrape had more than the writer ever counted: %v", err)
	}
	same(t, "scrape beside the client's own collector", e.scrape(t).application(), want)
}

// whole returns an error when a sample of the writer is not a whole number, or
// its histogram contradicts itself.
func whole(samples map[string]float64) error {
	for s, v := range samples {
		if v != math.Trunc(v) || v < 0 {
			return fmt.Errorf("%s is %v: torn", s, v)
		}
	}
	below := 0.0
	for _, le := range []string{"1.0", "2.0", "4.0", "+Inf"} {
		v := samples[series("writer_steps_bucket", "le", le)]
		if v < below {
			return fmt.Errorf("bucket le=%s has %v, one below it %v", le, v, below)
		}
		below = v
	}
	if count := samples[series("writer_steps_count")]; count != below {
		return fmt.Errorf("histogram counts %v, its last bucket %v", count, below)
	}
	return nil
}
