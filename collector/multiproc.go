package collector

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"golang.org/x/sync/singleflight"

	"github.com/prefork-exporter/prefork_exporter/multiproc"
	"github.com/prefork-exporter/prefork_exporter/registry"
)

// Multiproc merges the workers' metric files. Scrapes that come while a merge
// runs share it. A merge has its own deadline, so that a client that goes away
// does not cut the others' short.
type Multiproc struct {
	// NoDirectory says why there is no metric directory at all; MastersThere says whether
	// every master is there. Set them before the first use; nil: nothing is known of that.
	NoDirectory  func() string
	MastersThere func() bool

	merger  *multiproc.Merger
	timeout time.Duration
	flight  singleflight.Group
	took    prometheus.Histogram // without a name: durations has it
	dropped [formats]atomic.Uint64

	up, files, bytes, processes, series, duration, errors, lost, feature Descriptor
}

// format is a format of the exposition, as far as it can drop samples.
type format int

const (
	formatText format = iota
	formatOpenMetrics
	formatProtobuf
	formats
)

func (f format) String() string { return [...]string{"text", "openmetrics", "protobuf"}[f] }

// NewMultiproc returns the collector of what m merges, within timeout.
func NewMultiproc(m *multiproc.Merger, timeout time.Duration) *Multiproc {
	duration := Describe("prefork_multiproc_merge_seconds")
	return &Multiproc{
		merger:    m,
		timeout:   timeout,
		duration:  duration,
		took:      prometheus.NewHistogram(prometheus.HistogramOpts{Buckets: duration.definition.Buckets}),
		up:        Describe("prefork_up"),
		files:     Describe("prefork_multiproc_files"),
		bytes:     Describe("prefork_multiproc_bytes"),
		processes: Describe("prefork_multiproc_processes"),
		series:    Describe("prefork_multiproc_series"),
		errors:    Describe("prefork_multiproc_file_errors_total"),
		lost:      Describe("prefork_multiproc_dropped_samples_total"),
		feature:   Describe("prefork_feature_available"),
	}
}

// Refused says whether metric files may not use a name: the exporter's own names, but
// for those of families that come from files and that are not observed.
func Refused(observed ...string) func(name string) bool {
	fromFiles := map[string]bool{}
	for _, d := range registry.Definitions() {
		if d.MayBeInFiles() && !slices.Contains(observed, d.Name) {
			addNames(fromFiles, d.Name)
		}
	}
	return func(name string) bool {
		return len(name) >= len(registry.Prefix) && name[:len(registry.Prefix)] == registry.Prefix && !fromFiles[name]
	}
}

// Shadowed says whether a name is that of a family that is observed, or is read and never
// shown.
func Shadowed(observed ...string) func(name string) bool {
	names := map[string]bool{registry.WorkerSlot: true}
	for _, family := range observed {
		addNames(names, family)
	}
	return func(name string) bool { return names[name] }
}

// addNames adds the names that a family and its samples may have in a file.
func addNames(names map[string]bool, family string) {
	for _, suffix := range []string{"", "_bucket", "_sum", "_count", "_total"} {
		names[family+suffix] = true
	}
	names[strings.TrimSuffix(family, "_total")] = true // as files call a counter's family
}

// Describe implements [Collector].
func (c *Multiproc) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []Descriptor{c.up, c.files, c.bytes, c.processes, c.series, c.duration, c.errors, c.lost, c.feature} {
		ch <- d.Desc
	}
}

// Update implements [Collector].
func (c *Multiproc) Update(ctx context.Context, out *Output) error {
	snapshot, err := c.merge(ctx)
	if err == nil {
		out.Merge(snapshot)
		out.Add(gauge(c.series, float64(snapshot.Series)))
	}
	c.stats(out)
	return err
}

// Merge makes a merge without a scrape, or takes part in the running one.
func (c *Multiproc) Merge(ctx context.Context) error {
	_, err := c.merge(ctx)
	return err
}

// merge waits for a merge, the running one or a new one.
func (c *Multiproc) merge(ctx context.Context) (*multiproc.Snapshot, error) {
	shared := c.flight.DoChan("merge", func() (snapshot any, err error) {
		defer func() {
			if p := recover(); p != nil { // the flight would end the program
				err = fmt.Errorf("merge metric files: panic: %v\n%s", p, debug.Stack())
			}
		}()
		ctx, cancel := context.WithTimeout(context.Background(), c.timeout)
		defer cancel()
		start := time.Now()
		defer func() { c.took.Observe(time.Since(start).Seconds()) }()
		return c.merger.Merge(ctx)
	})
	select {
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for the merge of metric files: %w", ctx.Err())
	case r := <-shared:
		snapshot, _ := r.Val.(*multiproc.Snapshot)
		return snapshot, r.Err
	}
}

// stats adds what is known of the files. All count as alive until there are
// proofs of death.
func (c *Multiproc) stats(out *Output) {
	st := c.merger.Stats()
	reason := ""
	switch {
	case !st.Readable:
		reason = "a metric directory cannot be listed"
	case st.Sources == 0 && c.NoDirectory != nil:
		reason = c.NoDirectory()
	}
	stateReason := ""
	switch {
	case errors.Is(st.State, multiproc.ErrNoState):
		stateReason = "no state directory is known: --state.dir names one"
	case st.State != nil:
		stateReason = "the state directory cannot be written"
	}
	out.Add(
		gauge(c.up, boolean(st.Readable && (c.MastersThere == nil || c.MastersThere()))),
		gauge(c.feature, boolean(st.State == nil), "state", stateReason),
		gauge(c.feature, boolean(reason == ""), "multiproc", reason),
		gauge(c.feature, 0, "liveness", "every process counts as alive in this version"),
		gauge(c.files, float64(st.Files), "alive"),
		gauge(c.bytes, float64(st.Bytes), "alive"),
		gauge(c.processes, float64(st.Processes), "alive"),
	)
	out.AddFamilies(c.durations())
	for _, r := range multiproc.Reasons() {
		out.Add(counter(c.errors, float64(st.Errors[r]), r.String()))
	}
	for f := range formats {
		out.Add(counter(c.lost, float64(c.dropped[f].Load()), f.String()))
	}
}

// durations returns the family of the merges' durations. A registry would check
// in every scrape that it is a histogram.
func (c *Multiproc) durations() *dto.MetricFamily {
	d := c.duration.definition
	m := &dto.Metric{}
	_ = c.took.Write(m) // has no error of its own
	return &dto.MetricFamily{Name: &d.Name, Help: &d.Help, Type: dto.MetricType_HISTOGRAM.Enum(), Metric: []*dto.Metric{m}}
}

// drop counts samples that a format could not hold.
func (c *Multiproc) drop(f format, n int) { c.dropped[f].Add(uint64(n)) }
