package collector

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prefork-exporter/prefork_exporter/collector/internal/procfs"
	"github.com/prefork-exporter/prefork_exporter/collector/internal/sockdiag"
	"github.com/prefork-exporter/prefork_exporter/collector/watch"
)

// newWorkerOf returns a collector of workers that are all idle.
func newWorkerOf(s watch.Source) *Worker {
	c := NewWorker(WorkerOptions{Source: s})
	c.busy = newBusySampler(s, serverOf(), func(watch.Worker) bool { return true })
	return c
}

// measuredWorker is a collector of two workers, of which everything is known.
func measuredWorker(t *testing.T) *Worker {
	t.Helper()
	state, _ := twoWorkers().State()
	for i := range state.Workers {
		state.Workers[i].LifeSign = time.Now()
	}
	c := NewWorker(WorkerOptions{Source: known(state)})
	k := serverOf(os.Getpid(), os.Getppid())
	k.accepted = []sockdiag.Connection{idle(70)}
	c.busy = newBusySampler(known(state), k, func(watch.Worker) bool { return true })
	for range state.Workers {
		c.shares.tick()
	}
	return c
}

// reads is what is read of processes, by id, of those that are there.
type reads map[int]workerProcess

func (r reads) of(w watch.Worker) (workerProcess, error) {
	p, ok := r[w.PID]
	if !ok || w.Start != 0 && w.Start != p.start {
		return workerProcess{}, errors.New("no such process")
	}
	return p, nil
}

// threads returns a process of that start, with so many voluntary switches of each thread.
func threads(start uint64, voluntary ...uint64) workerProcess {
	p := workerProcess{start: start, files: -1, switches: threadSwitches{}}
	for i, n := range voluntary {
		p.switches[100+i] = switches{n, 1000 * n}
	}
	return p
}

func TestContextSwitchesOfASlotNeverFall(t *testing.T) {
	var state watch.State
	c := newWorkerOf(sourceFunc(func() watch.State { return state }))
	worker := func(slot string, pid int, start uint64) watch.Worker {
		return watch.Worker{Slot: slot, PID: pid, Start: start, Born: c.begun.Add(time.Duration(start))}
	}
	unknown := workerProcess{start: 5, files: -1}
	over := workerProcess{start: 6, over: true}
	for _, step := range []struct {
		what    string
		workers []watch.Worker
		read    reads
		want    string // of slot 0, and of slot 1
	}{
		{"one thread", []watch.Worker{worker("0", 7, 5)}, reads{7: threads(5, 10)}, "10 "},
		{"two threads", []watch.Worker{worker("0", 7, 5)}, reads{7: threads(5, 12, 3)}, "15 "},
		{"one has ended", []watch.Worker{worker("0", 7, 5)}, reads{7: threads(5, 13)}, "16 "},
		{"its id is another thread's", []watch.Worker{worker("0", 7, 5)}, reads{7: threads(5, 14, 1)}, "18 "},
		{"which has its own end", []watch.Worker{worker("0", 7, 5)}, reads{7: threads(5, 14, 0)}, "18 "},
		{"nothing can be read", []watch.Worker{worker("0", 7, 5)}, reads{}, "18 "},
		{"it can be read again", []watch.Worker{worker("0", 7, 5)}, reads{7: threads(5, 15)}, "19 "},
		{"its threads are too many", []watch.Worker{worker("0", 7, 5)}, reads{7: unknown}, " "},
		{"and fewer again", []watch.Worker{worker("0", 7, 5)}, reads{7: threads(5, 16)}, "20 "},
		{"nobody is watched, for a moment", nil, reads{}, "20 "},
		{"it is there as before", []watch.Worker{worker("0", 7, 5)}, reads{7: threads(5, 17)}, "21 "},
		{"a successor, beside it", []watch.Worker{worker("0", 7, 5), worker("0", 8, 6)}, reads{7: threads(5, 18), 8: threads(6, 100)}, "122 "},
		{"the successor alone", []watch.Worker{worker("0", 8, 6)}, reads{8: threads(6, 101)}, "123 "},
		{"which has ended", []watch.Worker{worker("0", 8, 6)}, reads{8: over}, "123 "},
		{"a stranger has its id", []watch.Worker{worker("0", 8, 6)}, reads{8: threads(9, 5000)}, "123 "},
		{"another worker has its id", []watch.Worker{worker("0", 8, 9)}, reads{8: threads(9, 2)}, "125 "},
		{"another slot", []watch.Worker{worker("0", 8, 9), worker("1", 7, 10)}, reads{8: threads(9, 2), 7: threads(10, 4)}, "125 4"},
		{"the slots have changed hands", []watch.Worker{worker("1", 11, 12), worker("0", 13, 14)}, reads{11: threads(12, 1), 13: threads(14, 1)}, "126 5"},
	} {
		state.Workers = step.workers
		c.read = step.read.of
		got := valueOf(t, c, `prefork_worker_context_switches_total{worker_id="0",type="voluntary"}`) + " " +
			valueOf(t, c, `prefork_worker_context_switches_total{worker_id="1",type="voluntary"}`)
		if got != step.want {
			t.Errorf("%s: %s, want %s", step.what, got, step.want)
		}
	}
	if got := valueOf(t, c, `prefork_worker_context_switches_total{worker_id="0",type="involuntary"}`); got != "126000" {
		t.Errorf("%s involuntary ones, want 126000", got)
	}
}

