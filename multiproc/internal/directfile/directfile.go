// Package directfile reads client_ruby's DirectFileStore, eras S8 and S16: one
// file for each metric and process, whose keys are the labels as a query
// string. multiproc/FORMAT.md draws the layout; the package promises nothing to
// other modules.
package directfile

import (
	"fmt"
	"net/url"
	"strings"
	"unicode/utf8"

	"github.com/prefork-exporter/prefork_exporter/multiproc/internal/entry"
)

// Decode appends the samples in b, a whole file of the metric name, to dst, as
// the other codecs do. Family and Sample of each are the metric's name.
func Decode(dst []entry.Sample, b []byte, name string) ([]entry.Sample, error) {
	return entry.Decode(dst, b, entry.Direct, func(raw []byte) (entry.Key, error) { return ParseKey(raw, name) })
}

// ParseKey reads one key of the metric name. A histogram's bucket has the label
// le, its sum le="sum"; a summary's parts have quantile="sum" and "count".
func ParseKey(raw []byte, name string) (entry.Key, error) {
	if name == "" {
		return entry.Key{}, fmt.Errorf("empty metric name: %w", entry.ErrName)
	}
	key := entry.Key{Family: name, Sample: name, Era: entry.EraS8}
	text := strings.TrimSpace(string(raw))
	if text == "" {
		return key, nil
	}
	for pair := range strings.SplitSeq(text, "&") {
		label, err := parsePair(pair)
		if err != nil {
			return entry.Key{}, err
		}
		key.Labels = append(key.Labels, label)
	}
	if err := entry.SortLabels(key.Labels); err != nil {
		return entry.Key{}, err
	}
	return key, nil
}

func parsePair(pair string) (entry.Label, error) {
	name, value, found := strings.Cut(pair, "=")
	if !found || name == "" {
		return entry.Label{}, fmt.Errorf("pair without a name or a sign of equality: %w", entry.ErrKey)
	}
	name, err := url.QueryUnescape(name)
	if err != nil {
		return entry.Label{}, fmt.Errorf("label name: %w", entry.ErrKey)
	}
	value, err = url.QueryUnescape(value)
	if err != nil || !utf8.ValidString(name+value) {
		return entry.Label{}, fmt.Errorf("value of label %q: %w", name, entry.ErrKey)
	}
	return entry.Label{Name: name, Value: value}, nil
}
