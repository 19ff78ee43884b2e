package entry

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// HeaderSize is where the first entry starts.
const HeaderSize = 8

// ErrWindow says that an [Window] ends before the entry does: read on, and try
// again with more bytes.
var ErrWindow = errors.New("entry goes beyond the bytes that were read")

// Framing is how entries follow one another in a file.
type Framing uint8

const (
	// Mapped is the framing of client_python and prometheus-client-mmap: the
	// length leaves out the padding.
	Mapped Framing = iota
	// Direct is the framing of client_ruby's DirectFileStore: the length
	// includes the padding.
	Direct
)

// Used returns the number of valid bytes that a file's header claims.
func Used(header []byte) int { return int(int32(binary.LittleEndian.Uint32(header))) }

// Float returns the number in the first eight bytes of b.
func Float(b []byte) float64 { return math.Float64frombits(binary.LittleEndian.Uint64(b)) }

// Window is a stretch of a metric file that was read into memory.
type Window struct {
	Bytes []byte
	Base  int  // offset of Bytes in the file
	Used  int  // what the header claims
	Limit int  // the smaller of Used and the file's size
	Final bool // it cannot be made larger: what lies beyond it is taken on trust
}

// Span is the place of one entry in a file.
type Span struct {
	At     int    // offset of the entry
	Key    []byte // part of the window, without padding
	Value  int    // offset of the value
	Stride int    // bytes from the value to the next entry: 8 or 16
	Last   bool   // nothing that can be read follows
}

// Next returns the offset of the entry behind this one.
func (s Span) Next() int { return s.Value + s.Stride }

// Entry returns the entry at offset at. The stride is decided for this entry
// alone: an upgrade in place leaves both in one file. The error is ErrWindow,
// or wraps ErrTruncated or ErrCorrupt and ends the walk.
func (f Framing) Entry(w Window, at int) (Span, error) {
	if at+4 > w.Limit {
		return Span{}, f.broken(w, at, "the file")
	}
	if !w.has(at, 4) {
		return Span{}, ErrWindow
	}
	n := w.int32(at)
	if !f.length(n) {
		return Span{}, At(at, fmt.Errorf("key of %d bytes: %w", n, ErrCorrupt))
	}
	value := f.value(at, n)
	if value+8 > w.Limit {
		return Span{}, f.broken(w, at, fmt.Sprintf("key of %d bytes: the file", n))
	}
	if !w.has(at, value+8-at) {
		return Span{}, ErrWindow
	}
	s := Span{At: at, Key: w.at(at+4, n), Value: value, Stride: 8}
	if f == Direct {
		s.Key = bytes.TrimRight(s.Key, " ")
	}
	return f.stride(w, s)
}

// stride decides how far the next entry is. FORMAT.md tells why no file can be
// read both ways.
func (f Framing) stride(w Window, s Span) (Span, error) {
	switch w.Used {
	case s.Value + 8:
		s.Last = true
		return s, nil
	case s.Value + 16:
		s.Stride, s.Last = 16, true
		return w.whole(s)
	}
	narrow, err := f.starts(w, s.Value+8)
	if err != nil {
		return Span{}, err
	}
	wide, err := f.starts(w, s.Value+16)
	if err != nil {
		return Span{}, err
	}
	if wide {
		s.Stride = 16
	}
	s.Last = !wide && !narrow
	return w.whole(s)
}

// whole returns s when the window has all of it that the file has.
func (w Window) whole(s Span) (Span, error) {
	if s.Next() <= w.Limit && !w.has(s.Value, s.Stride) {
		return Span{}, ErrWindow
	}
	return s, nil
}

// Stamp returns the time stamp of s, or 0 where the file has none.
func (w Window) Stamp(s Span) float64 {
	if s.Stride < 16 || !w.has(s.Value, 16) {
		return 0
	}
	return w.FloatAt(s.Value + 8)
}

// starts says whether an entry begins at q.
func (f Framing) starts(w Window, q int) (bool, error) {
	if q+6 > w.Limit {
		return false, nil
	}
	if !w.has(q, 6) {
		return false, ErrWindow
	}
	n := w.int32(q)
	if !f.length(n) || f.value(q, n)+8 > w.Limit {
		return false, nil
	}
	if f == Mapped && !bytes.Equal(w.at(q+4, 2), []byte(`["`)) {
		return false, nil
	}
	if !w.has(q, 4+n) {
		if w.Final {
			return true, nil
		}
		return false, ErrWindow
	}
	if f == Mapped {
		return w.at(q+4+n-1, 1)[0] == ']', nil
	}
	return directKey(w.at(q+4, n)), nil
}

// length says whether a key can have n bytes.
func (f Framing) length(n int) bool {
	if f == Direct {
		return n > 0 && n%8 == 4
	}
	return n >= 2
}

