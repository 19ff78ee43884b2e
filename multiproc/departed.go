package multiproc

import (
	"slices"
	"sync"
)

// departed is a file that left its directory, with what it had counted. It may
// come back: moved away and back, renamed while it was not open, or replaced by
// a copy of itself.
type departed struct {
	base    string
	id      fileID
	counted counts // by its entries
	past    counts // by entries that were gone before it left
}

// remembered is how many files that left are known one by one. Of earlier ones
// only the totals are.
const remembered = 256

// depart keeps what f, which left s, had counted.
func (s *source) depart(f *file) {
	d := departed{base: f.base, id: f.id, counted: f.counted(nil), past: counts{}}
	for c, v := range f.gone {
		d.past.add(c, v)
	}
	if len(d.counted)+len(d.past) == 0 {
		return
	}
	s.dirty = true
	s.departed = append(s.departed, d)
}

// settle adds the files that left to the totals, but for the last ones.
func (s *source) settle() {
	n := len(s.departed) - remembered
	if n <= 0 {
		return
	}
	for _, d := range s.departed[:n] {
		for c, v := range d.left {
			s.totals.add(c, v)
		}
	}
	s.departed = append([]departed(nil), s.departed[n:]...)
}

// left goes over what d had counted.
func (d departed) left(yield func(*cell, float64) bool) {
	for _, values := range []counts{d.counted, d.past} {
		for c, v := range values {
			if !yield(c, v) {
				return
			}
		}
	}
}

// left goes over what files that left s had counted.
func (s *source) left(yield func(*cell, float64) bool) {
	for c, v := range s.totals {
		if !yield(c, v) {
			return
		}
	}
	for _, d := range s.departed {
		for c, v := range d.left {
			if !yield(c, v) {
				return
			}
		}
	}
}

// forgetLeft forgets what files that left s had counted.
func (s *source) forgetLeft() {
	clear(s.totals)
	s.departed, s.dirty = nil, true
}

// hasLeft says whether files that left s had counted anything.
func (s *source) hasLeft() bool { return len(s.totals)+len(s.departed) > 0 }

// total returns what is in the totals for c, which is 0 when only files that are
// known one by one had it.
func (s *source) total(c *cell) (float64, bool) {
	if total, ok := s.totals[c]; ok {
		return total, true
	}
	for had := range s.left {
		if had == c {
			return 0, true
		}
	}
	return 0, false
}

// revive takes f, which is new in its directory, for a file that left, if it is
// that file, or else has its name, and none of its counts is lower.
func (m *Merger) revive(f *file) {
	if !slices.ContainsFunc(m.sources, func(s *source) bool { return len(s.departed) > 0 }) {
		return
	}
	present := sync.OnceValue(func() counts { return f.counted(nil) }) // dear, and rarely asked for
	same := func(_ *source, d departed) bool { return d.id == f.id && f.id != fileID{} }
	namesake := func(s *source, d departed) bool { return s == f.source && d.base == f.base }
	for _, is := range []func(*source, departed) bool{same, namesake} {
		for _, s := range m.sources {
			for i, d := range slices.Backward(s.departed) {
				if is(s, d) && d.in(present()) {
					s.departed = slices.Delete(s.departed, i, i+1)
					f.resume(d)
					s.dirty, f.source.dirty = true, true
					return
				}
			}
		}
	}
}

// resume takes over what d had counted before.
func (f *file) resume(d departed) {
	for c, v := range d.past {
		f.keep(c, v)
	}
}

// in says whether n has all that d's entries had counted.
func (d departed) in(n counts) bool {
	for c, v := range d.counted {
		if now, ok := n[c]; !ok || now < v {
			return false
		}
	}
	return true
}
