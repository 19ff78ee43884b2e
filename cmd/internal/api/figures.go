package api

import (
	"cmp"
	"iter"
	"maps"
	"math"
	"slices"

	"github.com/prefork-exporter/prefork_exporter/collector"
)

// view is what was measured of one target: the values that have its labels, and none
// beside these and those of their family.
type view struct {
	scrape *collector.Scrape
	labels map[string]string // none: what belongs to no target is there, too
}

func (v view) values(metric string) iter.Seq[collector.Sample] {
	return func(yield func(collector.Sample) bool) {
		for s := range v.scrape.Values(metric) {
			if maps.Equal(s.Target, v.labels) && !yield(s) {
				return
			}
		}
	}
}

// figure is a value of a scrape and its place in a part of the document.
type figure[T any] struct {
	metric string
	label  string // that the value must have, as is; empty: none
	is     string
	set    func(to *T, v float64)
}

// fill puts the figures into their places. find returns the part that a value with such
// labels belongs to; nil: to none. JSON has no NaN and no infinity: these are left out.
func fill[T any](v view, figures []figure[T], find func(labels map[string]string) *T) {
	for _, f := range figures {
		for s := range v.values(f.metric) {
			if f.label != "" && s.Labels[f.label] != f.is || math.IsNaN(s.Value) || math.IsInf(s.Value, 0) {
				continue
			}
			if to := find(s.Labels); to != nil {
				f.set(to, s.Value)
			}
		}
	}
}

func workerFigures() []figure[Worker] {
	return []figure[Worker]{
		{metric: "prefork_worker_memory_bytes", set: func(w *Worker, v float64) { w.ResidentBytes = &v }},
		{metric: "prefork_worker_memory_pss_bytes", set: func(w *Worker, v float64) { w.PSSBytes = &v }},
		{metric: "prefork_worker_memory_uss_bytes", set: func(w *Worker, v float64) { w.USSBytes = &v }},
		{metric: "prefork_worker_threads", set: func(w *Worker, v float64) { w.Threads = &v }},
		{metric: "prefork_worker_open_fds", set: func(w *Worker, v float64) { w.OpenFDs = &v }},
		{metric: "prefork_worker_busy", set: func(w *Worker, v float64) { w.Busy = new(v == 1) }},
		{metric: "prefork_worker_heartbeat_age_seconds", set: func(w *Worker, v float64) { w.HeartbeatAgeSeconds = &v }},
		{metric: "prefork_worker_cpu_seconds_total", label: "mode", is: "user", set: func(w *Worker, v float64) { w.SlotUserSeconds = &v }},
		{metric: "prefork_worker_cpu_seconds_total", label: "mode", is: "system", set: func(w *Worker, v float64) { w.SlotSystemSeconds = &v }},
	}
}

func queueFigures() []figure[ListenQueue] {
	return []figure[ListenQueue]{
		{metric: "prefork_listen_queue_length", set: func(q *ListenQueue, v float64) { q.Length = &v }},
		{metric: "prefork_listen_queue_limit", set: func(q *ListenQueue, v float64) { q.Limit = &v }},
		{metric: "prefork_listen_queue_peak", set: func(q *ListenQueue, v float64) { q.Peak = &v }},
		{metric: "prefork_listen_queue_drops_total", set: func(q *ListenQueue, v float64) { q.Drops = &v }},
		{metric: "prefork_listen_queue_oldest_seconds", set: func(q *ListenQueue, v float64) { q.OldestSeconds = &v }},
		{metric: "prefork_listen_queue_wait_seconds_total", set: func(q *ListenQueue, v float64) { q.WaitSeconds = &v }},
		{metric: "prefork_listen_queue_full_seconds_total", set: func(q *ListenQueue, v float64) { q.FullSeconds = &v }},
	}
}

func fileFigures() []figure[MetricFiles] {
	return []figure[MetricFiles]{
		{metric: "prefork_up", set: func(f *MetricFiles, v float64) { f.Readable = new(v == 1) }},
		{metric: "prefork_multiproc_files", label: "state", is: "alive", set: func(f *MetricFiles, v float64) { f.Files = &v }},
		{metric: "prefork_multiproc_bytes", label: "state", is: "alive", set: func(f *MetricFiles, v float64) { f.Bytes = &v }},
		{metric: "prefork_multiproc_processes", label: "state", is: "alive", set: func(f *MetricFiles, v float64) { f.Processes = &v }},
		{metric: "prefork_multiproc_series", set: func(f *MetricFiles, v float64) { f.Series = &v }},
	}
}

