package app

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/prefork-exporter/prefork_exporter/cmd/internal/supervisor"
	"github.com/prefork-exporter/prefork_exporter/collector/watch"
)

func TestWhatAReportTells(t *testing.T) {
	at := time.Unix(1_700_000_000, 0)
	sign := at.Add(time.Minute)
	r := supervisor.Report{
		Started: at, Target: 2, Stopping: true,
		Workers: []supervisor.WorkerReport{
			{Slot: 0, PID: 10, State: supervisor.Running, Born: at, Start: 700, LifeSign: &sign},
			{Slot: 1, PID: 11, State: supervisor.Killed, Born: at},
		},
	}
	r.Exits = []supervisor.ExitReport{{Code: 7, Count: 1}, {Code: -1, Signal: 9, Count: 2}}
	r.Deaths = []supervisor.DeathReport{
		{At: sign, Slot: 0, PID: 8, Born: at, Reason: supervisor.ReasonExitCode, Code: 7},
		{At: sign, Slot: 1, PID: 9, Born: at, Reason: supervisor.ReasonSignal, Code: -1, Signal: 9, Resident: 4096},
	}
	want := watch.State{
		Master: 5, Target: 2, StartTime: at, Stopping: true,
		Workers: []watch.Worker{
			{Slot: "0", PID: 10, Start: 700, State: "running", Born: at, LifeSign: sign},
			{Slot: "1", PID: 11, State: "unresponsive", Born: at},
		},
		Exits: []watch.Exit{{Code: "7", Count: 1}, {Signal: "KILL", Count: 2}},
		Deaths: []watch.Death{
			{At: sign, Slot: "0", PID: 8, Born: at, Reason: "exit_code", Code: "7"},
			{At: sign, Slot: "1", PID: 9, Born: at, Reason: "signal", Signal: "KILL", ResidentBytes: 4096},
		},
		Reloads: map[string]float64{"success": 0, "failure": 0},
		Signals: map[string]float64{}, Masters: map[string]float64{}, Used: map[string]watch.Used{},
	}
	if diff := cmp.Diff(want, stateOf(r, 5)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// Of a server that is its own master, our parent only knows the start.
func TestAParentThatIsNoMasterIsNotTakenForOne(t *testing.T) {
	if got := stateOf(supervisor.Report{Target: -1}, 5); got.Master != 0 || got.Reloads != nil {
		t.Errorf("master %d, reloads %v, want that nobody knows", got.Master, got.Reloads)
	}
}

func TestTheServerThatOurParentKeepsIsTheMaster(t *testing.T) {
	if got := stateOf(supervisor.Report{Target: -1, Server: 7}, 5).Master; got != 7 {
		t.Errorf("Master = %d, want 7", got)
	}
}
