package writer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/prefork-exporter/prefork_exporter/multiproc/internal/entry"
	"github.com/prefork-exporter/prefork_exporter/multiproc/internal/pyfile"
)

// file is one metric file of era D. What was mapped once stays where it is until
// the process ends, so that cells need no lock.
type file struct {
	path    string
	onError func(error)
	told    atomic.Bool // onError was called

	mu       sync.Mutex
	fd       *os.File // nil: new cells are in memory
	gone     bool     // memory is in the place of the mapping
	segments []segment
	size     int
	used     *uint32 // the header, in the mapping
	end      int     // what we wrote there
	known    map[string]cell
}

// segment is a part of the file that was mapped at once.
type segment struct {
	from int
	data []byte
}

const (
	headerSize  = 8
	initialSize = 64 << 10
	maxSize     = 256 << 20 // more than readers take by default
	maxKey      = 1 << 20   // likewise
)

func newFile(path string, onError func(error)) *file {
	return &file{path: path, onError: onError, known: map[string]cell{}}
}

// report tells of the first error that is not nil. It must be called without a
// lock: who is told may count, and take long.
func (f *file) report(err error) {
	if err != nil && f.told.CompareAndSwap(false, true) {
		f.onError(err)
	}
}

// open opens the file for this process alone, and continues what is there. It wraps
// os.ErrNotExist or os.ErrExist when flags have os.O_EXCL or not os.O_CREATE.
func (f *file) open(flags int) error {
	fd, err := lock(f.path, flags)
	if err != nil {
		return err
	}
	if err := f.adopt(fd); err != nil {
		_ = fd.Close()
		return err
	}
	f.fd = fd
	return nil
}

// lock opens and locks the file that has the path, and has it still when it is locked.
func lock(path string, flags int) (*os.File, error) {
	for {
		fd, err := os.OpenFile(path, os.O_RDWR|unix.O_NOFOLLOW|unix.O_NONBLOCK|flags, 0o644)
		if err != nil {
			return nil, err
		}
		named, err := tryLock(fd, path)
		if err == nil && named {
			return fd, nil
		}
		_ = fd.Close()
		if err != nil {
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
	}
}

// tryLock locks a file, and says whether it still has the path: between open and
// lock another process may have given it another.
func tryLock(fd *os.File, path string) (named bool, err error) {
	if err := unix.Flock(int(fd.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = errInUse
		}
		return false, err
	}
	ours, err := fd.Stat()
	if err != nil {
		return false, err
	}
	theirs, err := os.Lstat(path)
	return err == nil && os.SameFile(ours, theirs), nil
}

var (
	// errInUse says that another writer has the file.
	errInUse = errors.New("another writer has it: two of them need two ids")

	// errForeign says that the file has something else in it.
	errForeign = errors.New("not a file of this era")

	errCut     = errors.New("another program has cut it")
	errChanged = errors.New("another program has written it")
	errDeleted = errors.New("it was deleted: what counts there is not seen until this process begins anew")
)

// adopt maps the file that fd is open on, and finds what is in it.
func (f *file) adopt(fd *os.File) error {
	old, size, err := contents(fd)
	if err != nil {
		return fmt.Errorf("continue %s: %w", f.path, err)
	}
	samples, err := decode(old)
	if err != nil {
		return fmt.Errorf("continue %s: %w", f.path, err)
	}
	if err := f.extend(fd, max(initialSize, roundUp(size))); err != nil {
		return err
	}
	f.used = (*uint32)(unsafe.Pointer(&f.segments[0].data[0]))
	if len(old) > 0 {
		f.end = len(old)
	} else if err := f.begin(); err != nil {
		return err
	}
	for _, s := range samples {
		f.known[s.Raw] = f.cellAt(s.Offset + 4 + padded(len(s.Raw)))
	}
	return nil
}

// contents returns the part of a file that is in use, and how long the file is.
func contents(fd *os.File) (used []byte, size int, err error) {
	info, err := fd.Stat()
	if err != nil {
		return nil, 0, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxSize {
		return nil, 0, fmt.Errorf("%s, %d bytes: %w", info.Mode(), info.Size(), errForeign)
	}
	if size = int(info.Size()); size < headerSize {
		return nil, size, nil
	}
	var header [headerSize]byte
	if _, err := fd.ReadAt(header[:], 0); err != nil {
		return nil, 0, err
	}
	end := int64(int32(binary.NativeEndian.Uint32(header[:])))
	switch {
	case end == 0:
		return nil, size, nil // nobody has begun it
	case end < headerSize || end > int64(size) || end%8 != 0:
		return nil, 0, fmt.Errorf("header claims %d of %d bytes: %w", end, size, errForeign)
	}
	used = make([]byte, end)
	_, err = fd.ReadAt(used, 0)
	return used, size, err
}

// begin writes the header of an empty file.
func (f *file) begin() (err error) {
	f.end = headerSize
	return f.guarded(func() { atomic.StoreUint32(f.used, headerSize) })
}

// decode returns the samples of a file that can be continued.
func decode(used []byte) ([]entry.Sample, error) {
	if len(used) == 0 {
		return nil, nil
	}
	samples, err := pyfile.Decode(nil, used)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errForeign, err)
	}
	for _, s := range samples {
		if s.Era != entry.EraD {
			return nil, fmt.Errorf("entry at byte %d is of era %s: %w", s.Offset, s.Era, errForeign)
		}
	}
	return samples, nil
}

