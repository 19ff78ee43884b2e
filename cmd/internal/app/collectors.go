package app

import (
	"cmp"
	"context"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/prefork-exporter/prefork_exporter/collector"
	"github.com/prefork-exporter/prefork_exporter/collector/watch"
)

// CollectorSpec is a collector that can be switched on and off. It is built once, or for
// each target that is observed.
type CollectorSpec struct {
	Name    string
	Help    string // what it adds
	Default bool   // on unless somebody says otherwise
	build   func(a *App) (collector.Collector, error)
	each    func(a *App, w *observed) (collector.Collector, error)
}

const multiprocName = "multiproc"

// Collectors returns all collectors, by name. One line here gives a collector
// its flags, too.
func Collectors() []CollectorSpec {
	return []CollectorSpec{
		{"cgroup", "the control group: its memory and limit, kills for want of memory, time held back", true, nil, newCgroup},
		{"exporter", "the exporter's own build, memory and reloads", true, newExporter, nil},
		{"listen", "accept queues: how many connections wait, for how long, and how many were dropped", true, nil, newListen},
		{multiprocName, "the merged metric files", true, newMultiproc, nil},
		{"restart", "how many workers there are and should be, and why they ended", true, nil, newRestart},
		{"worker", "each worker: its memory, processor time, threads, files, and whether it is busy", true, nil, newWorker},
	}
}

func collectorNames() []string {
	var names []string
	for _, c := range Collectors() {
		names = append(names, c.Name)
	}
	return names
}

func newMultiproc(a *App) (collector.Collector, error) {
	a.multiproc = collector.NewMultiproc(a.merger, a.o.MergeTimeout)
	a.multiproc.NoDirectory, a.multiproc.MastersThere = a.noDirectory, a.mastersThere
	return a.multiproc, nil
}

func newExporter(a *App) (collector.Collector, error) {
	return together{collector.NewExporter(), a.reloads}, nil
}

func newRestart(_ *App, w *observed) (collector.Collector, error) {
	return collector.NewRestart(w.knower()), nil
}

func newWorker(a *App, w *observed) (collector.Collector, error) {
	const never = -1
	c := collector.NewWorker(collector.WorkerOptions{Source: w.knower(), MemoryEvery: cmp.Or(a.o.PSSInterval, never)})
	if w.source != nil {
		w.workers = c
	}
	return c, nil
}

// newCgroup watches the group of the server, else our own, which in a container is the
// container's.
func newCgroup(a *App, w *observed) (collector.Collector, error) {
	return collector.NewCgroup(collector.CgroupOptions{Mounted: a.o.CgroupFS, Process: w.process()}), nil
}

// newListen watches the addresses that are named, and those of the server.
func newListen(a *App, w *observed) (collector.Collector, error) {
	o := collector.ListenOptions{Logger: a.log, Process: w.process()}
	for _, text := range w.listen {
		address, err := collector.ParseListenAddress(text)
		if err != nil {
			return nil, err
		}
		o.Addresses = append(o.Addresses, address)
	}
	w.queues = collector.NewListen(o)
	return w.queues, nil
}

// knower returns who knows the master; one that knows nothing if there is none.
func (w *observed) knower() watch.Source {
	if w.source == nil {
		return nobody{}
	}
	return w.source
}

// nobody knows nothing.
type nobody struct{}

// State implements [watch.Source].
func (nobody) State() (watch.State, bool) { return watch.State{}, false }

// enabledCollectors builds those that are switched on.
func (a *App) enabledCollectors() (map[string]collector.Collector, error) {
	enabled := map[string]collector.Collector{}
	for _, spec := range Collectors() {
		for _, name := range a.o.Collectors {
			if name != spec.Name {
				continue
			}
			if spec.each != nil {
				enabled[name] = ofTargets{a, name}
				continue
			}
			c, err := spec.build(a)
			if err != nil {
				return nil, err
			}
			enabled[name] = c
		}
	}
	return enabled, nil
}

// together makes one collector of several.
type together []collector.Collector

// Describe implements [collector.Collector].
func (t together) Describe(ch chan<- *prometheus.Desc) {
	for _, c := range t {
		c.Describe(ch)
	}
}

// Update implements [collector.Collector]. The first error ends it.
func (t together) Update(ctx context.Context, out *collector.Output) error {
	for _, c := range t {
		if err := c.Update(ctx, out); err != nil {
			return err
		}
	}
	return nil
}
