package collector

import (
	"errors"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	dto "github.com/prometheus/client_model/go"

	"github.com/prefork-exporter/prefork_exporter/collector/watch"
)

// known is a source that knows one state.
type known watch.State

func (k known) State() (watch.State, bool) { return watch.State(k), true }

// unknown knows nothing.
type unknown struct{}

func (unknown) State() (watch.State, bool) { return watch.State{}, false }

// twoWorkers is a master with two workers, one of which makes way.
func twoWorkers() watch.Source {
	begun := time.Unix(1_700_000_000, 0)
	return known{
		Target: 2,
		Workers: []watch.Worker{
			{Slot: "0", PID: os.Getpid(), State: "running", Born: begun},
			{Slot: "1", PID: os.Getppid(), State: "stopping", Born: begun},
			{Slot: "1", PID: os.Getpid(), State: "starting", Born: begun.Add(time.Minute)},
		},
		Exits:     []watch.Exit{{Code: "1", Count: 2}, {Signal: "KILL", Count: 3}},
		Restarts:  []watch.Restart{{Slot: "0", Reason: "oom", Count: 3}, {Slot: "1", Reason: "oom", Count: 1}, {Slot: "1", Reason: "exit_code", Count: 2}},
		Reloads:   map[string]float64{"success": 4, "failure": 1},
		Signals:   map[string]float64{"HUP": 5, "USR2": 1},
		Masters:   map[string]float64{"reload": 1},
		Backoff:   1500 * time.Millisecond,
		Loop:      true,
		StartTime: begun,
	}
}

// collect returns what a collector adds, as text; of one family, if it is named.
func collect(t *testing.T, c Collector, name string) string {
	t.Helper()
	s, err := NewSet(quiet(), map[string]Collector{"it": c}, time.Minute).Gather(t.Context(), []string{"it"})
	if err != nil {
		t.Fatal(err)
	}
	return textOf(t, slices.DeleteFunc(s.Families(), func(f *dto.MetricFamily) bool {
		return strings.HasPrefix(f.GetName(), "prefork_scrape_") || name != "" && f.GetName() != name
	}))
}

func TestWhatAMasterDoesIsExposed(t *testing.T) {
	golden(t, "restart.txt", collect(t, NewRestart(twoWorkers()), ""))
}

func TestOfAnUnknownMasterNothingIsExposed(t *testing.T) {
	for _, c := range []Collector{NewRestart(unknown{}), NewWorker(WorkerOptions{Source: unknown{}})} {
		if got := collect(t, c, ""); got != "" {
			t.Errorf("exposed:\n%s", got)
		}
	}
}

func TestProcessorTimeOfASlotNeverFalls(t *testing.T) {
	var state watch.State
	source := sourceFunc(func() watch.State { return state })
	times := map[int]workerProcess{}
	c := newWorkerOf(source)
	c.read = func(w watch.Worker) (workerProcess, error) {
		p, ok := times[w.PID]
		if !ok {
			return p, errors.New("no such process")
		}
		return p, nil
	}
	used := func() string { return collect(t, c, "prefork_worker_cpu_seconds_total") }
	var last string
	second := func(n float64) workerProcess { return workerProcess{used: watch.Used{User: n}} }
	for _, step := range []struct {
		workers  []int // pids in slot 0, the younger ones last
		times    map[int]workerProcess
		before   float64 // used by workers that have ended
		user     float64
		thatHave string
	}{
		{[]int{7}, map[int]workerProcess{7: second(1)}, 0, 1, "one second"},
		{[]int{7}, map[int]workerProcess{7: second(3)}, 0, 3, "two more"},
		{[]int{7, 8}, map[int]workerProcess{7: second(4), 8: second(.5)}, 0, 4.5, "a successor, beside it"},
		{[]int{7, 8}, map[int]workerProcess{8: second(.5)}, 0, 4.5, "its end, of which nobody has told yet"},
		{[]int{8}, map[int]workerProcess{8: second(2)}, 5, 7, "the successor alone"},
		{[]int{8}, nil, 5, 7, "nobody, for it has ended"},
		{nil, nil, 8, 8, "nobody"},
		{[]int{8}, map[int]workerProcess{8: second(1)}, 8, 9, "another with the same process id"},
	} {
		state.Workers, times = nil, step.times
		state.Used = map[string]watch.Used{"0": {User: step.before}}
		for i, pid := range step.workers {
			state.Workers = append(state.Workers, watch.Worker{Slot: "0", PID: pid, Born: time.Unix(int64(i), 0)})
		}
		want := "# HELP prefork_worker_cpu_seconds_total Processor time that the slot's workers have used, by mode.\n" +
			"# TYPE prefork_worker_cpu_seconds_total counter\n" +
			"prefork_worker_cpu_seconds_total{worker_id=\"0\",mode=\"system\"} 0\n" +
			"prefork_worker_cpu_seconds_total{worker_id=\"0\",mode=\"user\"} " + strconv.FormatFloat(step.user, 'g', -1, 64) + "\n"
		if last = used(); last != want {
			t.Errorf("with %s:\n%s", step.thatHave, cmp.Diff(want, last))
		}
	}
}

