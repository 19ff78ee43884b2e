package collector

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"runtime/debug"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/prefork-exporter/prefork_exporter/multiproc"
)

// Set runs collectors side by side. One that fails, hangs or panics costs its
// own metrics only.
type Set struct {
	log        *slog.Logger
	collectors map[string]Collector
	timeout    time.Duration
	success    Descriptor
	duration   Descriptor
}

// NewSet returns the set of those collectors, by name. timeout bounds every scrape.
func NewSet(log *slog.Logger, collectors map[string]Collector, timeout time.Duration) *Set {
	return &Set{
		log: log, collectors: collectors, timeout: timeout,
		success:  Describe("prefork_scrape_collector_success"),
		duration: Describe("prefork_scrape_collector_duration_seconds"),
	}
}

// Names returns the names of the collectors, sorted.
func (s *Set) Names() []string { return slices.Sorted(maps.Keys(s.collectors)) }

// Scrape is what the collectors had.
type Scrape struct {
	Merged *multiproc.Snapshot // nil: none

	own  []value             // of the catalogue, by family and labels
	rest []*dto.MetricFamily // that are of no catalogue, or of more than one number
}

// Families returns the exporter's own families, sorted by name.
func (s *Scrape) Families() []*dto.MetricFamily {
	families := slices.Clone(s.rest)
	for i, v := range s.own {
		if i == 0 || !v.isOf(s.own[i-1]) {
			families = append(families, v.family())
		}
		f := families[len(families)-1]
		f.Metric = append(f.Metric, v.metric())
	}
	slices.SortFunc(families, byName)
	return families
}

func byName(a, b *dto.MetricFamily) int { return cmp.Compare(a.GetName(), b.GetName()) }

// result is what one collector had.
type result struct {
	name   string
	out    *Output
	err    error
	passed time.Duration
}

// Gather runs the collectors of those names, all of them at the same time, and
// returns what they have given when all are done or the time is over. The error
// tells of families that contradict each other; what is right is there.
func (s *Set) Gather(ctx context.Context, names []string) (*Scrape, error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	start := time.Now()
	results := make(chan result, len(names)) // room for those that come too late
	for _, name := range names {
		go func() { results <- s.run(ctx, name) }()
	}
	all := &Output{}
	waiting := map[string]bool{}
	for _, name := range names {
		waiting[name] = true
	}
	for len(waiting) > 0 {
		select {
		case r := <-results:
			delete(waiting, r.name)
			s.take(all, r)
			continue
		default:
		}
		select {
		case r := <-results:
			delete(waiting, r.name)
			s.take(all, r)
		case <-ctx.Done():
			s.giveUp(ctx, all, waiting, time.Since(start))
		}
	}
	return scrape(all)
}

// giveUp takes the collectors that are waited for as failed.
func (s *Set) giveUp(ctx context.Context, all *Output, waiting map[string]bool, passed time.Duration) {
	for _, name := range slices.Sorted(maps.Keys(waiting)) {
		s.take(all, result{name: name, out: &Output{}, err: ctx.Err(), passed: passed})
	}
	clear(waiting)
}

// run runs one collector. A panic is an error of its own.
func (s *Set) run(ctx context.Context, name string) (r result) {
	start := time.Now()
	r = result{name: name, out: &Output{}}
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("collector panicked", "collector", name, "panic", p, "stack", string(debug.Stack()))
			r.out, r.err = &Output{}, fmt.Errorf("panic: %v", p)
		}
		r.passed = time.Since(start)
	}()
	r.err = s.collectors[name].Update(ctx, r.out)
	return r
}

// take adds one collector's result to all.
func (s *Set) take(all *Output, r result) {
	if r.err != nil {
		s.log.Warn("collector failed", "collector", r.name, "err", r.err, "after", r.passed)
	}
	all.Add(r.out.metrics...)
	all.AddFamilies(r.out.families...)
	if r.out.merged != nil {
		all.Merge(r.out.merged)
	}
	all.Add(gauge(s.success, boolean(r.err == nil), r.name), gauge(s.duration, r.passed.Seconds(), r.name))
}

// scrape sorts what there is. What is not of the catalogue is checked.
func scrape(all *Output) (*Scrape, error) {
	s := &Scrape{Merged: all.merged, own: make([]value, 0, len(all.metrics))}
	rest := &Output{}
	for _, m := range all.metrics {
		if v, ok := m.(value); ok {
			s.own = append(s.own, v)
		} else {
			rest.Add(m)
		}
	}
	slices.SortFunc(s.own, value.compare) // collectors end in any order
	families, err := rest.checked()
	s.rest = slices.SortedFunc(slices.Values(slices.Concat(families, all.families)), byName)
	return s, err
}

// checked returns the families of the metrics, as far as they do not
// contradict each other.
func (o *Output) checked() ([]*dto.MetricFamily, error) {
	if len(o.metrics) == 0 {
		return nil, nil
	}
	r := prometheus.NewRegistry()
	if err := r.Register(o); err != nil {
		return nil, fmt.Errorf("gather: %w", err)
	}
	families, err := r.Gather()
	if err != nil {
		return families, fmt.Errorf("gather: %w", err)
	}
	return families, nil
}
