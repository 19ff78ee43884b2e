package main

import (
	"cmp"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"time"
)

// What is measured of a contender.
const (
	warm     = "warm"
	first    = "first"
	fromExec = "from exec to first" // the start of the program included
)

// variant names a contender: who, on whose files, which scrape, in which encoding.
type variant struct{ who, files, scrape, encoding string }

func (v variant) String() string {
	if v.who == ours {
		return fmt.Sprintf("%s on %s files, %s, %s", v.who, v.files, v.scrape, v.encoding)
	}
	return fmt.Sprintf("%s, %s, %s", v.who, v.scrape, v.encoding)
}

// key is a row of the table.
type key struct {
	dataset string
	variant variant
}

// tally collects the runs behind a row.
type tally struct {
	walls  []time.Duration
	cpu    time.Duration // the sum
	memory memory        // the largest
}

func (t *tally) wall() time.Duration { return percentile(t.walls, 50) }

func (t *tally) meanCPU() time.Duration { return t.cpu / time.Duration(max(1, len(t.walls))) }

// size says how much there is to read in a directory.
type size struct {
	dataset dataset
	files   string
	bytes   int64
	count   int
}

// limitResult is what a CPU limit made of the scrapes.
type limitResult struct {
	dataset    string
	files      string
	version    int // of control groups
	first      time.Duration
	walls      []time.Duration
	throttled  int // periods
	impossible error
}

// report collects what was measured, in the order in which it came.
type report struct {
	setup   []string
	absent  []string
	keys    []key
	tallies map[key]*tally
	sizes   []size
	limited []limitResult
	soak    *soakResult
	deaths  []deathResult
	loads   []loadResult
	births  []birthPoint

	rest        *restResult // nil: not measured, as those that follow
	crowd       *crowdResult
	watchDeaths *watchDeathResult
	pairs       *pairsResult
}

func newReport() *report { return &report{tallies: make(map[key]*tally)} }

// add counts one run of v and the memory seen with it.
func (r *report) add(d dataset, v variant, c cost, m memory) {
	t := r.row(d, v)
	t.walls = append(t.walls, c.wall)
	t.cpu += c.cpu
	t.remember(m)
}

// remember notes the memory of v without a run.
func (r *report) remember(d dataset, v variant, m memory) { r.row(d, v).remember(m) }

func (r *report) row(d dataset, v variant) *tally {
	k := key{d.name, v}
	if r.tallies[k] == nil {
		r.tallies[k] = &tally{}
		r.keys = append(r.keys, k)
	}
	return r.tallies[k]
}

func (t *tally) remember(m memory) {
	t.memory = memory{max(t.memory.rss, m.rss), max(t.memory.peak, m.peak)}
}

// baseline finds what k is compared with: the library that wrote the files, doing the same. Libraries have no
// zstd, so zstd is compared with their gzip.
func (r *report) baseline(k key) *tally {
	if k.variant.who != ours {
		return nil
	}
	enc := k.variant.encoding
	if enc == zstandard {
		enc = gzipped
	}
	for _, other := range r.keys {
		o := other.variant
		if other.dataset == k.dataset && o.who != ours && o.files == k.variant.files &&
			o.scrape == k.variant.scrape && o.encoding == enc {
			return r.tallies[other]
		}
	}
	return nil
}

// ratios says how many times less k takes than its baseline; NaN where one of them was not measured.
func (r *report) ratios(k key) (wall, cpu float64) {
	mine, base := r.tallies[k], r.baseline(k)
	if mine == nil || base == nil || len(mine.walls) == 0 || len(base.walls) == 0 {
		return math.NaN(), math.NaN()
	}
	return ratio(base.wall(), mine.wall()), ratio(base.meanCPU(), mine.meanCPU())
}

func ratio(base, mine time.Duration) float64 {
	if mine <= 0 {
		return math.NaN()
	}
	return float64(base) / float64(mine)
}

// percentile returns the nearest-rank percentile, of an even number of runs the lower median; 0 of none.
func percentile(d []time.Duration, p int) time.Duration {
	if len(d) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(d))
	return sorted[max(0, (len(sorted)*p+99)/100-1)]
}

// write prints everything as Markdown.
func (r *report) write(w io.Writer) error {
	var b strings.Builder
	for _, line := range append(r.setup, r.absent...) {
		fmt.Fprintf(&b, "- %s\n", line)
	}
	if len(r.keys) > 0 {
		r.writeTable(&b)
		r.writeSizes(&b)
		r.writeTargets(&b)
	}
	r.writeLimited(&b)
	r.writeSoak(&b)
	r.writeDeaths(&b)
	r.writeLoads(&b)
	r.writeBirths(&b)
	r.writeRest(&b)
	r.writeCrowd(&b)
	r.writeWatchDeaths(&b)
	r.writePairs(&b)
	_, err := io.WriteString(w, b.String())
	return err
}

