package collector

import (
	"cmp"
	"iter"
	"slices"
)

// Values returns what a scrape has of a family in the catalogue: each value with its
// labels, in the order of these. Histograms have none. The labels are the caller's.
func (s *Scrape) Values(name string) iter.Seq2[map[string]string, float64] {
	return func(yield func(labels map[string]string, v float64) bool) {
		first, _ := slices.BinarySearchFunc(s.own, name, func(v value, name string) int {
			return cmp.Compare(v.definition.Name, name)
		})
		for _, v := range s.own[first:] {
			if v.definition.Name != name || !yield(v.byName(), v.number) {
				return
			}
		}
	}
}

// byName returns the labels by their names.
func (v value) byName() map[string]string {
	labels := make(map[string]string, len(v.labels))
	for i, text := range v.labels {
		labels[v.definition.Labels[i]] = text
	}
	return labels
}
