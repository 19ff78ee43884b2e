package api

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/prefork-exporter/prefork_exporter/collector/watch"
)

// tell adds what is known of the master and its workers.
func (t *Target) tell(s watch.State, now time.Time) {
	t.Kind, t.Master = string(s.Kind), master(s, now)
	if s.Target >= 0 {
		t.WorkersTarget = &s.Target
	}
	if !knowsWorkers(s) {
		return
	}
	t.Workers, t.Exits, t.Restarts, t.Deaths = workers(s, now), exits(s), restarts(s), deaths(s)
}

// knowsWorkers says whether somebody watches the workers: else there being none tells nothing.
func knowsWorkers(s watch.State) bool {
	return s.Target >= 0 || len(s.Workers)+len(s.Exits)+len(s.Deaths) > 0
}

func master(s watch.State, now time.Time) *Master {
	m := &Master{
		PID: s.Master, Started: Time{s.StartTime}, Stopping: s.Stopping, Ended: s.Over,
		Restarts: counted(s.Masters, func(reason string, n float64) ReasonCount { return ReasonCount{reason, n} }),
		Reloads:  counted(s.Reloads, func(result string, n float64) ResultCount { return ResultCount{result, n} }),
		Signals:  counted(s.Signals, func(signal string, n float64) SignalCount { return SignalCount{signal, n} }),
	}
	if s.Signals != nil { // which only who has started it knows, and these likewise
		m.BackoffSeconds, m.RestartLoop = new(seconds(s.Backoff)), &s.Loop
	}
	if !s.StartTime.IsZero() && !s.Over {
		m.UptimeSeconds = new(seconds(now.Sub(s.StartTime)))
	}
	return m
}

// counted lists counts by what they are of; nil: nobody counts.
func counted[T any](counts map[string]float64, one func(of string, n float64) T) []T {
	if counts == nil {
		return nil
	}
	all := []T{}
	for _, of := range slices.Sorted(maps.Keys(counts)) {
		all = append(all, one(of, counts[of]))
	}
	return all
}

func workers(s watch.State, now time.Time) []Worker {
	all := []Worker{}
	for _, w := range s.Workers {
		one := Worker{Slot: w.Slot, PID: w.PID, State: w.State, Started: Time{w.Born}}
		if !w.Born.IsZero() {
			one.UptimeSeconds = new(seconds(now.Sub(w.Born)))
		}
		if !w.LifeSign.IsZero() {
			one.HeartbeatAgeSeconds = new(seconds(now.Sub(w.LifeSign)))
		}
		all = append(all, one)
	}
	slices.SortStableFunc(all, func(a, b Worker) int {
		return cmp.Or(compareNumbers(a.Slot, b.Slot), a.Started.Compare(b.Started.Time), a.PID-b.PID)
	})
	return all
}

// compareNumbers orders numbers that are texts: slots and exit codes.
func compareNumbers(a, b string) int { return cmp.Or(len(a)-len(b), cmp.Compare(a, b)) }

func exits(s watch.State) []Exit {
	all := []Exit{}
	for _, e := range slices.SortedFunc(slices.Values(s.Exits), func(a, b watch.Exit) int {
		return cmp.Or(cmp.Compare(a.Signal, b.Signal), compareNumbers(a.Code, b.Code))
	}) {
		all = append(all, Exit{code(e.Code), e.Signal, e.Count})
	}
	return all
}

// code returns an exit code; nil: there is none, or nobody knows.
func code(text string) *int {
	n, err := strconv.Atoi(text)
	if err != nil {
		return nil
	}
	return &n
}

func restarts(s watch.State) []Restart {
	all := []Restart{}
	for _, r := range s.Restarts {
		all = append(all, Restart{r.Slot, r.Reason, r.Count})
	}
	slices.SortFunc(all, func(a, b Restart) int {
		return cmp.Or(compareNumbers(a.Slot, b.Slot), cmp.Compare(a.Reason, b.Reason))
	})
	return all
}

func deaths(s watch.State) []Death {
	all := []Death{}
	for _, d := range s.Deaths {
		one := Death{Time: Time{d.At}, Slot: d.Slot, PID: d.PID, Reason: d.Reason, Code: code(d.Code), Signal: d.Signal}
		if !d.Born.IsZero() {
			one.AgeSeconds = new(seconds(d.At.Sub(d.Born)))
		}
		if d.ResidentBytes > 0 {
			one.ResidentBytes = &d.ResidentBytes
		}
		all = append(all, one)
	}
	return all
}
