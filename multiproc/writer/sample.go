package writer

import (
	"fmt"
	"slices"
	"strings"
)

// SampleOpts name one sample of a metric file, as FORMAT.md beside package
// multiproc draws it. Nothing of it is checked but the kind.
type SampleOpts struct {
	Kind   string // of the file: counter, histogram, summary, or gauge_ and a [Mode]
	Family string // of a counter without the _total that client_python takes off
	Name   string // of the sample
	Labels Labels
	Help   string
}

// Sample is one sample of a metric file: what bridges from other metric libraries
// write. Its methods are safe for concurrent use.
type Sample struct {
	cell    cell
	stamped bool
}

// Sample returns the sample with that name, which is added, with the value 0, when it is new.
// A histogram's buckets are each for themselves in the file, not added up, and it
// has no sample for the count. It panics when there is no such kind of file.
func (w *Writer) Sample(o SampleOpts) *Sample {
	mode, gauge := strings.CutPrefix(o.Kind, "gauge_")
	if gauge && !Mode(mode).valid() || !gauge && !slices.Contains([]string{"counter", "histogram", "summary"}, o.Kind) {
		panic(fmt.Sprintf("sample %q: unknown kind %q of file", o.Name, o.Kind))
	}
	labels := make([]label, 0, len(o.Labels))
	for name, value := range o.Labels {
		labels = append(labels, label{name, value})
	}
	return &Sample{w.file(o.Kind).cells(appendKey(nil, o.Family, o.Name, labels, o.Help))[0], gauge && Mode(mode).stamped()}
}

// Value returns the value.
func (s *Sample) Value() float64 { return s.cell.load() }

// Set sets the value. In the most recent modes it takes the time as well.
func (s *Sample) Set(v float64) {
	s.cell.set(v)
	if s.stamped {
		s.cell.setStamp(unixNow())
	}
}
