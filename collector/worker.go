package collector

import (
	"context"
	"maps"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/prefork-exporter/prefork_exporter/collector/watch"
)

// Worker exposes what the kernel tells of each worker.
type Worker struct {
	source watch.Source
	read   func(pid int) (workerProcess, error)

	memory, cpu, uptime, threads, pid Descriptor

	mu    sync.Mutex
	shown map[string]watch.Used // by slot: what no later scrape falls behind
}

// workerProcess is what the kernel tells of a process.
type workerProcess struct {
	residentBytes float64
	used          watch.Used
	threads       float64
}

// NewWorker returns the collector of a master's workers.
func NewWorker(source watch.Source) *Worker {
	return &Worker{
		source: source, read: readWorker, shown: map[string]watch.Used{},
		memory:  Describe("prefork_worker_memory_bytes"),
		cpu:     Describe("prefork_worker_cpu_seconds_total"),
		uptime:  Describe("prefork_worker_uptime_seconds"),
		threads: Describe("prefork_worker_threads"),
		pid:     Describe("prefork_worker_pid"),
	}
}

// Families returns the families that it exposes: files may not have them then.
func (c *Worker) Families() (names []string) {
	for _, d := range c.descriptors() {
		names = append(names, d.definition.Name)
	}
	return names
}

func (c *Worker) descriptors() []Descriptor {
	return []Descriptor{c.memory, c.cpu, c.uptime, c.threads, c.pid}
}

// Describe implements [Collector].
func (c *Worker) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range c.descriptors() {
		ch <- d.Desc
	}
}

// Update implements [Collector]. A worker that has ended since is left out. Of two
// in one slot, one of which makes way, the younger one counts; the processor time is
// that of all that the slot has had.
func (c *Worker) Update(_ context.Context, out *Output) error {
	s, ok := c.source.State()
	if !ok {
		return nil
	}
	youngest := map[string]watch.Worker{}
	used := map[string]watch.Used{}
	maps.Copy(used, s.Used)
	inBetween := map[string]bool{} // slots of which one has just ended
	processes := map[int]workerProcess{}
	for _, w := range s.Workers {
		p, err := c.read(w.PID)
		if err != nil {
			inBetween[w.Slot] = true
			continue
		}
		processes[w.PID] = p
		if other, taken := youngest[w.Slot]; !taken || w.Born.After(other.Born) {
			youngest[w.Slot] = w
		}
		used[w.Slot] = sum(used[w.Slot], p.used)
	}
	for slot, w := range youngest {
		p := processes[w.PID]
		out.Add(
			gauge(c.memory, p.residentBytes, slot),
			gauge(c.uptime, time.Since(w.Born).Seconds(), slot),
			gauge(c.threads, p.threads, slot),
			gauge(c.pid, float64(w.PID), slot),
		)
	}
	maps.DeleteFunc(used, func(slot string, _ watch.Used) bool { return inBetween[slot] })
	for slot, u := range c.atLeast(used) {
		out.Add(counter(c.cpu, u.User, slot, "user"), counter(c.cpu, u.System, slot, "system"))
	}
	return nil
}

// atLeast returns what was used, or what was shown before where that is more or all that
// is known: who has just ended is found neither among the living nor, until it is told,
// among the others.
func (c *Worker) atLeast(used map[string]watch.Used) map[string]watch.Used {
	c.mu.Lock()
	defer c.mu.Unlock()
	for slot, u := range used {
		before := c.shown[slot]
		c.shown[slot] = watch.Used{User: max(before.User, u.User), System: max(before.System, u.System)}
	}
	return maps.Clone(c.shown)
}

func sum(a, b watch.Used) watch.Used {
	return watch.Used{User: a.User + b.User, System: a.System + b.System}
}
