// Package registry has the metrics of workers and masters, ready to count:
//
//	metrics, err := registry.Shared("") // $PROMETHEUS_MULTIPROC_DIR
//	if err != nil {
//		log.Fatal(err)
//	}
//	defer metrics.Close()
//	metrics.WorkerRequests.WithLabelValues(metrics.Worker()).Inc()
//
// Package middleware counts those of requests by itself.
//
// It is also the catalogue: the definition of every metric that prefork_exporter
// exposes or reads, once, as data. The code, the documents and the tests of
// dashboards and rules take names and help from here.
package registry

import "slices"

// Type is a metric's type.
type Type string

// The types.
const (
	Counter   Type = "counter"
	Gauge     Type = "gauge"
	Histogram Type = "histogram"
)

// Source says who knows the value.
type Source string

const (
	// File is written by workers into their metric files.
	File Source = "file"
	// Observed is measured by the exporter from outside.
	Observed Source = "observed"
	// Parent is counted by the parent of run and supervise, or else observed.
	Parent Source = "parent"
)

// Stability says what a user may rely on.
type Stability string

const (
	// Stable names, labels and meanings change with a major version only.
	Stable Stability = "stable"
	// Experimental metrics may change with any version.
	Experimental Stability = "experimental"
	// Planned metrics have their name and their meaning, and nothing measures them yet.
	Planned Stability = "planned"
)

// Definition describes one metric family.
type Definition struct {
	Name      string
	Help      string
	Type      Type
	Unit      string   // base unit, empty for plain numbers
	Labels    []string // in the order of their values
	Buckets   []float64
	Mode      string // of a gauge that may be in files: its multiprocess mode
	Source    Source
	InFiles   bool // workers, or masters other than ours, may write it where its source is not File
	Stability Stability
}

// MayBeInFiles says whether metric files may have the family.
func (d Definition) MayBeInFiles() bool { return d.Source == File || d.InFiles }

// Definitions returns all definitions, sorted by name. The caller may change
// the list.
func Definitions() []Definition {
	all := slices.Concat(
		multiproc(), scrape(), exporter(), requests(), workers(), workerSet(), restarts(), master(), cgroup(), listenQueue(), usage(),
	)
	slices.SortFunc(all, func(a, b Definition) int {
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
	return all
}

// Find returns the definition of that name.
func Find(name string) (Definition, bool) {
	all := Definitions()
	at := slices.IndexFunc(all, func(d Definition) bool { return d.Name == name })
	if at < 0 {
		return Definition{}, false
	}
	return all[at], true
}

// Prefix begins the name of every family of ours.
const Prefix = "prefork_"