// padded is how many bytes a key and the blanks behind it take: one to eight
// blanks, up to a multiple of eight with the length before it.
func padded(key int) int { return key + 8 - (key+4)%8 }

func roundUp(n int) int {
	page := os.Getpagesize()
	return (n + page - 1) / page * page
}

// extend makes the file size bytes long, all of them allocated: a write into a
// mapping must never find the disk full. It maps what is new.
func (f *file) extend(fd *os.File, size int) error {
	if size > maxSize {
		return fmt.Errorf("grow %s to %d bytes: more than the %d that a file may have", f.path, size, maxSize)
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &limit); err == nil && uint64(size) > limit.Cur {
		return fmt.Errorf("grow %s to %d bytes: %w (RLIMIT_FSIZE is %d)", f.path, size, unix.EFBIG, limit.Cur)
	}
	if err := allocate(fd, f.size, size); err != nil {
		return fmt.Errorf("grow %s to %d bytes: %w", f.path, size, err)
	}
	data, err := unix.Mmap(int(fd.Fd()), int64(f.size), size-f.size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("map %s: %w", f.path, err)
	}
	f.segments = append(f.segments, segment{f.size, data})
	f.size = size
	return nil
}

// cells returns the cells of the entries with those keys, appended where they are
// new. When there is no room for all, which is reported, all are in memory: parts of
// one metric would contradict each other.
func (f *file) cells(keys ...[]byte) []cell {
	cells, err := f.place(keys)
	f.report(err)
	return cells
}

func (f *file) place(keys [][]byte) (cells []cell, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	missing := slices.DeleteFunc(slices.Clone(keys), func(key []byte) bool { return f.known[string(key)].value != nil })
	switch {
	case len(missing) == 0:
	case f.fd == nil: // closed or lost, which was reported
		f.remember(missing)
	default:
		var placed bool
		if placed, err = f.add(missing); !placed {
			f.remember(keys)
		}
	}
	for _, key := range keys {
		cells = append(cells, f.known[string(key)])
	}
	return cells, err
}

// remember gives keys cells in memory.
func (f *file) remember(keys [][]byte) {
	for _, key := range keys {
		memory := new([2]uint64)
		f.known[string(key)] = cell{&memory[0], &memory[1], f}
	}
}

// add appends entries, and then writes the header, as the readers expect it. It says
// whether they are there; there may be an error all the same.
func (f *file) add(keys [][]byte) (placed bool, err error) {
	b, values := make([]byte, 0, 128), make([]int, len(keys))
	for i, key := range keys {
		if len(key) > maxKey {
			return false, fmt.Errorf("append to %s: a key of %d bytes: no reader takes more than %d", f.path, len(key), maxKey)
		}
		b = binary.NativeEndian.AppendUint32(b, uint32(len(key)))
		b = append(append(b, key...), "        "[:padded(len(key))-len(key)]...)
		values[i] = f.end + len(b)
		b = append(b, make([]byte, 16)...)
	}
	for f.end+len(b) > f.size {
		if err := f.extend(f.fd, 2*f.size); err != nil {
			return false, err
		}
	}
	changed := false
	if err := f.guarded(func() { changed = !f.write(b) }); err != nil {
		return false, err
	}
	if changed {
		_ = f.letGo()
		return false, fmt.Errorf("append to %s: %w", f.path, errChanged)
	}
	for i, key := range keys {
		f.known[string(key)] = f.cellAt(values[i])
	}
	return true, f.deleted()
}

