package collector

import (
	"cmp"
	"iter"
	"slices"
)

// Sample is a value of a family in the catalogue. The labels are the caller's.
type Sample struct {
	Labels map[string]string // that the family has
	Target map[string]string // that all series of its target have; nil: there are none
	Value  float64
}

// Values returns what a scrape has of a family in the catalogue, in the order of the labels.
// Histograms have none.
func (s *Scrape) Values(name string) iter.Seq[Sample] {
	return func(yield func(Sample) bool) {
		first, _ := slices.BinarySearchFunc(s.own, name, func(v value, name string) int {
			return cmp.Compare(v.definition.Name, name)
		})
		for _, v := range s.own[first:] {
			if v.definition.Name != name || !yield(v.sample()) {
				return
			}
		}
	}
}

// sample returns the value with its labels by their names.
func (v value) sample() Sample {
	s := Sample{Labels: map[string]string{}, Value: v.number}
	own := len(v.labels) - v.constant
	for i, text := range v.labels[:own] {
		s.Labels[v.definition.Labels[i]] = text
	}
	if v.constant > 0 {
		s.Target = map[string]string{}
	}
	for i, text := range v.labels[own:] {
		s.Target[v.definition.Labels[own+i]] = text
	}
	return s
}