// value returns where the value of an entry at offset at is, whose key has n bytes.
func (f Framing) value(at, n int) int {
	if f == Direct {
		return at + 4 + n
	}
	return at + 4 + n + 8 - (4+n)%8
}

func (f Framing) broken(w Window, at int, what string) error {
	if w.Limit < w.Used {
		return At(at, fmt.Errorf("%s ends at byte %d of %d: %w", what, w.Limit, w.Used, ErrTruncated))
	}
	return At(at, fmt.Errorf("%s ends before it: %w", what, ErrCorrupt))
}

// directKey says whether b looks like a key of a DirectFileStore: a query
// string, then spaces.
func directKey(b []byte) bool {
	for _, c := range bytes.TrimRight(b, " ") {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case bytes.IndexByte([]byte("_.%=&+*-~"), c) >= 0:
		default:
			return false
		}
	}
	return true
}

// Foreign says whether the header and the first length make sense only in the
// other byte order: a file from another kind of machine.
func (f Framing) Foreign(header []byte, first []byte, size int) bool {
	if len(first) < 4 || f.plausible(int(int32(binary.LittleEndian.Uint32(first))), size) {
		return false
	}
	used := int(int32(binary.BigEndian.Uint32(header)))
	return used >= HeaderSize && used <= size && f.plausible(int(int32(binary.BigEndian.Uint32(first))), used)
}

func (f Framing) plausible(n, size int) bool {
	return f.length(n) && f.value(HeaderSize, n)+8 <= size
}

func (w Window) has(at, n int) bool { return at >= w.Base && at+n <= w.Base+len(w.Bytes) }

func (w Window) at(off, n int) []byte { return w.Bytes[off-w.Base : off-w.Base+n : off-w.Base+n] }

func (w Window) int32(at int) int { return int(int32(binary.LittleEndian.Uint32(w.at(at, 4)))) }

// FloatAt returns the number at offset at, which the window must hold.
func (w Window) FloatAt(at int) float64 { return Float(w.at(at, 8)) }

// Decode walks a whole file in memory and appends its samples to dst. parse
// reads one key. An entry whose key is wrong stays in the list with its Err;
// what ends the walk is returned, with the samples before it. The samples keep
// no reference to b.
func Decode(dst []Sample, b []byte, f Framing, parse func([]byte) (Key, error)) ([]Sample, error) {
	if len(b) < 4 {
		return dst, nil // created, its header not yet written
	}
	w := Window{Bytes: b, Used: Used(b)}
	if w.Used <= HeaderSize {
		return dst, nil // no entries yet
	}
	w.Limit = min(w.Used, len(b))
	if w.Used > len(b) && len(b) >= HeaderSize && f.Foreign(b, b[HeaderSize:], len(b)) {
		return dst, fmt.Errorf("header claims %d of %d bytes, in the other byte order: %w", w.Used, len(b), ErrForeign)
	}
	for at := HeaderSize; at < w.Limit; {
		s, err := f.Entry(w, at)
		if err != nil {
			return dst, err
		}
		dst = append(dst, sample(w, s, parse))
		if s.Last {
			return dst, f.End(w, s)
		}
		at = s.Next()
	}
	if w.Limit < w.Used {
		return dst, fmt.Errorf("header claims %d of %d bytes: %w", w.Used, len(b), ErrTruncated)
	}
	return dst, nil
}

// End judges a walk that stopped behind s: nil when that is the end which the
// header claims.
func (f Framing) End(w Window, s Span) error {
	if s.Next() == w.Used {
		return nil
	}
	if w.Limit < w.Used {
		return f.broken(w, s.Next(), "the file")
	}
	return At(s.Next(), fmt.Errorf("bytes that are no entry: %w", ErrCorrupt))
}

func sample(w Window, s Span, parse func([]byte) (Key, error)) Sample {
	out := Sample{Raw: string(s.Key), Offset: s.At, Value: w.FloatAt(s.Value), Unix: w.Stamp(s)}
	key, err := parse(s.Key)
	if err != nil {
		out.Err = At(s.At, err)
		return out
	}
	out.Key = key
	out.Era = EraOf(key.Era, s.Stride)
	return out
}

// EraOf tells D from C, and S16 from S8, by the stride.
func EraOf(e Era, stride int) Era {
	switch {
	case e == EraC && stride == 16:
		return EraD
	case e == EraS8 && stride == 16:
		return EraS16
	}
	return e
}

// Start returns the offset of the entry whose value is at offset value and
// whose key has n bytes.
func (f Framing) Start(value, n int) int {
	if f == Direct {
		n += (4 - n%8 + 8) % 8
		return value - n - 4
	}
	return value - (4 + n + 8 - (4+n)%8)
}

// Holds says whether b, an entry up to its value, has that key.
func (f Framing) Holds(b []byte, key string) bool {
	n := len(key)
	if f == Direct {
		n = len(b) - 4
	}
	return int(int32(binary.LittleEndian.Uint32(b))) == n && string(b[4:4+len(key)]) == key
}