// write appends b, and moves the header. It does neither when the header is not as
// it was left.
func (f *file) write(b []byte) bool {
	if atomic.LoadUint32(f.used) != uint32(f.end) {
		return false
	}
	at := f.end
	for len(b) > 0 {
		n := copy(f.at(at), b)
		at, b = at+n, b[n:]
	}
	atomic.StoreUint32(f.used, uint32(at))
	f.end = at
	return true
}

// guarded does what accesses the mapping. The error says that a page of it is gone.
func (f *file) guarded(do func()) (err error) {
	was := debug.SetPanicOnFault(true)
	defer func() {
		debug.SetPanicOnFault(was)
		if p := recover(); p != nil {
			err = f.replace(p)
		}
	}()
	do()
	return nil
}

// deleted returns an error when the file has no name any more.
func (f *file) deleted() error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.fd.Fd()), &st); err != nil || st.Nlink > 0 {
		return nil // what cannot be known is not told
	}
	return fmt.Errorf("count in %s: %w", f.path, errDeleted)
}

// survive is told what an access to a cell panicked with. When a page of the
// mapping is gone, it puts memory there; else it panics on.
func (f *file) survive(p any) {
	f.report(func() error {
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.replace(p)
	}())
}

// replace puts memory in the place of the mapping, where counting goes on from
// zero, if p is the panic of an access to it; else it panics on.
func (f *file) replace(p any) error {
	fault, ok := p.(interface{ Addr() uintptr })
	if !ok || !f.maps(fault.Addr()) {
		panic(p)
	}
	if f.gone {
		return nil // another access was here first
	}
	for _, s := range f.segments {
		const flags = unix.MAP_PRIVATE | unix.MAP_ANON | unix.MAP_FIXED
		_, err := unix.MmapPtr(-1, 0, unsafe.Pointer(&s.data[0]), uintptr(len(s.data)), unix.PROT_READ|unix.PROT_WRITE, flags)
		if err != nil {
			panic(p)
		}
	}
	f.gone = true
	_ = f.letGo()
	return fmt.Errorf("count in %s: %w", f.path, errCut)
}

// maps says whether an address is in the mapping.
func (f *file) maps(addr uintptr) bool {
	return slices.ContainsFunc(f.segments, func(s segment) bool {
		return addr-uintptr(unsafe.Pointer(&s.data[0])) < uintptr(len(s.data))
	})
}

// cellAt returns the cell whose value is at that offset.
func (f *file) cellAt(at int) cell { return cell{f.word(at), f.word(at + 8), f} }

// word returns the eight bytes at that offset, a multiple of eight.
func (f *file) word(at int) *uint64 { return (*uint64)(unsafe.Pointer(&f.at(at)[0])) }

// at returns the mapping from that offset on, to the end of its segment.
func (f *file) at(offset int) []byte {
	for i := len(f.segments) - 1; ; i-- {
		if s := f.segments[i]; offset >= s.from {
			return s.data[offset-s.from:]
		}
	}
}

// close lets go of the file, and deletes it first on request. The mapping stays:
// metrics may still count.
func (f *file) close(andDelete bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	var err error
	if andDelete && f.fd != nil {
		if err = os.Remove(f.path); errors.Is(err, os.ErrNotExist) {
			err = nil
		}
	}
	return errors.Join(err, f.letGo())
}

// letGo unlocks the file and closes it: new cells are in memory.
func (f *file) letGo() error {
	if f.fd == nil {
		return nil
	}
	err := errors.Join(unix.Flock(int(f.fd.Fd()), unix.LOCK_UN), f.fd.Close()) // the mapping would keep the lock
	f.fd = nil
	return err
}
