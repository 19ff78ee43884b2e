package supervisor

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestWhatAHeraldTells(t *testing.T) {
	runs := func(n int) Report {
		r := Report{Target: 2}
		for range n {
			r.Workers = append(r.Workers, WorkerReport{State: Running})
		}
		return r
	}
	reloads := runs(2)
	reloads.Reloading = true
	stops := runs(2)
	stops.Stopping = true
	var told []string
	h := newHerald(func(lines ...string) {
		for _, line := range lines {
			name, _, _ := strings.Cut(line, "=")
			if name == "MONOTONIC_USEC" || name == "MAINPID" {
				line = name // what varies
			}
			told = append(told, line)
		}
	})
	h.beat()
	for _, r := range []Report{runs(0), runs(1), runs(2), runs(1), runs(2), reloads, reloads, runs(2), stops, stops} {
		h.hear(r)
	}
	h.close()
	want := "WATCHDOG=1, STATUS=0 of 2 workers run, STATUS=1 of 2 workers run, " +
		"READY=1, MAINPID, STATUS=2 of 2 workers run, STATUS=1 of 2 workers run, STATUS=2 of 2 workers run, " +
		"RELOADING=1, MONOTONIC_USEC, READY=1, MAINPID, STOPPING=1"
	if got := strings.Join(told, ", "); got != want {
		t.Errorf("told: %s\nwant: %s", got, want)
	}
}

// Who started us may not listen: neither what happens nor the end waits for that.
func TestNobodyWaitsForWhoDoesNotListen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		listens := make(chan struct{})
		h := newHerald(func(...string) { <-listens })
		began := time.Now()
		for range 1000 {
			h.beat()
		}
		if spent := time.Since(began); spent > 0 {
			t.Errorf("signs of life took %v", spent)
		}
		h.close()
		if spent := time.Since(began); spent > soon {
			t.Errorf("the end took %v, want %v", spent, soon)
		}
		close(listens)
	})
}