// What is left of a counter that restarts would be taken for an increase.
func TestContextSwitchesBeginAtNothingForANewCollector(t *testing.T) {
	var state watch.State
	c := newWorkerOf(sourceFunc(func() watch.State { return state }))
	old := watch.Worker{Slot: "0", PID: 7, Start: 5, Born: c.begun.Add(-time.Second)}
	young := watch.Worker{Slot: "0", PID: 8, Start: 6, Born: c.begun.Add(time.Second)}
	for _, step := range []struct {
		what    string
		workers []watch.Worker
		read    reads
		want    string
	}{
		{"one that was there before", []watch.Worker{old}, reads{7: threads(5, 1000, 200)}, "0"},
		{"what it does then", []watch.Worker{old}, reads{7: threads(5, 1003, 200)}, "3"},
		{"one of its threads has ended", []watch.Worker{old}, reads{7: threads(5, 1003)}, "3"},
		{"a successor", []watch.Worker{young}, reads{8: threads(6, 10)}, "13"},
	} {
		state.Workers, c.read = step.workers, step.read.of
		if got := valueOf(t, c, `prefork_worker_context_switches_total{worker_id="0",type="voluntary"}`); got != step.want {
			t.Errorf("%s: %s, want %s", step.what, got, step.want)
		}
	}
}

// Ten thousand workers in one slot leave no more behind than some.
func TestContextSwitchesOfManyHoldersAreAddedUp(t *testing.T) {
	var s slotSwitches
	s.holders = map[identity]*holder{}
	for i := range uint64(10_000) {
		s.reading++
		s.take(identity{int(i), i}, threadSwitches{1: {3, 4}}, false)
		s.forget()
	}
	if got := s.total(); got != (switches{30_000, 40_000}) || len(s.holders) > mostHolders {
		t.Errorf("%+v of %d that are remembered, want 30000 and 40000 of %d at most", got, len(s.holders), mostHolders)
	}
	if _, ok := s.holders[identity{9_999, 9_999}]; !ok {
		t.Error("the last one is forgotten")
	}
}

func TestTheAgeOfALifeSign(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := time.Now()
		for name, tc := range map[string]struct {
			sign time.Time
			want string
		}{"none": {time.Time{}, ""}, "some time ago": {now.Add(-3 * time.Second), "3"}, "by a clock that goes fast": {now.Add(time.Second), "0"}} {
			c := newWorkerOf(known(watch.State{Workers: []watch.Worker{{Slot: "0", PID: 7, LifeSign: tc.sign}}}))
			c.read = reads{7: threads(5)}.of
			if got := valueOf(t, c, `prefork_worker_heartbeat_age_seconds{worker_id="0"}`); got != tc.want {
				t.Errorf("%s: %q, want %q", name, got, tc.want)
			}
		}
	})
}

