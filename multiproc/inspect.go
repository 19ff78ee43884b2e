package multiproc

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/prefork-exporter/prefork_exporter/multiproc/internal/entry"
)

// Inspection is what one metric file holds.
type Inspection struct {
	Path    string
	Type    string // counter, gauge, histogram, summary; of a DirectFileStore's: untyped
	Mode    string // of a gauge
	Process string // the id in the file's name
	Size    int    // of the file
	Used    int    // what its header claims
	Entries []Entry
	Err     error // what is wrong with the file as a whole; entries before it are there
}

// Entry is one entry of a metric file.
type Entry struct {
	Offset int
	Era    string // FORMAT.md
	Family string
	Sample string
	Labels []Label
	Help   string
	Value  float64
	Stamp  float64 // seconds since the epoch (era S16: since boot), 0: none
	Err    error   // why it cannot be used; the names are empty then
}

// Faults counts what is wrong.
func (i *Inspection) Faults() int {
	n := 0
	if i.Err != nil {
		n++
	}
	for _, e := range i.Entries {
		if e.Err != nil {
			n++
		}
	}
	return n
}

// Inspect reads one metric file. The error says that it is no metric file, or
// cannot be read; one that is broken is described by its Inspection.
func Inspect(path string) (*Inspection, error) {
	n, err := parseName(filepath.Base(path))
	if err != nil {
		return nil, fmt.Errorf("inspect %s: %w", path, err)
	}
	d, err := osFS{}.openDir(filepath.Dir(path))
	if err != nil {
		return nil, fmt.Errorf("inspect %s: %w", path, err)
	}
	i, err := inspect(d, n, path)
	if err := errors.Join(err, d.Close()); err != nil {
		return nil, fmt.Errorf("inspect %s: %w", path, err)
	}
	info, err := os.Lstat(path)
	if err != nil {
		return nil, fmt.Errorf("inspect %s: %w", path, err)
	}
	i.Size = int(info.Size())
	return i, nil
}

// Inspect reads one metric file of the source's directory, by its name there. Its
// inspection does not tell the file's size.
func (s Source) Inspect(name string) (*Inspection, error) {
	n, err := parseName(name)
	if err != nil {
		return nil, fmt.Errorf("inspect %s: %w", name, err)
	}
	d, err := s.open(osFS{})
	if err != nil {
		return nil, fmt.Errorf("inspect %s: %w", name, err)
	}
	i, err := inspect(d, n, filepath.Join(s.Path, name))
	if err := errors.Join(err, d.Close()); err != nil {
		return nil, fmt.Errorf("inspect %s: %w", name, err)
	}
	return i, nil
}

// inspect reads the file of an open directory that path names.
func inspect(d directory, n fileName, path string) (*Inspection, error) {
	b, err := contents(d, filepath.Base(path))
	if err != nil {
		return nil, err
	}
	i := &Inspection{Path: path, Type: n.typ.String(), Process: n.id}
	if n.typ == entry.Gauge {
		i.Mode = n.mode.String()
	}
	if n.unknownMode {
		i.Err = errors.New("unknown gauge mode: read as all")
	}
	if len(b) < 4 {
		i.Err = fmt.Errorf("%d bytes: created, never given a header: %w", len(b), entry.ErrTruncated)
		return i, nil
	}
	i.Used = entry.Used(b)
	samples, err := entry.Decode(nil, b, n.framing(), func(raw []byte) (entry.Key, error) { return parseKey(n, raw) })
	if err != nil {
		i.Err = err
	}
	for _, s := range samples {
		i.Entries = append(i.Entries, newEntry(s))
	}
	return i, nil
}

func newEntry(s entry.Sample) Entry {
	return Entry{
		Offset: s.Offset, Era: s.Era.String(), Family: s.Family, Sample: s.Sample, Labels: s.Labels, Help: s.Help,
		Value: s.Value, Stamp: s.Unix, Err: s.Err,
	}
}

// contents returns the bytes of a regular file up to what its header claims, and no more
// than there are.
func contents(d directory, name string) ([]byte, error) {
	h, _, err := d.open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = h.Close() }()
	b := make([]byte, 4*entry.HeaderSize)
	n, err := h.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if n < 4 || entry.Used(b) <= n {
		return b[:n], nil
	}
	return io.ReadAll(io.NewSectionReader(h, 0, int64(entry.Used(b))))
}

// InspectDir reads all metric files of a directory, in the order of their
// names. What is named like one and cannot be read is in the error, joined.
func InspectDir(dir string) ([]*Inspection, error) {
	names, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("inspect %s: %w", dir, err)
	}
	var all []*Inspection
	var errs []error
	for _, name := range names {
		i, err := Inspect(filepath.Join(dir, name.Name()))
		switch {
		case errors.Is(err, errIgnored):
		case err != nil:
			errs = append(errs, err)
		default:
			all = append(all, i)
		}
	}
	return slices.Clip(all), errors.Join(errs...)
}
