package multiproc

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"time"

	"github.com/prefork-exporter/prefork_exporter/multiproc/internal/entry"
)

// file is one metric file, as far as it is known. A merge reads it in one
// goroutine at a time.
type file struct {
	// What every merge of a quiet file needs comes first, in few cache lines:
	// there are ten thousand files.
	handle  handle // nil while it is not kept open
	layout  *layout
	binding *binding
	values  []float64 // the last that were read, one for each entry of layout
	faults  reasonSet
	skip    bool // never read: its fault tells why
	read    bool // values were read at least once
	guess   bool // the last entry's stride is not certain: what follows it is broken
	falls   []fall
	unix    []float64 // time stamps, of gauges whose mode wants them
	fileName
	past     counts // what entries that began anew had counted
	missing  counts // what entries that are gone had counted: they may come back
	replaced counts // what the file had before it was written anew, until the next plan

	source  *source
	listed  uint64 // the inode that the directory's list gave
	regular bool   // a regular file, as far as the list tells
	seen    uint64 // the last listing that had it
	fresh   bool   // its name came, and no plan has had it since
	id      fileID

	stuck  int // header's claim when a walk could not reach it
	tries  int // walks since then
	walked error
	broken error // what the last read said
	logged reasonSet
}

// fall is a counter that was lower than before.
type fall struct {
	index  int
	before float64
}

// walks is how often a place where a walk broke is looked at again while the
// header does not change: a writer may be in the middle of an entry.
const walks = 3

// fail notes why the file, or a part of it, is not used.
func (f *file) fail(r Reason, err error) {
	f.faults.add(r)
	f.broken = err
}

// stamped says whether the file's gauges need their time stamps.
func (f *file) stamped() bool {
	return f.mode == entry.MostRecent || f.mode == entry.LiveMostRecent || f.metric != ""
}

// reader reads files one after another with one buffer.
type reader struct {
	in      *interner
	grace   time.Duration // how long a client may take to write the header of a new file
	buf     []byte
	scratch []float64 // values of one file, until it is known that they are its own

	head    [12]byte // the file's beginning
	headLen int      // how much of it there was, when the file was read last; -1: it could not be read

	found found
}

const (
	bufferSize = 128 << 10 // stays in a core's cache
	maxBuffer  = 4 << 20   // no entry is longer
)

func newReader(in *interner) *reader { return &reader{in: in, grace: time.Second} }

// allocate makes the buffer when it is needed first.
func (r *reader) allocate() {
	if r.buf == nil {
		r.buf = make([]byte, bufferSize)
	}
}

// refresh reads what has changed in f since the last time: all values, and the
// entries that are new. What cannot be read keeps its last good value. New
// entries are read after the head that tells of them, by another call: one call
// promises no order.
func (r *reader) refresh(f *file, h handle) {
	if f.faults != 0 {
		f.faults, f.broken = 0, nil
	}
	if f.unknownMode {
		f.fail(ReasonUnknownMode, fmt.Errorf("unknown gauge mode: read as all"))
	}
	same := r.known(f, h)
	if r.headLen < 0 {
		return
	}
	again := f.read
	f.read = true
	if r.headLen < 4 {
		if !again && f.young(r.grace) {
			return // its client is about to write it
		}
		f.fail(ReasonEmpty, fmt.Errorf("%d bytes: created, never given a header", r.headLen))
		return
	}
	if !same {
		r.restart(f)
	}
	r.entries(f, h, entry.Used(r.head[:]))
}

// young says whether f was made not longer ago than that.
func (f *file) young(grace time.Duration) bool {
	return f.id.born != 0 && time.Since(time.Unix(0, f.id.born)) < grace
}

// known reads the head and the values of the entries that the layout has. It
// returns false when the file does not have these entries any more; f is as it
// was then.
func (r *reader) known(f *file, h handle) bool {
	r.allocate()
	r.scratch = slices.Grow(r.scratch[:0], len(f.values))[:len(f.values)]
	end, ok := r.scan(f, h)
	if !ok || len(f.falls) > 0 && !r.same(f, h) {
		f.falls = f.falls[:0]
		return false
	}
	copy(f.values, r.scratch[:end])
	return true
}

