package app

import (
	"context"
	"os"
	"slices"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/prefork-exporter/prefork_exporter/collector"
)

// CollectorSpec is a collector that can be switched on and off.
type CollectorSpec struct {
	Name    string
	Help    string // what it adds
	Default bool   // on unless somebody says otherwise
	build   func(a *App) (collector.Collector, error)
}

const multiprocName = "multiproc"

// Collectors returns all collectors, by name. One line here gives a collector
// its flags, too.
func Collectors() []CollectorSpec {
	return []CollectorSpec{
		{"cgroup", "the control group: its memory and limit, kills for want of memory, time held back", true, newCgroup},
		{"exporter", "the exporter's own build, memory and reloads", true, newExporter},
		{"listen", "accept queues: how many connections wait, for how long, and how many were dropped", true, newListen},
		{multiprocName, "the merged metric files", true, newMultiproc},
		{"restart", "how many workers there are and should be, and why they ended", true, newRestart},
		{"worker", "each worker: its memory, processor time, threads, files, and whether it is busy", true, newWorker},
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
	return a.multiproc, nil
}

func newExporter(a *App) (collector.Collector, error) {
	return together{collector.NewExporter(), a.reloads}, nil
}

func newRestart(a *App) (collector.Collector, error) {
	return collector.NewRestart(&a.supervision), nil
}

func newWorker(a *App) (collector.Collector, error) {
	a.workers = collector.NewWorker(collector.WorkerOptions{Source: &a.supervision})
	return a.workers, nil
}

// newCgroup watches the group of what is started beside, else our own, which in a
// container is the container's.
func newCgroup(a *App) (collector.Collector, error) {
	return collector.NewCgroup(collector.CgroupOptions{Mounted: a.o.CgroupFS, Process: a.server()}), nil
}

// server returns the process that starts the server beside, our parent; 0: none does.
func (a *App) server() int {
	if a.o.Supervisor == nil {
		return 0
	}
	return os.Getppid()
}

// newListen watches the addresses that are named, and what is started beside.
func newListen(a *App) (collector.Collector, error) {
	o := collector.ListenOptions{Logger: a.log}
	for _, text := range a.o.QueueAddresses {
		address, err := collector.ParseListenAddress(text)
		if err != nil {
			return nil, err
		}
		o.Addresses = append(o.Addresses, address)
	}
	o.Process = a.server()
	a.queues = collector.NewListen(o)
	return a.queues, nil
}

// observed returns the families that collectors observe, if there is a master to observe.
func (a *App) observed() (names []string) {
	if a.o.Supervisor == nil {
		return nil
	}
	for name, families := range map[string]func() []string{
		"restart": collector.NewRestart(&a.supervision).Families, "worker": collector.NewWorker(collector.WorkerOptions{Source: &a.supervision}).Families,
	} {
		if slices.Contains(a.o.Collectors, name) {
			names = append(names, families()...)
		}
	}
	return names
}

// enabledCollectors builds those that are switched on.
func (a *App) enabledCollectors() (map[string]collector.Collector, error) {
	enabled := map[string]collector.Collector{}
	for _, spec := range Collectors() {
		for _, name := range a.o.Collectors {
			if name != spec.Name {
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
