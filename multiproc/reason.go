package multiproc

import (
	"errors"
	"fmt"
	"math/bits"

	"github.com/prefork-exporter/prefork_exporter/multiproc/internal/entry"
)

// Reason is why a file, or a part of it, was left out.
type Reason uint8

// The reasons, a closed set.
const (
	ReasonList        Reason = iota // the directory cannot be listed
	ReasonOpen                      // the file cannot be opened
	ReasonRead                      // the file cannot be read
	ReasonEmpty                     // created, and never given a header
	ReasonTruncated                 // the header claims more than there is
	ReasonCorrupt                   // an entry's length makes no sense
	ReasonForeign                   // written by a machine with another byte order
	ReasonKey                       // a key is not of any era
	ReasonName                      // a key has an empty or doubled name
	ReasonReserved                  // a name is reserved
	ReasonShadowed                  // what the name stands for is observed from outside, which is better
	ReasonUnknownType               // the file's name has a type that nobody knows
	ReasonUnknownMode               // the file's name has a gauge mode that nobody knows: read as all
	ReasonNotRegular                // a link, a directory, a pipe, a socket or a device
	ReasonFilesystem                // on a file system that cannot be trusted to answer
	ReasonMaxFiles                  // beyond Limits.Files
	ReasonMaxFileBytes
	ReasonMaxFileSeries
	ReasonMaxSeries
	ReasonMaxLabelBytes
	ReasonTypeClash  // a family that another file has as another type
	ReasonModeClash  // a gauge that another file has in another mode
	ReasonHelpClash  // a family that another file has with another help
	ReasonLabelClash // a label that is a constant label of the directory
	ReasonNameClash  // a sample whose name another family has already
	reasons
)

// Reasons returns all reasons, in a stable order.
func Reasons() []Reason {
	all := make([]Reason, reasons)
	for r := range reasons {
		all[r] = r
	}
	return all
}

// String returns the reason as the label of prefork_multiproc_file_errors_total has it.
func (r Reason) String() string {
	return [...]string{
		"list", "open", "read", "empty", "truncated", "corrupt", "byte_order", "bad_key", "bad_name", "reserved", "shadowed",
		"unknown_type", "unknown_mode", "not_regular", "filesystem", "max_files", "max_file_bytes", "max_file_series",
		"max_series", "max_label_bytes", "type_clash", "mode_clash", "help_clash", "label_clash", "name_clash",
	}[r]
}

// Fault is an error with its reason.
type Fault struct {
	Reason Reason
	Err    error
}

func (f *Fault) Error() string { return f.Err.Error() }

// Unwrap returns the error without its reason.
func (f *Fault) Unwrap() error { return f.Err }

func fault(r Reason, format string, args ...any) *Fault {
	return &Fault{Reason: r, Err: fmt.Errorf(format, args...)}
}

// reasonOf classifies what a codec or a read returned.
func reasonOf(err error) Reason {
	var f *Fault
	switch {
	case errors.As(err, &f):
		return f.Reason
	case errors.Is(err, entry.ErrTruncated):
		return ReasonTruncated
	case errors.Is(err, entry.ErrCorrupt):
		return ReasonCorrupt
	case errors.Is(err, entry.ErrForeign):
		return ReasonForeign
	case errors.Is(err, entry.ErrKey):
		return ReasonKey
	case errors.Is(err, entry.ErrName):
		return ReasonName
	case errors.Is(err, errUnknownType):
		return ReasonUnknownType
	}
	return ReasonRead
}

// reasonSet is a set of reasons.
type reasonSet uint32

func (s *reasonSet) add(r Reason)     { *s |= 1 << r }
func (s reasonSet) has(r Reason) bool { return s&(1<<r) != 0 }

// each calls f for each reason of the set, in their order.
func (s reasonSet) each(f func(Reason)) {
	for s != 0 {
		r := Reason(bits.TrailingZeros32(uint32(s)))
		s &^= 1 << r
		f(r)
	}
}