// Of two workers in one slot the younger one that lives is shown.
func TestOneWorkerOfASlotIsShown(t *testing.T) {
	state := watch.State{Workers: []watch.Worker{
		{Slot: "0", PID: 9, Born: time.Unix(3, 0)}, {Slot: "0", PID: 8, Born: time.Unix(2, 0)}, {Slot: "0", PID: 7, Born: time.Unix(1, 0)},
	}}
	for name, tc := range map[string]struct {
		read reads
		want string
	}{
		"all":                          {reads{7: threads(1), 8: threads(2), 9: threads(3)}, "9"},
		"the youngest has ended":       {reads{7: threads(1), 8: threads(2)}, "8"},
		"it is not waited for yet":     {reads{7: threads(1), 8: threads(2), 9: workerProcess{start: 3, over: true}}, "8"},
		"all have ended":               {reads{}, ""},
		"all, and nobody waits for it": {reads{9: workerProcess{start: 3, over: true}}, ""},
	} {
		c := newWorkerOf(known(state))
		c.read = tc.read.of
		if got := valueOf(t, c, `prefork_worker_pid{worker_id="0"}`); got != tc.want {
			t.Errorf("%s: %q, want %q", name, got, tc.want)
		}
	}
}

// featuresTold returns what is claimed of each feature.
func featuresTold(t *testing.T, c Collector) string {
	t.Helper()
	var all []string
	for line := range strings.Lines(collect(t, c, "prefork_feature_available")) {
		var name, reason string
		var available int
		if n, _ := fmt.Sscanf(line, "prefork_feature_available{feature=%q,reason=%q} %d", &name, &reason, &available); n == 3 {
			all = append(all, fmt.Sprintf("%s %d %s", name, available, reason))
		}
	}
	return strings.Join(all, "; ")
}

func TestFeaturesOfWorkers(t *testing.T) {
	hidden := workerProcess{start: 5, files: -1, hidden: true}
	for name, tc := range map[string]struct {
		workers []int
		every   time.Duration
		read    reads
		share   memoryShare
		want    string
	}{
		"no worker":                  {nil, 0, reads{}, memoryShare{}, ""},
		"one that has ended":         {[]int{7}, 0, reads{}, memoryShare{}, ""},
		"before its memory was read": {[]int{7}, 0, reads{7: threads(5)}, memoryShare{}, "worker_busy 0 the server does not listen; worker_descriptors 1 "},
		"all":                        {[]int{7}, 0, reads{7: threads(5)}, memoryShare{start: 5}, "worker_busy 0 the server does not listen; worker_descriptors 1 ; worker_pss 1 "},
		"nothing": {[]int{7}, 0, reads{7: hidden}, memoryShare{start: 5, reason: "no"},
			"worker_busy 0 the server does not listen; worker_descriptors 0 " + notReadable + "; worker_pss 0 no"},
		"memory is another's": {[]int{7}, 0, reads{7: threads(5)}, memoryShare{start: 4}, "worker_busy 0 the server does not listen; worker_descriptors 1 "},
		"memory is not asked for": {[]int{7}, -1, reads{7: threads(5)}, memoryShare{},
			"worker_busy 0 the server does not listen; worker_descriptors 1 ; worker_pss 0 it is switched off"},
	} {
		var state watch.State
		for _, pid := range tc.workers {
			state.Workers = append(state.Workers, watch.Worker{Slot: "0", PID: pid})
		}
		c := NewWorker(WorkerOptions{Source: known(state), MemoryEvery: tc.every})
		k := serverOf()
		c.busy = sampling(k, &state)
		c.read = tc.read.of
		c.shares.of[identity{7, 0}] = tc.share
		if got := featuresTold(t, c); got != tc.want {
			t.Errorf("%s: %s\nwant %s", name, got, tc.want)
		}
	}
}