// scan reads the head, and values into the scratch. It returns how many entries
// it has read, and false when the file does not have these entries any more.
func (r *reader) scan(f *file, h handle) (int, bool) {
	places := f.layout.place
	r.headLen = -1
	for i, base := 0, 0; ; base = int(places[i].at)&^7 - 8 { // from 0: whole pages are copied faster
		want := min(max(f.layout.end-base, len(r.head)), len(r.buf))
		n, err := h.ReadAt(r.buf[:want], int64(base))
		if err != nil && !errors.Is(err, io.EOF) {
			f.fail(ReasonRead, err)
			return i, true
		}
		if base == 0 {
			r.headLen = copy(r.head[:], r.buf[:n])
			if r.headLen < 4 {
				return 0, true
			}
			if f.guess && f.stuck != entry.Used(r.head[:]) {
				return 0, false
			}
		}
		next, ok := f.take(r.scratch, r.buf[:n], base, i)
		switch {
		case !ok:
			return i, false
		case next == len(places):
			return next, true
		case n < want || next == i:
			f.fail(ReasonTruncated, fmt.Errorf("ends at byte %d, had entries up to %d: %w", base+n, f.layout.end, entry.ErrTruncated))
			return next, true
		}
		i = next
	}
}

// same compares all keys of f with those of its layout. A fall asks for it: the
// guards may be the same in a file that was written anew. What cannot be read
// counts as the same.
func (r *reader) same(f *file, h handle) bool {
	framing := f.framing()
	ignored := make([]float64, f.layout.len())
	for i := 0; i < f.layout.len(); {
		base := framing.Start(int(f.layout.place[i].at), len(f.layout.keys[i].raw))
		n, err := h.ReadAt(r.buf[:min(f.layout.end-base, len(r.buf))], int64(base))
		if err != nil && !errors.Is(err, io.EOF) {
			return true
		}
		next, same := f.layout.compare(entry.Window{Bytes: r.buf[:n], Base: base}, framing, i, ignored, nil)
		if !same {
			return false
		}
		if next == i {
			return true // longer than the buffer, or cut off
		}
		i = next
	}
	return true
}

// take reads the values that b, at offset base, holds, from entry i on. It
// returns the first entry that b does not hold, and false when b does not have
// the entries of the layout.
func (f *file) take(values []float64, b []byte, base, i int) (int, bool) {
	places, before := f.layout.place, f.values[:len(f.layout.place)]
	values = values[:len(places)]
	counts := f.typ != entry.Gauge
	for ; i < len(places); i++ {
		p := &places[i]
		at := int(p.at) - base
		need := at + 8
		if p.wide {
			need += 8
		}
		if need > len(b) {
			break
		}
		if binary.LittleEndian.Uint64(b[at-8:]) != p.guard {
			return i, false
		}
		v := math.Float64frombits(binary.LittleEndian.Uint64(b[at:]))
		if counts && v < before[i] {
			f.falls = append(f.falls, fall{i, before[i]})
		}
		values[i] = v
		if p.wide && f.unix != nil {
			f.unix[i] = entry.Float(b[at+8:])
		}
	}
	return i, true
}

// restart forgets the entries of a file that was written anew. What they had
// counted stays.
func (r *reader) restart(f *file) {
	if f.binding != nil {
		f.replaced = f.counted(f.replaced)
	}
	f.layout, f.binding, f.stuck, f.tries = emptyLayout(), nil, 0, 0
	f.guess = false
	f.values, f.unix, f.falls = nil, nil, f.falls[:0]
}

// entries walks from the end of the layout to the end that the header claims.
func (r *reader) entries(f *file, h handle, used int) {
	limit := min(used, r.in.limits.FileBytes)
	if f.layout.end >= limit {
		f.bounded(used, limit)
		return
	}
	if r.adoptTwin(f, h, used) {
		f.stuck, f.tries = 0, 0
		return
	}
	if f.stuck == used && (f.guess || f.tries >= walks) {
		f.fail(reasonOf(f.walked), f.walked)
		return
	}
	w := walk{reader: r, file: f, handle: h, window: entry.Window{Used: used, Limit: limit}}
	w.layout, w.template = f.layout.grow(), r.in.template(f.class())
	err := w.run()
	w.adopt()
	if len(r.buf) > bufferSize {
		r.buf = nil
		r.allocate()
	}
	switch {
	case err == nil:
		f.stuck, f.tries = 0, 0
	case f.layout.len() == 0 && r.headLen == len(r.head) && f.framing().Foreign(r.head[:], r.head[8:], w.window.Limit):
		f.stick(used, fmt.Errorf("header claims %d bytes: %w", used, entry.ErrForeign))
	case limit < used && w.window.Limit == limit && errors.Is(err, entry.ErrTruncated):
		f.bounded(used, limit)
	case reasonOf(err) == ReasonRead:
		f.fail(ReasonRead, err) // it may pass
	default:
		f.stick(used, err)
	}
}

