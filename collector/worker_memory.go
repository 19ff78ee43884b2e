package collector

import (
	"cmp"
	"errors"
	"io/fs"
	"sync"
	"time"

	"github.com/prefork-exporter/prefork_exporter/collector/internal/procfs"
	"github.com/prefork-exporter/prefork_exporter/collector/watch"
)

// What reading the memory of workers may cost. It takes the kernel some 10 ms for each
// gigabyte, in which the worker may have to wait: so one is read at a time, who was read
// longest ago first, each at most so often, and then there is a rest of so many times
// what it took.
const (
	memoryEvery      = time.Minute
	memoryRestFactor = 100
	memoryPause      = time.Second // how soon a new worker is noticed
)

// memorySampler knows what the memory of each worker consists of.
type memorySampler struct {
	source watch.Source
	proc   procfs.FS
	every  time.Duration // negative: never
	read   func(w watch.Worker) memoryShare

	mu sync.Mutex
	of map[identity]memoryShare
}

// memoryShare is what was last read of a worker.
type memoryShare struct {
	procfs.Memory
	start  uint64 // of the process that was read; 0: it had ended
	tried  time.Time
	reason string // why it could not be read
}

func newMemorySampler(source watch.Source, proc procfs.FS, every time.Duration) *memorySampler {
	return &memorySampler{
		source: source, proc: proc, every: cmp.Or(every, memoryEvery), of: map[identity]memoryShare{},
		read: func(w watch.Worker) memoryShare { return readShare(proc, w) },
	}
}

// tick reads the worker that is due, if one is, and returns how long to rest.
func (m *memorySampler) tick() time.Duration {
	s, _ := m.source.State()
	w, wait := m.due(s.Workers)
	if wait > 0 {
		return min(wait, memoryPause)
	}
	began := time.Now()
	share := m.read(w)
	took := time.Since(began)
	share.tried = began
	m.mu.Lock()
	defer m.mu.Unlock()
	m.of[identityOf(w)] = share
	return memoryRestFactor * took
}

// due returns the worker that was read longest ago, and how long it has time. What is
// known of others that are gone is forgotten.
func (m *memorySampler) due(workers []watch.Worker) (next watch.Worker, wait time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	known := make(map[identity]memoryShare, len(workers))
	var oldest time.Time
	wait = memoryPause
	for i, w := range workers {
		share := m.of[identityOf(w)]
		known[identityOf(w)] = share
		if i == 0 || share.tried.Before(oldest) {
			next, oldest = w, share.tried
			wait = m.every - time.Since(oldest)
		}
	}
	m.of = known
	return next, wait
}

// readShare reads the memory of a worker.
func readShare(proc procfs.FS, w watch.Worker) memoryShare {
	p, s, err := hold(proc, w)
	if err != nil {
		return memoryShare{}
	}
	defer func() { _ = p.Close() }()
	memory, err := p.Memory()
	if err == nil {
		return memoryShare{Memory: memory, start: s.Start}
	}
	if s, gone := p.Stat(); gone != nil || s.Gone() {
		return memoryShare{}
	}
	return memoryShare{start: s.Start, reason: whyNoMemory(err)}
}

func whyNoMemory(err error) string {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return "the workers' smaps_rollup may not be read"
	case errors.Is(err, fs.ErrNotExist):
		return "the kernel has no smaps_rollup"
	}
	return withNumber("the workers' smaps_rollup cannot be read", err)
}

// share returns what was read of a worker's process, if it was.
func (m *memorySampler) share(w watch.Worker, start uint64) (memoryShare, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	share := m.of[identityOf(w)]
	return share, share.start == start && start != 0
}

// addShares adds what was read of the living. Before the first reading nothing is claimed.
func (c *Worker) addShares(out *Output, living map[string]workerReading) {
	if c.shares.every < 0 {
		if len(living) > 0 {
			c.tell(out, "worker_pss", "it is switched off")
		}
		return
	}
	tried, reason := false, ""
	for slot, r := range living {
		share, ok := c.shares.share(r.Worker, r.start)
		if !ok {
			continue
		}
		tried = true
		reason = max(reason, share.reason)
		if share.reason == "" {
			out.Add(gauge(c.proportional, float64(share.Proportional), slot), gauge(c.unique, float64(share.Unique), slot))
		}
	}
	if tried {
		c.tell(out, "worker_pss", reason)
	}
}
