package registry

func multiproc() []Definition {
	return []Definition{{
		Name: "prefork_up", Type: Gauge, Source: Observed, Stability: Stable,
		Help: "Whether every master is there and every metric directory could be read (1) or not (0).",
	}, {
		Name: "prefork_multiproc_files", Type: Gauge, Labels: []string{"state"}, Source: Observed, Stability: Stable,
		Help: "Metric files in the directories, by the state of their process.",
	}, {
		Name: "prefork_multiproc_bytes", Type: Gauge, Unit: "bytes", Labels: []string{"state"}, Source: Observed, Stability: Stable,
		Help: "Bytes of entries in the metric files, by the state of their process.",
	}, {
		Name: "prefork_multiproc_processes", Type: Gauge, Labels: []string{"state"}, Source: Observed, Stability: Stable,
		Help: "Processes that have metric files, by state.",
	}, {
		Name: "prefork_multiproc_series", Type: Gauge, Source: Observed, Stability: Stable,
		Help: "Label sets of the merged families.",
	}, {
		Name: "prefork_multiproc_file_errors_total", Type: Counter, Labels: []string{"reason"}, Source: Observed, Stability: Stable,
		Help: "Metric files that could not be used, or not all of them: one for each file and merge; clashes between files once.",
	}, {
		Name: "prefork_multiproc_merge_seconds", Type: Histogram, Unit: "seconds", Source: Observed, Stability: Stable,
		Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		Help:    "Time that merges of the metric files took.",
	}, {
		Name: "prefork_multiproc_dropped_samples_total", Type: Counter, Labels: []string{"format"}, Source: Observed, Stability: Stable,
		Help: "Merged samples that the format of a scrape could not hold.",
	}}
}

func scrape() []Definition {
	return []Definition{{
		Name: "prefork_scrape_collector_success", Type: Gauge, Labels: []string{"collector"}, Source: Observed, Stability: Stable,
		Help: "Whether the collector gave all it has to this scrape.",
	}, {
		Name: "prefork_scrape_collector_duration_seconds", Type: Gauge, Unit: "seconds", Labels: []string{"collector"},
		Source: Observed, Stability: Stable,
		Help: "Time that the collector took for this scrape.",
	}, {
		Name: "prefork_feature_available", Type: Gauge, Labels: []string{"feature", "reason"}, Source: Observed, Stability: Stable,
		Help: "Whether a feature can be had here (1), or why not (0).",
	}}
}

func exporter() []Definition {
	return []Definition{{
		Name: "prefork_exporter_build_info", Type: Gauge, Source: Observed, Stability: Stable,
		Labels: []string{"branch", "goarch", "goos", "goversion", "revision", "tags", "version"},
		Help:   "A constant 1, labelled by what the exporter was built from.",
	}, {
		Name: "prefork_exporter_config_last_reload_successful", Type: Gauge, Source: Observed, Stability: Stable,
		Help: "Whether the configuration file was taken over when it was last read (1) or the one before stays (0).",
	}, {
		Name: "prefork_exporter_config_last_reload_success_timestamp_seconds", Type: Gauge, Unit: "seconds",
		Source: Observed, Stability: Stable,
		Help: "When a configuration was last taken over, in seconds since the epoch.",
	}, {
		Name: "prefork_exporter_go_info", Type: Gauge, Labels: []string{"version"}, Source: Observed, Stability: Stable,
		Help: "A constant 1, labelled by the Go version that the exporter was built with.",
	}, {
		Name: "prefork_exporter_go_goroutines", Type: Gauge, Source: Observed, Stability: Stable,
		Help: "Goroutines of the exporter.",
	}, {
		Name: "prefork_exporter_go_gc_cycles_total", Type: Counter, Source: Observed, Stability: Stable,
		Help: "Garbage collections of the exporter.",
	}, {
		Name: "prefork_exporter_go_heap_objects_bytes", Type: Gauge, Unit: "bytes", Source: Observed, Stability: Stable,
		Help: "Memory of the exporter's objects on the heap, living ones and those not yet collected.",
	}, {
		Name: "prefork_exporter_go_memory_bytes", Type: Gauge, Unit: "bytes", Source: Observed, Stability: Stable,
		Help: "Memory that the Go runtime has mapped for the exporter.",
	}, {
		Name: "prefork_exporter_go_gomaxprocs", Type: Gauge, Source: Observed, Stability: Stable,
		Help: "Processors that the exporter uses at the same time.",
	}, {
		Name: "prefork_exporter_process_cpu_seconds_total", Type: Counter, Unit: "seconds", Source: Observed, Stability: Stable,
		Help: "Processor time that the exporter has used, in user and system mode.",
	}, {
		Name: "prefork_exporter_process_resident_memory_bytes", Type: Gauge, Unit: "bytes", Source: Observed, Stability: Stable,
		Help: "Resident memory of the exporter.",
	}, {
		Name: "prefork_exporter_process_virtual_memory_bytes", Type: Gauge, Unit: "bytes", Source: Observed, Stability: Stable,
		Help: "Virtual memory of the exporter.",
	}, {
		Name: "prefork_exporter_process_open_fds", Type: Gauge, Source: Observed, Stability: Stable,
		Help: "File descriptors that the exporter has open.",
	}, {
		Name: "prefork_exporter_process_max_fds", Type: Gauge, Source: Observed, Stability: Stable,
		Help: "File descriptors that the exporter may have open.",
	}, {
		Name: "prefork_exporter_process_start_time_seconds", Type: Gauge, Unit: "seconds", Source: Observed, Stability: Stable,
		Help: "When the exporter began, in seconds since the epoch.",
	}}
}
