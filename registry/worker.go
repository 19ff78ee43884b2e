package registry

// requests are what workers write into their files.
func requests() []Definition {
	failed := []string{"worker_id", "method", "endpoint", "error_type"}
	sizes := []float64{1 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20, 4 << 20}
	return []Definition{{
		Name: "prefork_worker_requests_total", Type: Counter, Labels: []string{"worker_id"}, Source: File, Stability: Stable,
		Help: "Requests that the worker has served, failed ones included.",
	}, {
		Name: "prefork_worker_request_duration_seconds", Type: Histogram, Unit: "seconds", Labels: []string{"worker_id"},
		Source: File, Stability: Stable, Buckets: []float64{.1, .5, 1, 2.5, 5, 10, 30, 60},
		Help: "Time that the worker took to serve a request.",
	}, {
		Name: "prefork_worker_failed_requests_total", Type: Counter, Labels: failed, Source: File, Stability: Stable,
		Help: "Requests that failed: by a panic, an exception or a server error. Endpoints are route patterns.",
	}, {
		Name: "prefork_worker_error_handling_total", Type: Counter, Labels: failed, Source: File, Stability: Stable,
		Help: "Errors that the server or the application handled.",
	}, {
		Name: "prefork_worker_request_size_bytes", Type: Histogram, Unit: "bytes", Labels: []string{"worker_id"},
		Source: File, Stability: Stable, Buckets: sizes,
		Help: "Bytes of request bodies.",
	}, {
		Name: "prefork_worker_response_size_bytes", Type: Histogram, Unit: "bytes", Labels: []string{"worker_id"},
		Source: File, Stability: Stable, Buckets: sizes,
		Help: "Bytes of response bodies.",
	}, {
		Name: "prefork_worker_requests_in_progress", Type: Gauge, Mode: "livesum", Labels: []string{"worker_id"},
		Source: File, Stability: Stable,
		Help: "Requests that the worker is serving.",
	}, {
		Name: "prefork_worker_request_queue_seconds", Type: Histogram, Unit: "seconds", Labels: []string{"worker_id"},
		Source: File, Stability: Stable, Buckets: []float64{.001, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60},
		Help: "Time between the proxy's X-Request-Start and the worker's start.",
	}}
}

// workers are what is measured of each worker.
func workers() []Definition {
	perWorker := func(d Definition) Definition {
		d.Labels = append([]string{"worker_id"}, d.Labels...)
		d.Source = Observed
		if d.InFiles {
			d.Stability, d.Mode = Stable, "livemostrecent"
		}
		if d.Stability == "" {
			d.Stability = Planned
		}
		return d
	}
	all := []Definition{{
		Name: "prefork_worker_memory_bytes", Type: Gauge, Unit: "bytes", InFiles: true,
		Help: "Resident memory of the worker.",
	}, {
		Name: "prefork_worker_memory_pss_bytes", Type: Gauge, Unit: "bytes", Stability: Stable,
		Help: "Proportional set size of the worker: what it shares counts in part.",
	}, {
		Name: "prefork_worker_memory_uss_bytes", Type: Gauge, Unit: "bytes", Stability: Stable,
		Help: "Unique set size of the worker: what would be free without it.",
	}, {
		Name: "prefork_worker_cpu_seconds_total", Type: Counter, Unit: "seconds", Labels: []string{"mode"}, Stability: Stable,
		Help: "Processor time that the slot's workers have used, by mode.",
	}, {
		Name: "prefork_worker_context_switches_total", Type: Counter, Labels: []string{"type"}, Stability: Stable,
		Help: "Context switches of the slot's workers, by type; of threads that have ended, as last seen.",
	}, {
		Name: "prefork_worker_uptime_seconds", Type: Gauge, Unit: "seconds", InFiles: true,
		Help: "Time since the worker began.",
	}, {
		Name: "prefork_worker_threads", Type: Gauge, Stability: Stable,
		Help: "Threads of the worker.",
	}, {
		Name: "prefork_worker_open_fds", Type: Gauge, Stability: Stable,
		Help: "File descriptors that the worker has open.",
	}, {
		Name: "prefork_worker_pid", Type: Gauge, Stability: Stable,
		Help: "The worker's process id.",
	}, {
		Name: "prefork_worker_busy", Type: Gauge, Stability: Stable,
		Help: "Whether the worker owes a client the begin of a response (1) or not (0).",
	}, {
		Name: "prefork_worker_heartbeat_age_seconds", Type: Gauge, Unit: "seconds", Stability: Stable,
		Help: "Time since the worker last gave its master a sign of life.",
	}, {
		Name: "prefork_worker_cpu_percent", Type: Gauge, InFiles: true,
		Help: "Processor time of the worker in a window, as percent of one core.",
	}, {
		Name: "prefork_worker_state", Type: Gauge, Labels: []string{"state"}, InFiles: true,
		Help: "Whether the worker is in the state (1) or not (0).",
	}}
	for i := range all {
		all[i] = perWorker(all[i])
	}
	return all
}