// memories has a sampler read so many processes of a fixture, each of which takes that long.
func memories(t *testing.T, n int, every time.Duration) (*memorySampler, *watch.State) {
	t.Helper()
	root := t.TempDir()
	state := &watch.State{}
	for i := range n {
		dir := filepath.Join(root, strconv.Itoa(100+i))
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for name, text := range map[string]string{
			"stat":         fmt.Sprintf("%d (x) S 1 7 7 0 -1 4194304 100 0 0 0 250 50 30 10 20 0 1 0 %d 1000000 500 1 0 0\n", 100+i, 1000+i),
			"smaps_rollup": fmt.Sprintf("Pss: %d kB\nPrivate_Clean: 1 kB\nPrivate_Dirty: 2 kB\n", i),
		} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		state.Workers = append(state.Workers, watch.Worker{Slot: strconv.Itoa(i), PID: 100 + i, Start: uint64(1000 + i)})
	}
	m := newMemorySampler(sourceFunc(func() watch.State { return *state }), procfs.New(root), every)
	return m, state
}

func TestMemoryIsReadInTurn(t *testing.T) {
	for name, tc := range map[string]struct {
		workers     int
		took        time.Duration
		least, most int // of how many readings each worker has in ten minutes
	}{
		"at once":             {5, 0, 10, 10},
		"some time":           {5, 30 * time.Millisecond, 9, 10},
		"more than there is":  {16, 80 * time.Millisecond, 4, 5},
		"a worker that hangs": {2, 5 * time.Second, 1, 1},
		"very many":           {500, time.Millisecond, 10, 10},
	} {
		t.Run(name, func(t *testing.T) {
			m, _ := memories(t, tc.workers, time.Minute)
			synctest.Test(t, func(t *testing.T) {
				count := map[int]int{}
				spent := time.Duration(0)
				m.read = func(w watch.Worker) memoryShare {
					count[w.PID]++
					spent += tc.took
					time.Sleep(tc.took)
					return readShare(m.proc, w)
				}
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute-time.Second)
				defer cancel()
				every(ctx, m.tick)
				if len(count) != tc.workers {
					t.Errorf("%d workers were read, want %d", len(count), tc.workers)
				}
				for pid, n := range count {
					if n < tc.least || n > tc.most {
						t.Errorf("process %d was read %d times in ten minutes, want %d to %d", pid, n, tc.least, tc.most)
					}
				}
				if most := 10*time.Minute/memoryRestFactor + tc.took; spent > most {
					t.Errorf("%s of ten minutes were spent, want %s at most", spent, most)
				}
			})
		})
	}
}

func TestMemoryIsShownUntilItIsReplacedOrTheWorkerIsGone(t *testing.T) {
	m, state := memories(t, 2, time.Minute)
	synctest.Test(t, func(t *testing.T) {
		see := func(what string, w watch.Worker, start uint64, want string) {
			t.Helper()
			got := ""
			if share, ok := m.share(w, start); ok {
				got = fmt.Sprintf("%d %d %s", share.Proportional>>10, share.Unique>>10, share.reason)
			}
			if got != want {
				t.Errorf("%s: %q, want %q", what, got, want)
			}
		}
		first, second := state.Workers[0], state.Workers[1]
		see("before", second, 1001, "")
		m.tick()
		m.tick()
		see("read", second, 1001, "1 3 ")
		see("another with its id", second, 1002, "")
		dir := filepath.Dir(m.proc.Path(second.PID, "stat"))
		if err := os.WriteFile(filepath.Join(dir, "smaps_rollup"), []byte("Pss: 9 kB\nPrivate_Clean: 1 kB\nPrivate_Dirty: 7 kB\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		m.tick()
		see("it is not due", second, 1001, "1 3 ")
		time.Sleep(time.Minute)
		m.tick()
		m.tick()
		see("replaced", second, 1001, "9 8 ")
		if err := os.Remove(filepath.Join(dir, "smaps_rollup")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		m.tick()
		m.tick()
		see("it cannot be read any more", second, 1001, "0 0 the kernel has no smaps_rollup")
		state.Workers = state.Workers[:1]
		time.Sleep(time.Minute)
		m.tick()
		see("gone", second, 1001, "")
		see("the other one", first, 1000, "0 3 ")
		if len(m.of) != 1 {
			t.Errorf("%d workers are remembered, want 1", len(m.of))
		}
	})
}
