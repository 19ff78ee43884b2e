package entry

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// Items splits a key that is a JSON list: two strings and what its era has
// behind them. No item is empty.
func Items(raw []byte) ([]json.RawMessage, error) {
	if !utf8.Valid(raw) {
		return nil, fmt.Errorf("not UTF-8: %w", ErrKey)
	}
	var items []json.RawMessage
	if err := json.Unmarshal(raw, &items); err != nil {
		return nil, fmt.Errorf("not a JSON list: %w", ErrKey)
	}
	if len(items) < 3 || items[0][0] != '"' || items[1][0] != '"' {
		return nil, fmt.Errorf("list of %d items does not open with two names and labels: %w", len(items), ErrKey)
	}
	return items, nil
}

// Lists reads a key whose labels are a list of names and a list of values.
func Lists(era Era, items []json.RawMessage) (Key, error) {
	var names, values []json.RawMessage
	if json.Unmarshal(items[2], &names) != nil || json.Unmarshal(items[3], &values) != nil || len(names) != len(values) {
		return Key{}, fmt.Errorf("%d label names for %d values: %w", len(names), len(values), ErrKey)
	}
	labels := make([]Label, len(names))
	for i := range names {
		var err error
		if labels[i].Name, err = Scalar(names[i]); err != nil {
			return Key{}, err
		}
		if labels[i].Value, err = Scalar(values[i]); err != nil {
			return Key{}, err
		}
	}
	return NewKey(era, items, labels)
}

// NewKey makes a key of the first two items and labels, and checks it.
func NewKey(era Era, items []json.RawMessage, labels []Label) (Key, error) {
	family, err := Scalar(items[0])
	if err != nil {
		return Key{}, err
	}
	sample, err := Scalar(items[1])
	if err != nil {
		return Key{}, err
	}
	return Key{Family: family, Sample: sample, Labels: labels}.Check(era)
}

// Check completes a key: it sorts the labels and checks all names.
func (k Key) Check(era Era) (Key, error) {
	if k.Family == "" || k.Sample == "" {
		return Key{}, fmt.Errorf("empty metric name: %w", ErrName)
	}
	if err := SortLabels(k.Labels); err != nil {
		return Key{}, err
	}
	k.Era = era
	return k, nil
}

// SortLabels sorts labels by name. A name that is empty or there twice is an error.
func SortLabels(labels []Label) error {
	slices.SortFunc(labels, func(a, b Label) int { return strings.Compare(a.Name, b.Name) })
	for i, l := range labels {
		if l.Name == "" {
			return fmt.Errorf("empty label name: %w", ErrName)
		}
		if i > 0 && labels[i-1].Name == l.Name {
			return fmt.Errorf("label %q twice: %w", l.Name, ErrName)
		}
	}
	return nil
}

// Scalar returns the text of a JSON string, number, true, false or null (empty).
// A lone surrogate becomes U+FFFD.
func Scalar(raw json.RawMessage) (string, error) {
	switch raw[0] {
	case '"':
		var s string
		if err := json.Unmarshal(raw, &s); err != nil {
			return "", fmt.Errorf("string: %w", ErrKey)
		}
		return s, nil
	case '{', '[':
		return "", fmt.Errorf("label that is a list or an object: %w", ErrKey)
	case 'n':
		return "", nil
	}
	return string(raw), nil
}
