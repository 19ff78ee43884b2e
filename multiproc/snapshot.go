package multiproc

import (
	"math"

	"github.com/prefork-exporter/prefork_exporter/multiproc/internal/entry"
)

// Label is one label of a series.
type Label = entry.Label

// Type is a metric's type.
type Type = entry.Type

// The types of a family. Untyped is what OpenMetrics calls unknown.
const (
	Untyped   = entry.Untyped
	Counter   = entry.Counter
	Gauge     = entry.Gauge
	Histogram = entry.Histogram
	Summary   = entry.Summary
)

// Snapshot is one merge: a layout, which it shares with other snapshots, and
// the values of that moment. It never changes.
type Snapshot struct {
	*Layout
	Values []float64 // one for each sample, in the layout's order; see Present
}

// Layout is what a snapshot consists of: families in the order of their names,
// series in the order of their labels, a histogram's buckets ascending.
type Layout struct {
	Families []Family
	Series   int // label sets
	Samples  int

	steps []step
	owner []*series // of each sample; its last value is kept there
}

// Family is one family of a snapshot.
type Family struct {
	Name    string // of a counter: with _total, where the files have it
	Help    string
	Type    Type
	First   int // the index in Snapshot.Values of the first sample
	Samples []Sample
}

// Sample is one line of the exposition.
type Sample struct {
	Part   Part
	Labels []Label // sorted by name; the same for all samples of a label set
	Bound  string  // of a bucket: the text of le
	Group  int     // counts the label sets of the family, from 0
}

// Part is what a sample is of its family.
type Part uint8

// The parts. A histogram has buckets, a sum and a count; a summary has the latter two.
const (
	PartValue Part = iota
	PartBucket
	PartSum
	PartCount
	PartBareBucket // a bucket without a bound: text can hold it, protobuf cannot
)

// Suffix is what the part adds to the family's name.
func (p Part) Suffix() string { return [...]string{"", "_bucket", "_sum", "_count", "_bucket"}[p] }

// unset marks a value that no process has given.
var unset = math.Float64frombits(0x7ff8_dead_0000_0001)

// Present says whether a process has given the value.
func Present(v float64) bool { return math.Float64bits(v) != 0x7ff8_dead_0000_0001 }

// step computes one sample of the cells.
type step struct {
	part         Part
	first        bool   // the running total of buckets begins anew
	rises        bool   // rounding must not make it fall
	single, cell uint32 // slots: what goes into the running total, what is added to it
}

// Slots that are no series'.
const (
	slotRefused = iota // of what is left out
	slotZero           // always 0
	slotFirst
)

// values computes the samples of the cells' values acc. Sums of the same
// numbers in another order differ in their last bits: a sample that would fall
// by that stays at its last value, and is in held.
func (l *Layout) values(acc, last []float64) (values []float64, held []int) {
	values = make([]float64, len(l.steps))
	total := 0.0
	for i := range l.steps {
		s := &l.steps[i]
		v := acc[s.cell]
		switch {
		case s.part == PartBucket && s.first:
			total = acc[s.single]
			v += total
		case s.part == PartBucket:
			total += acc[s.single]
			v += total
		case s.part == PartCount && !s.first:
			v += total
		}
		if s.rises && v < last[i] && last[i]-v <= last[i]*rounding {
			v = last[i]
			held = append(held, i)
		}
		values[i] = v
	}
	return values, held
}

// rounding is the largest part of a sum that the order of its terms can make
// up: a hundred thousand terms, half a unit in the last place each.
const rounding = 1e-10
