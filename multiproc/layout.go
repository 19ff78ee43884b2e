package multiproc

import (
	"encoding/binary"
	"hash/maphash"
	"slices"
)

// layout is where a file has its entries. Files of workers that run the same
// code share one, and it never changes: a file that grows gets another.
type layout struct {
	keys  []*key
	place []place
	end   int     // offset behind the last entry
	from  *layout // the layout that this one continues, or nil
}

// place is where an entry has its value, and what stands before it.
type place struct {
	guard uint64 // the eight bytes before the value: key's end and padding
	at    uint32 // offset of the value
	wide  bool   // a time stamp follows the value
}

// emptyLayout returns the layout of a file without entries.
func emptyLayout() *layout { return &layout{end: 8} }

func (l *layout) len() int { return len(l.keys) }

// grow returns a layout that begins like l and can be appended to.
func (l *layout) grow() *layout {
	n := l.len()
	return &layout{keys: l.keys[:n:n], place: l.place[:n:n], end: l.end, from: l}
}

func (l *layout) add(k *key, p place, end int) {
	l.keys = append(l.keys, k)
	l.place = append(l.place, p)
	l.end = end
}

// trim gives back what appending has allocated for more.
func (l *layout) trim() {
	l.keys, l.place = slices.Clip(l.keys), slices.Clip(l.place)
	if l.from != nil && l.from.from != nil {
		l.from.from = nil // one step is enough to continue a binding; do not keep a chain alive
	}
}

func (l *layout) hash(seed maphash.Seed) uint64 {
	var h maphash.Hash
	h.SetSeed(seed)
	var b [16]byte
	for i, k := range l.keys {
		binary.LittleEndian.PutUint64(b[:], k.id)
		binary.LittleEndian.PutUint64(b[8:], uint64(l.place[i].at))
		_, _ = h.Write(b[:])
	}
	return h.Sum64()
}

func (l *layout) equal(o *layout) bool {
	return l.end == o.end && slices.Equal(l.keys, o.keys) && slices.Equal(l.place, o.place)
}