type sourceFunc func() watch.State

func (f sourceFunc) State() (watch.State, bool) { return f(), true }

func TestFamiliesThatAreObservedAreRefusedInFiles(t *testing.T) {
	observed := slices.Concat(NewRestart(unknown{}).Families(), NewWorker(WorkerOptions{Source: unknown{}}).Families())
	refused, shadowed := Refused(observed...), Shadowed(observed...)
	for name, want := range map[string]bool{
		"prefork_worker_memory_bytes": true, "prefork_worker_restart_total": true, "prefork_worker_restart": true,
		"prefork_worker_requests_total": false, "prefork_worker_state": false,
	} {
		if refused(name) != want || shadowed(name) != want {
			t.Errorf("refused(%q) = %v, shadowed = %v; want %v", name, refused(name), shadowed(name), want)
		}
	}
}

// The workers of a server that is its own master are its own affair.
func TestOfAServerThatIsItsOwnMasterNoWorkersAreExposed(t *testing.T) {
	begun := time.Unix(1_700_000_000, 0)
	golden(t, "restart_run.txt", collect(t, NewRestart(known{
		Target: -1, Masters: map[string]float64{"exit_code": 5}, Signals: map[string]float64{"TERM": 1},
		Backoff: 45 * time.Second, Loop: true, StartTime: begun,
	}), ""))
}

// A collector that is new knows nothing to hold on to: better nothing than less than
// another one has told.
func TestProcessorTimeIsNotToldWhileOneOfASlotHasJustEnded(t *testing.T) {
	source := known{
		Workers: []watch.Worker{{Slot: "0", PID: 1}, {Slot: "1", PID: 2}},
		Used:    map[string]watch.Used{"0": {User: 5}, "1": {User: 5}},
	}
	c := newWorkerOf(source)
	c.read = func(w watch.Worker) (workerProcess, error) {
		if w.PID == 1 {
			return workerProcess{}, errors.New("no such process")
		}
		return workerProcess{used: watch.Used{User: 1}}, nil
	}
	got := collect(t, c, "prefork_worker_cpu_seconds_total")
	if strings.Contains(got, `worker_id="0"`) || !strings.Contains(got, `prefork_worker_cpu_seconds_total{worker_id="1",mode="user"} 6`) {
		t.Errorf("told:\n%s", got)
	}
}

// Who looks from outside knows neither signals of the operator nor when a restart is due.
func TestOfAMasterThatIsOnlySeenNothingIsMadeUp(t *testing.T) {
	if got := collect(t, NewRestart(known{Master: 7, Target: -1}), ""); got != "" {
		t.Errorf("exposed:\n%s", got)
	}
}
