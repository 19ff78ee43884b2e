package main

import (
	"fmt"
	"math"
	"strings"
)

// target is a figure that the design promises for one data set, as a ratio to a library.
type target struct {
	dataset string
	files   string // whose library is the measure
	scrape  string
	atLeast float64
}

func ratioTargets() []target {
	return []target{
		{"D3", pythonFiles, warm, 60},
		{"D2", pythonFiles, warm, 50},
		{"D1", pythonFiles, warm, 10},
		{"D3", rubyFiles, warm, 60},
		{"D2", rubyFiles, warm, 25},
		{"D3", pythonFiles, first, 15},
		{"D5", pythonFiles, warm, 30},
		{"D6", pythonFiles, warm, 30},
	}
}

// The targets that are no ratio to a library.
const (
	largestMemory = 45 << 20 // of D3
	linearWithin  = 1.5      // D4 against D3, per byte: the design says linear, and small files cost an open each
	flatWithin    = 1.1      // the end of the soak against its middle
)

const notMeasured = "not measured"

// writeTargets prints a line per target. The verdict is about wall time in identity encoding; the other
// ratios stand beside it.
func (r *report) writeTargets(b *strings.Builder) {
	b.WriteString("\n| target | asked | wall × | CPU × | gzip: wall × | gzip: CPU × | reached |\n" +
		"|---|--:|--:|--:|--:|--:|---|\n")
	for _, t := range ratioTargets() {
		wall, cpu := r.ratios(key{t.dataset, variant{ours, t.files, t.scrape, identity}})
		zWall, zCPU := r.ratios(key{t.dataset, variant{ours, t.files, t.scrape, gzipped}})
		fmt.Fprintf(b, "| %s scrape of %s against %s's library | ≥ %g × | %s | %s | %s | %s | %s |\n",
			t.scrape, t.dataset, t.files, t.atLeast, times(wall), times(cpu), times(zWall), times(zCPU),
			verdict(wall, wall >= t.atLeast))
	}
	b.WriteString("\n")
	for _, line := range []string{r.growthTarget(), r.memoryTarget(), r.flatTarget()} {
		fmt.Fprintf(b, "- %s\n", line)
	}
}

func verdict(measured float64, reached bool) string {
	switch {
	case math.IsNaN(measured):
		return notMeasured
	case reached:
		return "yes"
	default:
		return "no"
	}
}

func (r *report) growthTarget() string {
	d3, d4 := r.perByte("D3", pythonFiles), r.perByte("D4", pythonFiles)
	return fmt.Sprintf("time linear in bytes, D4 within %g × of D3 per byte: %s ns and %s ns, %s ×: %s",
		linearWithin, number(d4), number(d3), number(d4/d3), verdict(d4/d3, d4/d3 <= linearWithin))
}

// memoryTarget takes the peak, which holds for every moment of the run.
func (r *report) memoryTarget() string {
	const asked = "D3 in at most 45 MiB, at its peak: "
	var m memory
	for k, t := range r.tallies {
		if k.dataset == "D3" && k.variant.who == ours {
			m = memory{max(m.rss, t.memory.rss), max(m.peak, t.memory.peak)}
		}
	}
	for _, p := range r.soakPoints() {
		m = memory{max(m.rss, p.memory.rss), max(m.peak, p.memory.peak)}
	}
	if m.peak == 0 {
		return asked + notMeasured
	}
	return fmt.Sprintf("%s%s MiB (RSS %s MiB): %s", asked, mebibytes(m.peak), mebibytes(m.rss),
		verdict(float64(m.peak), m.peak <= largestMemory))
}

func (r *report) flatTarget() string {
	const asked = "D3's memory flat over the soak, the end within 10 % of the middle: "
	points := r.soakPoints()
	if len(points) < 3 {
		return asked + notMeasured
	}
	middle, end := points[1].memory.rss, points[2].memory.rss
	grown := float64(end) / float64(middle)
	return fmt.Sprintf("%s%s MiB and %s MiB, %.2f ×: %s", asked, mebibytes(middle), mebibytes(end), grown,
		verdict(grown, grown <= flatWithin))
}
