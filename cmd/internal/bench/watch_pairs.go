package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"
)

const (
	// fewestPairs give an interval that says something.
	fewestPairs = 5
	// pairWorkers is how many workers wrk's requests go to: wrk and the sidecar have the same processors.
	pairWorkers = 2
	// pairWarmUp is how long wrk sends requests that are not measured, before each run.
	pairWarmUp = 500 * time.Millisecond
	// pairScrape is how often the sidecar is scraped meanwhile.
	pairScrape = time.Second
)

// pairsResult is how many requests gunicorn answered with a sidecar, and without, in turns.
type pairsResult struct {
	plain, watched []float64 // a second; the runs of a pair have the same index
	seconds        float64   // of one run
	failed         int
	cpu            time.Duration // of the sidecar, in all its runs
	load           under
}

// measurePairs lets gunicorn answer wrk with the sidecar and without it, next to each other. Who comes first
// changes from pair to pair.
func (b *bench) measurePairs(ctx context.Context) (err error) {
	s, err := b.startServer(ctx, pairWorkers)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	r := pairsResult{seconds: b.options.pairTime.Seconds(), load: beginUnder()}
	for i := range b.options.pairs {
		runs := []func(context.Context, *server, *pairsResult) error{b.runPlain, b.runWatched}
		for j := range runs {
			if err := runs[(i+j)%len(runs)](ctx, s, &r); err != nil {
				return fmt.Errorf("pair %d: %w", i+1, err)
			}
		}
	}
	r.load = r.load.end()
	b.report.pairs = &r
	return nil
}

func (b *bench) runPlain(ctx context.Context, s *server, r *pairsResult) error {
	rest := func() error { return waitUntil(ctx, time.Now().Add(b.options.pairTime)) }
	w, err := b.warmRun(ctx, s, rest)
	r.plain, r.failed = append(r.plain, w.perSecond), r.failed+w.failed()
	return err
}

func (b *bench) runWatched(ctx context.Context, s *server, r *pairsResult) (err error) {
	m, err := b.sidecar(ctx, s, pairWorkers)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.close()) }()
	w, err := b.warmRun(ctx, s, func() error {
		before, err := cpuTime(m.pid())
		if err != nil {
			return err
		}
		if err := m.scrapeFor(ctx, b.options.pairTime); err != nil {
			return err
		}
		after, err := cpuTime(m.pid())
		r.cpu += after - before
		return err
	})
	r.watched, r.failed = append(r.watched, w.perSecond), r.failed+w.failed()
	return err
}

// warmRun has wrk send requests for as long as during takes, after some that are not measured.
func (b *bench) warmRun(ctx context.Context, s *server, during func() error) (wrkResult, error) {
	url := "http://" + s.addr + "/"
	if _, err := b.wrk(ctx, url, func() error { return waitUntil(ctx, time.Now().Add(pairWarmUp)) }); err != nil {
		return wrkResult{}, err
	}
	w, err := b.wrk(ctx, url, during)
	if err == nil && w.perSecond == 0 {
		err = errors.New("no request was answered")
	}
	return w, err
}

// scrapeFor scrapes as Prometheus does for so long, each time in the middle of an interval.
func (m *master) scrapeFor(ctx context.Context, long time.Duration) error {
	end := time.Now().Add(long)
	for due := time.Now().Add(min(pairScrape, long) / 2); due.Before(end); due = due.Add(pairScrape) {
		if err := waitUntil(ctx, due); err != nil {
			return err
		}
		if _, err := m.scrape(ctx, gzipped); err != nil {
			return err
		}
	}
	return waitUntil(ctx, end)
}

// interval is a mean, and the bounds between which it is by 95 %.
type interval struct{ mean, low, high float64 }

// ratioInterval returns the geometric mean of the ratios of pairs, and its interval by Student's t: the logarithms
// of ratios are spread alike on both sides, ratios are not. It wants two pairs at least.
func ratioInterval(of, to []float64) interval {
	n := float64(len(of))
	if len(of) < 2 || len(of) != len(to) {
		return interval{math.NaN(), math.NaN(), math.NaN()}
	}
	mean, squares := 0.0, 0.0
	for i := range of {
		mean += math.Log(of[i]/to[i]) / n
	}
	for i := range of {
		d := math.Log(of[i]/to[i]) - mean
		squares += d * d
	}
	margin := student975(n-1) * math.Sqrt(squares/(n-1)/n)
	return interval{math.Exp(mean), math.Exp(mean - margin), math.Exp(mean + margin)}
}

// student975 returns what Student's t exceeds in 2.5 % of all cases, by Abramowitz and Stegun 26.7.5: with five
// terms it is 0.1 % off for 4 degrees of freedom, and less for more.
func student975(freedom float64) float64 {
	const x = 1.959963984540054 // of the normal distribution
	const x3, x5, x7, x9 = x * x * x, x * x * x * x * x, x * x * x * x * x * x * x, x * x * x * x * x * x * x * x * x
	v := freedom
	return x + (x3+x)/(4*v) + (5*x5+16*x3+3*x)/(96*v*v) + (3*x7+19*x5+17*x3-15*x)/(384*v*v*v) +
		(79*x9+776*x7+1482*x5-1920*x3-945*x)/(92160*v*v*v*v)
}

// mean returns the arithmetic mean; NaN of none.
func mean(values []float64) float64 {
	sum := 0.0
	for _, v := range values {
		sum += v
	}
	return sum / float64(len(values))
}
