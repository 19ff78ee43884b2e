// Package entry holds what every metric file codec shares: the words (type,
// mode, era), the decoded key, and the walk over the entries of a file.
// multiproc/FORMAT.md draws the layouts.
package entry

import (
	"errors"
	"fmt"
)

// What can be wrong with a file or an entry. Codecs wrap these, and the merger
// counts them by [Reason].
var (
	ErrTruncated = errors.New("truncated metric file")
	ErrCorrupt   = errors.New("corrupt metric file")
	ErrKey       = errors.New("malformed key")
	ErrName      = errors.New("invalid name")
	ErrForeign   = errors.New("metric file of a machine with another byte order")
)

// Type is a metric's type, as the name of its file says it.
type Type uint8

// The types. Untyped stands for samples that fit no declared type.
const (
	Untyped Type = iota
	Counter
	Gauge
	Histogram
	Summary
)

// String returns the type's name in the exposition formats.
func (t Type) String() string {
	return [...]string{"untyped", "counter", "gauge", "histogram", "summary"}[t]
}

// ParseType returns the type of that name.
func ParseType(name string) (Type, bool) {
	for t := Untyped; t <= Summary; t++ {
		if t.String() == name {
			return t, true
		}
	}
	return Untyped, false
}

// Mode says how the gauges of several processes become one.
type Mode uint8

// The modes of the clients. A mode that nobody knows is read as All.
const (
	All Mode = iota
	LiveAll
	Min
	LiveMin
	Max
	LiveMax
	Sum
	LiveSum
	MostRecent
	LiveMostRecent
	modes
)

// String returns the mode as file names have it.
func (m Mode) String() string {
	return [...]string{
		"all", "liveall", "min", "livemin", "max", "livemax", "sum", "livesum", "mostrecent", "livemostrecent",
	}[m]
}

// ParseMode returns the mode of that name.
func ParseMode(name string) (Mode, bool) {
	for m := All; m < modes; m++ {
		if m.String() == name {
			return m, true
		}
	}
	return All, false
}

// PerProcess says whether every process keeps a series of its own, with a pid label.
func (m Mode) PerProcess() bool { return m == All || m == LiveAll }

// Live says whether the gauge ends with its process.
func (m Mode) Live() bool { return m&1 == 1 }

// Era is one layout of a metric file: FORMAT.md.
type Era uint8

// The eras, oldest first within a family of clients.
const (
	EraA Era = iota + 1 // client_python 0.0.16 to 0.3.1
	EraB                // client_python 0.4 to 0.15
	EraC                // client_python 0.16 and 0.17
	EraD                // client_python 0.18 and later
	EraR                // prometheus-client-mmap
	EraS8
	EraS16 // client_ruby's DirectFileStore
)

// String returns the era's name in FORMAT.md.
func (e Era) String() string {
	if e < EraA || e > EraS16 {
		return "?"
	}
	return [...]string{"A", "B", "C", "D", "R", "S8", "S16"}[e-1]
}

// Label is one label of a series.
type Label struct {
	Name, Value string
}

// Key is what an entry says of its series.
type Key struct {
	Family string // as the client names it: Python drops a counter's _total
	Sample string
	Labels []Label // sorted by name, names unique
	Help   string  // empty where the era has none
	Era    Era     // EraC stands for C and D, EraS8 for both S: the stride tells them apart
}

// Cumulative says whether the buckets of this key's histogram hold running
// totals already (Ruby's mmap client), or one bucket each.
func (k Key) Cumulative() bool { return k.Era == EraR }

// Sample is one decoded entry. It keeps no reference to the bytes it came from.
type Sample struct {
	Key
	Raw    string // the key's bytes as the file has them
	Offset int    // of the entry, from the start of the file
	Value  float64
	Unix   float64 // seconds since the epoch (S16: since boot), 0 where there is none
	Err    error   // why this entry cannot be used; Key is then empty
}

// At adds the place to an error: the entry that starts at byte offset.
func At(offset int, err error) error {
	return fmt.Errorf("entry at byte %d: %w", offset, err)
}
