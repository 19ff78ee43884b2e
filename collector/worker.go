package collector

import (
	"context"
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

	mu   sync.Mutex
	used map[string]*slotTime // by slot
}

// workerProcess is what the kernel tells of a process.
type workerProcess struct {
	residentBytes              float64
	userSeconds, systemSeconds float64
	threads                    float64
	startTicks                 uint64 // tells it from another that has its id later
}

// slotTime adds up the processor time of a slot's successive workers.
type slotTime struct {
	pid          int
	startTicks   uint64
	past, latest [2]float64 // user and system: of former workers, of the present one
}

// NewWorker returns the collector of a master's workers.
func NewWorker(source watch.Source) *Worker {
	return &Worker{
		source: source, read: readWorker, used: map[string]*slotTime{},
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
// in one slot, one of which makes way, the younger one counts.
func (c *Worker) Update(_ context.Context, out *Output) error {
	s, ok := c.source.State()
	if !ok {
		return nil
	}
	youngest := map[string]watch.Worker{}
	for _, w := range s.Workers {
		if other, taken := youngest[w.Slot]; !taken || w.Born.After(other.Born) {
			youngest[w.Slot] = w
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for slot, w := range youngest {
		p, err := c.read(w.PID)
		if err != nil {
			continue // it has ended
		}
		out.Add(
			gauge(c.memory, p.residentBytes, slot),
			gauge(c.uptime, time.Since(w.Born).Seconds(), slot),
			gauge(c.threads, p.threads, slot),
			gauge(c.pid, float64(w.PID), slot),
		)
		c.add(slot, w.PID, p)
	}
	for slot, t := range c.used {
		for i, mode := range []string{"user", "system"} {
			out.Add(counter(c.cpu, t.past[i]+t.latest[i], slot, mode))
		}
	}
	return nil
}

// add takes in the processor time of a slot's worker.
func (c *Worker) add(slot string, pid int, p workerProcess) {
	t := c.used[slot]
	if t == nil {
		t = &slotTime{}
		c.used[slot] = t
	}
	if t.pid != pid || t.startTicks != p.startTicks {
		for i := range t.past {
			t.past[i] += t.latest[i]
		}
		t.pid, t.startTicks = pid, p.startTicks
	}
	t.latest = [2]float64{p.userSeconds, p.systemSeconds}
}
