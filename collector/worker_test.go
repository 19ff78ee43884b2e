package collector

import (
	"os"
	"testing"
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

var _ = procfs.New