func cgroupFigures() []figure[Cgroup] {
	return []figure[Cgroup]{
		{metric: "prefork_cgroup_memory_bytes", set: func(c *Cgroup, v float64) { c.MemoryBytes = &v }},
		{metric: "prefork_cgroup_memory_limit_bytes", set: func(c *Cgroup, v float64) { c.MemoryLimitBytes = &v }},
		{metric: "prefork_cgroup_oom_kills_total", set: func(c *Cgroup, v float64) { c.OOMKills = &v }},
		{metric: "prefork_cgroup_cpu_throttled_seconds_total", set: func(c *Cgroup, v float64) { c.ThrottledSeconds = &v }},
	}
}

// fillWorkers adds what the kernel tells of workers. Those values have a slot, in which
// there may be two, or another one by now: only who had that id then is meant.
func fillWorkers(workers []Worker, v view) {
	measured := map[string]float64{}
	for s := range v.values("prefork_worker_pid") {
		measured[s.Labels["worker_id"]] = s.Value
	}
	bySlot := map[string]*Worker{}
	for i, w := range workers {
		if measured[w.Slot] == float64(w.PID) {
			bySlot[w.Slot] = &workers[i]
		}
	}
	fill(v, workerFigures(), func(labels map[string]string) *Worker { return bySlot[labels["worker_id"]] })
}

// listenQueues returns the accept queues, by address; nil: none is known.
func listenQueues(v view) []ListenQueue {
	queues := map[string]*ListenQueue{}
	fill(v, queueFigures(), func(labels map[string]string) *ListenQueue {
		name := labels["listener"]
		if queues[name] == nil {
			queues[name] = &ListenQueue{Listener: name}
		}
		return queues[name]
	})
	var all []ListenQueue
	for _, name := range slices.Sorted(maps.Keys(queues)) {
		all = append(all, *queues[name])
	}
	return all
}

// metricFiles returns what is known of metric files, all together; nil: nobody looks for any.
func metricFiles(dirs []Directory, s *collector.Scrape) *MetricFiles {
	if len(dirs) == 0 {
		return nil
	}
	v := view{scrape: s}
	f := &MetricFiles{Directories: dirs}
	fill(v, fileFigures(), func(map[string]string) *MetricFiles { return f })
	for s := range v.values("prefork_multiproc_file_errors_total") {
		if f.Errors == nil {
			f.Errors = []ReasonCount{}
		}
		if s.Value > 0 {
			f.Errors = append(f.Errors, ReasonCount{s.Labels["reason"], s.Value})
		}
	}
	return f
}

// cgroup returns what is known of the control group; nil: nothing.
func cgroup(v view) *Cgroup {
	var known *Cgroup
	fill(v, cgroupFigures(), func(map[string]string) *Cgroup {
		if known == nil {
			known = &Cgroup{}
		}
		return known
	})
	return known
}

// Features returns what can be watched and what cannot, of all targets: by name, then labels.
func Features(scrape *collector.Scrape) []Feature {
	all := []Feature{}
	for s := range scrape.Values("prefork_feature_available") {
		all = append(all, Feature{Name: s.Labels["feature"], Labels: s.Target, Available: s.Value == 1, Reason: s.Labels["reason"]})
	}
	slices.SortStableFunc(all, func(a, b Feature) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), slices.Compare(pairs(a.Labels), pairs(b.Labels)))
	})
	return all
}

// pairs returns names and values in turn, in the order of the names.
func pairs(labels map[string]string) (all []string) {
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		all = append(all, name, labels[name])
	}
	return all
}

// failures returns the collectors that have failed, by name.
func failures(scrape *collector.Scrape) []Failure {
	all := []Failure{}
	for s := range scrape.Values("prefork_scrape_collector_success") {
		if s.Value == 0 {
			all = append(all, Failure{s.Labels["collector"]})
		}
	}
	return all
}
