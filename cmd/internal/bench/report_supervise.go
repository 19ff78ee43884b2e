package main

import (
	"fmt"
	"strings"
	"time"
)

// The targets of supervise.
const (
	soonestSuccessor    = 50 * time.Millisecond // at the median
	largestMasterMemory = 12 << 20
)

func (r *report) writeDeaths(b *strings.Builder) {
	if len(r.deaths) == 0 {
		return
	}
	b.WriteString("\n| supervise, from a kill -9 to the successor's exec | deaths | median ms | p90 ms | max ms |\n" +
		"|---|--:|--:|--:|--:|\n")
	for _, d := range r.deaths {
		fmt.Fprintf(b, "| %s | %d | %s | %s | %s |\n", d.how, len(d.waits), milliseconds(percentile(d.waits, 50)),
			milliseconds(percentile(d.waits, 90)), milliseconds(percentile(d.waits, 100)))
	}
	b.WriteString("\n")
	for _, d := range r.deaths {
		median := percentile(d.waits, 50)
		fmt.Fprintf(b, "- %s are followed within %v at the median: %s ms: %s\n", d.how, soonestSuccessor,
			milliseconds(median), verdict(float64(median), median <= soonestSuccessor))
	}
}

func (r *report) writeLoads(b *strings.Builder) {
	if len(r.loads) == 0 {
		return
	}
	fmt.Fprintf(b, "\n| supervise, %d workers and %d connections | requests | failed | requests/s | HUP | TTIN | TTOU | USR2 |\n"+
		"|---|--:|--:|--:|--:|--:|--:|--:|\n", loadWorkers, wrkConnections)
	failed, ignored := 0, 0
	for _, l := range r.loads {
		s := l.signals
		fmt.Fprintf(b, "| %s | %d | %s | %s | %d | %d | %d | %d |\n", l.how, l.wrk.answered, l.wrk.failures(),
			number(l.wrk.perSecond), s.reloads, s.more, s.fewer, s.execs)
		failed, ignored = failed+l.wrk.failed(), ignored+s.ignored
	}
	fmt.Fprintf(b, "\n- no request fails: %d did: %s\n", failed, verdict(0, failed == 0))
	if ignored > 0 {
		fmt.Fprintf(b, "- %d times USR2 had no effect\n", ignored)
	}
}

func (r *report) writeBirths(b *strings.Builder) {
	if len(r.births) == 0 {
		return
	}
	fmt.Fprintf(b, "\n| supervise, %d workers, after births | births/s | descriptors | RSS MiB | PSS MiB | peak MiB | sidecar's RSS MiB |\n"+
		"|--:|--:|--:|--:|--:|--:|--:|\n", mostWorkers)
	for _, p := range r.births {
		fmt.Fprintf(b, "| %d | %s | %d | %s | %s | %s | %s |\n", p.births, number(p.perSecond), p.files,
			mebibytes(p.memory.rss), mebibytes(p.pss), mebibytes(p.memory.peak), mebibytes(p.sidecar))
	}
	first, last := r.births[0], r.births[len(r.births)-1]
	grown := float64(last.memory.rss) / float64(r.births[max(0, len(r.births)-2)].memory.rss)
	fmt.Fprintf(b, "\n- the master in at most 12 MiB: %s MiB: %s\n", mebibytes(last.memory.rss),
		verdict(0, last.memory.rss <= largestMasterMemory))
	fmt.Fprintf(b, "- its memory flat, the end within 10 %% of the row before: %.2f ×: %s\n", grown, verdict(grown, grown <= flatWithin))
	fmt.Fprintf(b, "- as many descriptors at the end as at the start: %d and %d: %s\n", last.files, first.files,
		verdict(0, last.files == first.files))
}