func (r *report) writeTable(b *strings.Builder) {
	b.WriteString("\n| data set | contender | wall ms | CPU ms | RSS MiB | peak MiB | wall × | CPU × |\n" +
		"|---|---|--:|--:|--:|--:|--:|--:|\n")
	for _, k := range r.ordered() {
		t := r.tallies[k]
		wall, cpu := r.ratios(k)
		fmt.Fprintf(b, "| %s | %s | %s | %s | %s | %s | %s | %s |\n", k.dataset, k.variant,
			milliseconds(t.wall()), milliseconds(t.meanCPU()), mebibytes(t.memory.rss), mebibytes(t.memory.peak),
			times(wall), times(cpu))
	}
}

// ordered puts rows that are compared next to each other. Turns, and so the order of arrival, change from
// round to round.
func (r *report) ordered() []key {
	scrapes := []string{warm, first, fromExec}
	encodings := ourEncodings()
	rank := func(k key) [4]int {
		v := k.variant
		mine := 0
		if v.who == ours {
			mine = 1
		}
		return [4]int{
			strings.Compare(v.files, pythonFiles), slices.Index(scrapes, v.scrape), mine,
			slices.Index(encodings, v.encoding),
		}
	}
	return slices.SortedStableFunc(slices.Values(r.keys), func(a, b key) int {
		x, y := rank(a), rank(b)
		return cmp.Or(strings.Compare(a.dataset, b.dataset), slices.Compare(x[:], y[:]))
	})
}

func (r *report) writeSizes(b *strings.Builder) {
	b.WriteString("\n| data set | written by | processes | files | used MiB | warm ns per used byte |\n" +
		"|---|---|--:|--:|--:|--:|\n")
	for _, s := range r.sizes {
		fmt.Fprintf(b, "| %s | %s | %d | %d | %s | %s |\n", s.dataset.name, s.files, s.dataset.processes, s.count,
			mebibytes(s.bytes), number(r.perByte(s.dataset.name, s.files)))
	}
}

// perByte returns the nanoseconds of a warm scrape for each byte there is to read.
func (r *report) perByte(name, files string) float64 {
	t := r.tallies[key{name, variant{ours, files, warm, identity}}]
	i := slices.IndexFunc(r.sizes, func(s size) bool { return s.dataset.name == name && s.files == files })
	if t == nil || i < 0 || len(t.walls) == 0 {
		return math.NaN()
	}
	return float64(t.wall()) / float64(r.sizes[i].bytes)
}

func (r *report) writeLimited(b *strings.Builder) {
	for _, l := range r.limited {
		if l.impossible != nil {
			fmt.Fprintf(b, "\n%s under a CPU limit: not possible here: %s\n", l.dataset,
				strings.ReplaceAll(l.impossible.Error(), "\n", "; "))
			continue
		}
		fmt.Fprintf(b, "\n%s (%s files) under the CPU limit, control groups version %d, gzip, %d scrapes, "+
			"one every %v: first %s ms, then p50 %s ms, p99 %s ms, worst %s ms; throttled in %d periods of %v\n",
			l.dataset, l.files, l.version, len(l.walls), limitedInterval, milliseconds(l.first),
			milliseconds(percentile(l.walls, 50)), milliseconds(percentile(l.walls, 99)),
			milliseconds(percentile(l.walls, 100)), l.throttled, period)
		if len(l.walls) < limitedScrapes {
			fmt.Fprintf(b, "It does not keep up: given up after %d scrapes of %d.\n", len(l.walls), limitedScrapes)
		}
	}
}

func (r *report) writeSoak(b *strings.Builder) {
	if r.soak == nil {
		return
	}
	fmt.Fprintf(b, "\n| %s, after scrapes | RSS MiB | peak MiB | descriptors |\n|--:|--:|--:|--:|\n", r.soak.dataset)
	for _, p := range r.soakPoints() {
		fmt.Fprintf(b, "| %d | %s | %s | %d |\n", p.scrapes, mebibytes(p.memory.rss), mebibytes(p.memory.peak),
			p.files)
	}
}

func (r *report) soakPoints() []soakPoint {
	if r.soak == nil {
		return nil
	}
	return r.soak.points
}

func milliseconds(d time.Duration) string { return number(float64(d) / float64(time.Millisecond)) }

func mebibytes(n int64) string { return fmt.Sprintf("%.1f", float64(n)/(1<<20)) }

func times(ratio float64) string {
	if math.IsNaN(ratio) {
		return "–"
	}
	return number(ratio)
}

// number prints three digits that count, or all digits before the point.
func number(v float64) string {
	switch {
	case math.IsNaN(v):
		return "–"
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	case v >= 1:
		return fmt.Sprintf("%.2f", v)
	default:
		return fmt.Sprintf("%.3f", v)
	}
}
