package main

import (
	"fmt"
	"strings"
	"time"
)

// The targets of watch.
const (
	largestSidecar    = 25 << 20
	mostRestPercent   = 0.5 // of one core
	longestCrowd      = 50 * time.Millisecond
	longestUntilKnown = 100 * time.Millisecond
	leastThroughput   = 0.97
)

func (r *report) writeRest(b *strings.Builder) {
	s := r.rest
	if s == nil {
		return
	}
	fmt.Fprintf(b, "\n| watch, %d workers of %s at rest, %d merged series | seconds | scrapes | CPU, %% of a core | RSS MiB | RSS at the end | peak MiB |\n"+
		"|---|--:|--:|--:|--:|--:|--:|\n| all collectors, %v | %.0f | %d | %s | %s | %s | %s |\n\n", s.workers, s.server, s.series,
		s.load, s.window.Seconds(), s.scrapes, number(s.percent()), mebibytes(s.memory.rss), mebibytes(s.atEnd.rss), mebibytes(s.memory.peak))
	fmt.Fprintf(b, "- the sidecar in at most 25 MiB: %s MiB: %s\n", mebibytes(s.memory.rss), verdict(0, s.memory.rss <= largestSidecar))
	fmt.Fprintf(b, "- less than %g %% of a core: %s %%: %s\n", mostRestPercent, number(s.percent()), verdict(s.percent(), s.percent() < mostRestPercent))
}

func (r *report) writeCrowd(b *strings.Builder) {
	s := r.crowd
	if s == nil {
		return
	}
	p99 := percentile(s.walls, 99)
	fmt.Fprintf(b, "\n| watch, scrapes of %d workers, over HTTP, gzip | scrapes | p50 ms | p99 ms | max ms | RSS MiB |\n|---|--:|--:|--:|--:|--:|\n"+
		"| all collectors, without PSS, %v | %d | %s | %s | %s | %s |\n\n", s.workers, s.load, len(s.walls), milliseconds(percentile(s.walls, 50)),
		milliseconds(p99), milliseconds(percentile(s.walls, 100)), mebibytes(s.memory.rss))
	fmt.Fprintf(b, "- within %v at the 99th percentile: %s ms: %s\n", longestCrowd, milliseconds(p99), verdict(0, p99 <= longestCrowd))
}

func (r *report) writeWatchDeaths(b *strings.Builder) {
	s := r.watchDeaths
	if s == nil {
		return
	}
	p99 := percentile(s.waits, 99)
	fmt.Fprintf(b, "\n| watch, from a kill -9 to a scrape that counts it | deaths | p50 ms | p99 ms | max ms |\n|---|--:|--:|--:|--:|\n"+
		"| workers of %s, %v | %d | %s | %s | %s |\n\n", s.server, s.load, len(s.waits), milliseconds(percentile(s.waits, 50)),
		milliseconds(p99), milliseconds(percentile(s.waits, 100)))
	fmt.Fprintf(b, "- within %v at the 99th percentile: %s ms: %s\n", longestUntilKnown, milliseconds(p99), verdict(0, p99 <= longestUntilKnown))
}

func (r *report) writePairs(b *strings.Builder) {
	s := r.pairs
	if s == nil {
		return
	}
	i := ratioInterval(s.watched, s.plain)
	cpu := 100 * s.cpu.Seconds() / (s.seconds * float64(len(s.watched)))
	fmt.Fprintf(b, "\n| watch, %d workers of gunicorn, with a sidecar against without, scraped each second | pairs | requests/s | without | failed "+
		"| sidecar's CPU, %% of a core | ratio | 95 %% interval |\n|---|--:|--:|--:|--:|--:|--:|--:|\n| runs of %g s in turns, %v | %d | %s | %s | %d | %s | %.3f | %.3f to %.3f |\n\n",
		pairWorkers, s.seconds, s.load, len(s.watched), number(mean(s.watched)), number(mean(s.plain)), s.failed, number(cpu), i.mean, i.low, i.high)
	fmt.Fprintf(b, "- the lower bound at least %g, by Student's t of the logarithms of the ratios: %.3f: %s\n", leastThroughput, i.low, verdict(i.low, i.low >= leastThroughput))
}