// workerSet is what is measured of all workers together.
func workerSet() []Definition {
	return []Definition{{
		Name: "prefork_workers", Type: Gauge, Labels: []string{"state"}, Source: Parent, Stability: Stable,
		Help: "Living workers, by state.",
	}, {
		Name: "prefork_workers_target", Type: Gauge, Source: Parent, Stability: Stable,
		Help: "Workers that there should be.",
	}, {
		Name: "prefork_workers_busy_seconds_total", Type: Counter, Unit: "seconds", Source: Observed, Stability: Stable,
		Help: "Time that workers were busy, all together: its rate is how many are on average.",
	}, {
		Name: "prefork_workers_saturated_seconds_total", Type: Counter, Unit: "seconds", Source: Observed, Stability: Stable,
		Help: "Time in which every running worker was busy, and there was one.",
	}, {
		Name: "prefork_worker_exits_total", Type: Counter, Labels: []string{"code", "signal"}, Source: Parent, Stability: Stable,
		Help: "Deaths of workers, by exit code or signal.",
	}}
}

// restarts are why workers had to be replaced.
func restarts() []Definition {
	return []Definition{{
		Name: "prefork_worker_restart_total", Type: Counter, Labels: []string{"worker_id", "reason"},
		Source: Parent, InFiles: true, Stability: Stable,
		Help: "Restarts of workers, by slot and reason.",
	}, {
		Name: "prefork_worker_restart_count_total", Type: Counter, Labels: []string{"worker_id", "restart_type", "reason"},
		Source: Parent, InFiles: true, Stability: Stable,
		Help: "Restarts of workers, by slot, graceful or forced, and reason.",
	}, {
		Name: "prefork_master_worker_restart_total", Type: Counter, Labels: []string{"reason"},
		Source: Parent, InFiles: true, Stability: Stable,
		Help: "Restarts of workers by their master, by reason.",
	}, {
		Name: "prefork_master_worker_restart_count_total", Type: Counter, Labels: []string{"worker_id", "restart_type", "reason"},
		Source: Parent, InFiles: true, Stability: Stable,
		Help: "Restarts of workers by their master, by slot, graceful or forced, and reason.",
	}, {
		Name: "prefork_restart_backoff_seconds", Type: Gauge, Unit: "seconds", Source: Parent, Stability: Stable,
		Help: "How long the next restart of a worker, or of the server that run keeps, waits.",
	}, {
		Name: "prefork_restart_loop", Type: Gauge, Source: Parent, Stability: Stable,
		Help: "Whether workers, or the server that run keeps, die as soon as they start (1) or not (0).",
	}}
}

