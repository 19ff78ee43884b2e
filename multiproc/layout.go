package multiproc

import (
	"encoding/binary"
	"hash/maphash"
	"slices"

	"github.com/prefork-exporter/prefork_exporter/multiproc/internal/entry"
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
}

// compare reads the values of the entries from i on that w has whole. It returns
// the first one that w has not, and false when w has another entry there.
func (l *layout) compare(w entry.Window, f entry.Framing, i int, values, unix []float64) (int, bool) {
	for ; i < l.len(); i++ {
		p, raw := &l.place[i], l.keys[i].raw
		at := int(p.at) - w.Base
		need := at + 8
		if p.wide {
			need += 8
		}
		if need > len(w.Bytes) {
			break
		}
		start := f.Start(int(p.at), len(raw)) - w.Base
		if !f.Holds(w.Bytes[start:at], raw) || binary.LittleEndian.Uint64(w.Bytes[at-8:]) != p.guard {
			return i, false
		}
		values[i] = entry.Float(w.Bytes[at:])
		if p.wide && unix != nil {
			unix[i] = entry.Float(w.Bytes[at+8:])
		}
	}
	return i, true
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
