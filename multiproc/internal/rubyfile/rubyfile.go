// Package rubyfile reads the keys of prometheus-client-mmap's metric files, era
// R: compact JSON lists of family, sample, label names and label values.
// multiproc/FORMAT.md draws the layout; the package promises nothing to other
// modules.
package rubyfile

import (
	"fmt"

	"github.com/prefork-exporter/prefork_exporter/multiproc/internal/entry"
)

// Decode appends the samples in b, a whole file, to dst, as Decode of pyfile does.
func Decode(dst []entry.Sample, b []byte) ([]entry.Sample, error) {
	return entry.Decode(dst, b, entry.Mapped, ParseKey)
}

// Is tells a key of era R from one of Python's: Ruby writes no blank behind a comma.
func Is(raw []byte) bool {
	for i := 2; i < len(raw); i++ { // behind `["`
		switch raw[i] {
		case '\\':
			i++
		case '"':
			return i+2 < len(raw) && raw[i+1] == ',' && raw[i+2] == '"'
		}
	}
	return false
}

// ParseKey reads one key. Numbers and true, false stand as their text, null as "".
func ParseKey(raw []byte) (entry.Key, error) {
	if key, shape, ok := entry.Plain(raw); ok && shape == entry.TwoLists {
		return key.Check(entry.EraR)
	}
	return parseAny(raw)
}

// parseAny reads a key with all that JSON can have.
func parseAny(raw []byte) (entry.Key, error) {
	items, err := entry.Items(raw)
	if err != nil {
		return entry.Key{}, err
	}
	if len(items) != 4 || items[2][0] != '[' || items[3][0] != '[' {
		return entry.Key{}, fmt.Errorf("list of %d items is not of era R: %w", len(items), entry.ErrKey)
	}
	return entry.Lists(entry.EraR, items)
}