func master() []Definition {
	return []Definition{{
		Name: "prefork_master_restarts_total", Type: Counter, Labels: []string{"reason"}, Source: Parent, Stability: Stable,
		Help: "Restarts of the master, by reason; reload: it was replaced by a newer program.",
	}, {
		Name: "prefork_master_reloads_total", Type: Counter, Labels: []string{"result"}, Source: Parent, Stability: Stable,
		Help: "Reloads of the master, by result.",
	}, {
		Name: "prefork_master_signals_total", Type: Counter, Labels: []string{"signal"}, Source: Parent, Stability: Stable,
		Help: "Signals that the operator has sent to the master.",
	}, {
		Name: "prefork_master_start_time_seconds", Type: Gauge, Unit: "seconds", Source: Parent, Stability: Stable,
		Help: "When the master began, in seconds since the epoch.",
	}}
}

// cgroup is what is measured of the watched server's control group, or of the exporter's
// own where it has started none.
func cgroup() []Definition {
	all := []Definition{{
		Name: "prefork_cgroup_oom_kills_total", Type: Counter,
		Help: "Processes of the server's control group that the kernel killed for want of memory; in version 2 of those below it, too.",
	}, {
		Name: "prefork_cgroup_memory_bytes", Type: Gauge, Unit: "bytes",
		Help: "Memory of the server's control group and those below it, page cache included.",
	}, {
		Name: "prefork_cgroup_memory_limit_bytes", Type: Gauge, Unit: "bytes",
		Help: "Memory that the server's control group may have, by a limit of its own, not of one above it; absent without.",
	}, {
		Name: "prefork_cgroup_cpu_throttled_seconds_total", Type: Counter, Unit: "seconds",
		Help: "Time that the server's control group was held back by a processor limit of its own, all processors together.",
	}}
	for i := range all {
		all[i].Source, all[i].Stability = Observed, Stable
	}
	return all
}

// listenQueue is what is measured of each address that a server listens on. An address
// may have several sockets (SO_REUSEPORT).
func listenQueue() []Definition {
	all := []Definition{{
		Name: "prefork_listen_queue_length", Type: Gauge,
		Help: "Connections that wait to be accepted, at all sockets of the address.",
	}, {
		Name: "prefork_listen_queue_limit", Type: Gauge,
		Help: "Connections that may wait to be accepted, at all sockets of the address; each takes one more.",
	}, {
		Name: "prefork_listen_queue_drops_total", Type: Counter,
		Help: "Connections that were dropped because too many waited, each time that a client tried.",
	}, {
		Name: "prefork_listen_queue_oldest_seconds", Type: Gauge, Unit: "seconds",
		Help: "How long the connection that has waited longest has waited, since its last data if it has sent any.",
	}, {
		Name: "prefork_listen_queue_wait_seconds_total", Type: Counter, Unit: "seconds",
		Help: "Time that connections have waited, all together: its rate is how many wait on average.",
	}, {
		Name: "prefork_listen_queue_full_seconds_total", Type: Counter, Unit: "seconds",
		Help: "Time in which a socket of the address took no more connections.",
	}, {
		Name: "prefork_listen_queue_peak", Type: Gauge,
		Help: "Most connections that waited at the same time in the last 15 seconds.",
	}}
	for i := range all {
		all[i].Labels, all[i].Source, all[i].Stability = []string{"listener"}, Observed, Stable
	}
	return all
}

func usage() []Definition {
	return []Definition{{
		Name: "prefork_usage_events_total", Type: Counter, Labels: []string{"event"}, Source: Observed, Stability: Planned,
		Help: "Events that were tracked.",
	}, {
		Name: "prefork_usage_event_value_sum", Type: Gauge, Labels: []string{"event"}, Source: Observed, Stability: Planned,
		Help: "Values of the tracked events, added up.",
	}, {
		Name: "prefork_usage_event_uniques", Type: Gauge, Labels: []string{"event", "window"}, Source: Observed, Stability: Planned,
		Help: "Different users or things with the event in the window.",
	}}
}