// adoptTwin gives f the layout of a file of its class and size, if that is how
// f goes on: all its new entries are the same, in the same places.
func (r *reader) adoptTwin(f *file, h handle, used int) bool {
	twin, known := r.in.twin(f.class(), used), f.layout.len()
	if twin == nil || known > 0 && twin.from != f.layout {
		return false
	}
	values := lengthen(f.values, twin.len())
	var unix []float64
	if f.stamped() {
		unix = lengthen(f.unix, twin.len())
	}
	framing := f.framing()
	for i := known; i < twin.len(); {
		base := framing.Start(int(twin.place[i].at), len(twin.keys[i].raw))
		if i == 0 {
			base = 0 // whole pages are copied faster
		}
		n, err := h.ReadAt(r.buf[:min(used-base, len(r.buf))], int64(base))
		if err != nil && !errors.Is(err, io.EOF) {
			return false
		}
		next, same := twin.compare(entry.Window{Bytes: r.buf[:n], Base: base}, framing, i, values, unix)
		if !same || next == i {
			return false
		}
		i = next
	}
	f.layout, f.values, f.unix = twin, values, unix
	return true
}

// bounded notes that only the first limit bytes of those used are.
func (f *file) bounded(used, limit int) {
	if limit < used {
		f.fail(ReasonMaxFileBytes, fmt.Errorf("header claims %d bytes, the limit is %d", used, limit))
	}
}

// stick notes that the walk to used ended early.
func (f *file) stick(used int, err error) {
	if f.stuck != used {
		f.stuck, f.tries = used, 0
	}
	f.tries++
	f.walked = err
	f.fail(reasonOf(err), err)
}

// walk adds the new entries of one file to a layout.
type walk struct {
	*reader
	file     *file
	handle   handle
	window   entry.Window
	layout   *layout
	values   []float64
	unix     []float64
	template *layout
}

// run walks to the window's limit.
func (w *walk) run() error {
	framing := w.file.framing()
	if err := w.fill(w.layout.end); err != nil {
		return err
	}
	for at := w.layout.end; at < w.window.Limit; {
		if w.layout.len() >= w.in.limits.FileSeries {
			return fault(ReasonMaxFileSeries, "more than %d entries", w.in.limits.FileSeries)
		}
		s, err := framing.Entry(w.window, at)
		if errors.Is(err, entry.ErrWindow) {
			if err = w.fill(at); err == nil {
				continue
			}
		}
		if err != nil {
			return err
		}
		w.add(s)
		if s.Last {
			err := framing.End(w.window, s)
			w.file.guess = err != nil
			return err
		}
		at = s.Next()
	}
	if w.window.Limit < w.window.Used {
		return fmt.Errorf("header claims %d of %d bytes: %w", w.window.Used, w.window.Limit, entry.ErrTruncated)
	}
	return nil
}

// fill reads the window anew, from offset at on. A window that began there
// already is made larger.
func (w *walk) fill(at int) error {
	switch {
	case w.window.Base != at || len(w.window.Bytes) < len(w.buf):
	case len(w.buf) < maxBuffer:
		w.buf = make([]byte, 2*len(w.buf))
	case !w.window.Final:
		w.window.Final = true
		return nil
	default:
		return entry.At(at, fault(ReasonMaxLabelBytes, "entry of more than %d bytes", maxBuffer))
	}
	want := min(w.window.Limit-at, len(w.buf))
	n, err := w.handle.ReadAt(w.buf[:max(want, 0)], int64(at))
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if n < want {
		w.window.Limit = at + n
	}
	w.window.Base, w.window.Bytes, w.window.Final = at, w.buf[:n], false
	return nil
}

func (w *walk) add(s entry.Span) {
	at := s.Value - w.window.Base
	p := place{
		guard: binary.LittleEndian.Uint64(w.window.Bytes[at-8:]),
		at:    uint32(s.Value),
		wide:  s.Stride == 16 && w.file.stamped(),
	}
	w.layout.add(w.key(s.Key), p, s.Next())
	w.values = append(w.values, w.window.FloatAt(s.Value))
	w.unix = append(w.unix, w.window.Stamp(s))
}

// key returns the key of those bytes: most often the one that the file before
// had in the same place.
func (w *walk) key(raw []byte) *key {
	if i := w.layout.len(); w.template != nil && i < w.template.len() {
		if k := w.template.keys[i]; k.raw == string(raw) {
			return k
		}
	}
	return w.in.key(w.file.fileName, raw)
}

// adopt makes what was found the file's own.
func (w *walk) adopt() {
	if len(w.values) == 0 {
		return
	}
	f := w.file
	known := f.layout.len()
	f.layout = w.in.canonical(f.class(), w.layout)
	f.values = lengthen(f.values, f.layout.len())
	copy(f.values[known:], w.values)
	if f.stamped() {
		f.unix = lengthen(f.unix, f.layout.len())
		copy(f.unix[known:], w.unix)
	}
}

// lengthen returns list with n entries. A first list has no room for more, for
// there are many files, and most do not grow; one that grows may go on to.
func lengthen(list []float64, n int) []float64 {
	if len(list) == 0 {
		return make([]float64, n)
	}
	return slices.Grow(list, n-len(list))[:n]
}
