// Package pyfile reads the keys of client_python's metric files, eras A to D:
// JSON lists of family, sample, labels and help. multiproc/FORMAT.md draws the
// layout; the package promises nothing to other modules.
package pyfile

import (
	"encoding/json"
	"fmt"

	"github.com/prefork-exporter/prefork_exporter/multiproc/internal/entry"
)

// Decode appends the samples in b, a whole file, to dst. The writer may still
// be running: what it has not finished is not there yet. A broken file yields
// the samples before the break, and an error that wraps [entry.ErrTruncated] or
// [entry.ErrCorrupt]; a key that cannot be read costs its own sample only.
func Decode(dst []entry.Sample, b []byte) ([]entry.Sample, error) {
	return entry.Decode(dst, b, entry.Mapped, ParseKey)
}

// ParseKey reads one key. Era A has label names and values as two lists, era B
// has them as an object, eras C and D (EraC here) add the help.
func ParseKey(raw []byte) (entry.Key, error) {
	if key, shape, ok := entry.Plain(raw); ok {
		return key.Check([...]entry.Era{entry.TwoLists: entry.EraA, entry.Object: entry.EraB, entry.ObjectHelp: entry.EraC}[shape])
	}
	return parseAny(raw)
}

// parseAny reads a key with all that JSON can have.
func parseAny(raw []byte) (entry.Key, error) {
	items, err := entry.Items(raw)
	if err != nil {
		return entry.Key{}, err
	}
	switch {
	case len(items) == 3 && items[2][0] == '{':
		return object(entry.EraB, items)
	case len(items) == 4 && items[2][0] == '{' && items[3][0] == '"':
		return object(entry.EraC, items)
	case len(items) == 4 && items[2][0] == '[' && items[3][0] == '[':
		return entry.Lists(entry.EraA, items)
	}
	return entry.Key{}, fmt.Errorf("list of %d items is of no era: %w", len(items), entry.ErrKey)
}

func object(era entry.Era, items []json.RawMessage) (entry.Key, error) {
	var values map[string]json.RawMessage
	if err := json.Unmarshal(items[2], &values); err != nil {
		return entry.Key{}, fmt.Errorf("labels are not a JSON object: %w", entry.ErrKey)
	}
	labels := make([]entry.Label, 0, len(values))
	for name, value := range values {
		text, err := entry.Scalar(value)
		if err != nil {
			return entry.Key{}, err
		}
		labels = append(labels, entry.Label{Name: name, Value: text})
	}
	key, err := entry.NewKey(era, items, labels)
	if err == nil && era == entry.EraC {
		key.Help, err = entry.Scalar(items[3])
	}
	return key, err
}
