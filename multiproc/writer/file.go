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
	once    sync.Once // for onError

	mu       sync.Mutex
	fd       *os.File // nil: new cells are in memory
	gone     bool     // memory is in the place of the mapping
	segments []segment
	size     int
	used     *uint32 // the header, in the mapping
	end      int     // what we wrote there
	cells    map[string]cell
}

// segment is a part of the file that was mapped at once.
type segment struct {
	from int
	data []byte
}

const (
	headerSize  = 8
	initialSize = 64 << 10
	maxSize     = 1 << 30 // the header is a signed 32 bit number
)

func newFile(path string, onError func(error)) *file {
	return &file{path: path, onError: onError, cells: map[string]cell{}}
}

// report tells of the first error that is not nil. It must be called without f.mu:
// who is told may count.
func (f *file) report(err error) {
	if err != nil {
		f.once.Do(func() { f.onError(err) })
	}
}

// open opens or creates the file, for this process alone. A file that is there is
// continued, unless flags have os.O_EXCL; errForeign is wrapped when it cannot be.
func (f *file) open(flags int) error {
	fd, err := os.OpenFile(f.path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW|flags, 0o644)
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

var (
	// errInUse says that another writer has the file.
	errInUse = errors.New("another writer has it: two of them need two ids")

	// errForeign says that the file has something else in it.
	errForeign = errors.New("not a file of this era")

	errCut     = errors.New("another program has cut it")
	errChanged = errors.New("another program has written it")
	errDeleted = errors.New("it was deleted: what counts there is not seen until this process begins anew")
)

// adopt locks, maps and reads the file that fd is open on.
func (f *file) adopt(fd *os.File) error {
	if err := unix.Flock(int(fd.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = errInUse
		}
		return fmt.Errorf("lock %s: %w", f.path, err)
	}
	info, err := fd.Stat()
	if err != nil {
		return err
	}
	old := make([]byte, info.Size())
	if _, err := fd.ReadAt(old, 0); err != nil && len(old) > 0 {
		return fmt.Errorf("read %s: %w", f.path, err)
	}
	samples, err := decode(old)
	if err != nil {
		return fmt.Errorf("continue %s: %w", f.path, err)
	}
	if err := f.extend(fd, max(initialSize, roundUp(len(old)))); err != nil {
		return err
	}
	f.used = (*uint32)(unsafe.Pointer(&f.segments[0].data[0]))
	f.end = max(headerSize, int(atomic.LoadUint32(f.used)))
	atomic.StoreUint32(f.used, uint32(f.end))
	for _, s := range samples {
		f.cells[s.Raw] = f.cellAt(s.Offset + 4 + padded(len(s.Raw)))
	}
	return nil
}

// decode returns the samples of a file that can be continued.
func decode(b []byte) ([]entry.Sample, error) {
	samples, err := pyfile.Decode(nil, b)
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
		return fmt.Errorf("grow %s to %d bytes: more than its header can count", f.path, size)
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

// cell returns the cell of the entry with that key, appended when it is new. One
// that finds no room is in memory, and reported.
func (f *file) cell(key []byte) cell {
	c, err := f.find(key)
	f.report(err)
	return c
}

func (f *file) find(key []byte) (cell, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if c, ok := f.cells[string(key)]; ok {
		return c, nil
	}
	var c cell
	var err error
	if f.fd != nil {
		c, err = f.append(key)
	}
	if c.value == nil {
		memory := new([2]uint64)
		c = cell{&memory[0], &memory[1], f}
	}
	f.cells[string(key)] = c
	return c, err
}

// append writes a new entry, and then the header, as the readers expect it.
func (f *file) append(key []byte) (c cell, err error) {
	value := f.end + 4 + padded(len(key))
	end := value + 16
	for end > f.size {
		if err := f.extend(f.fd, 2*f.size); err != nil {
			return c, err
		}
	}
	b := binary.NativeEndian.AppendUint32(nil, uint32(len(key)))
	b = append(b, key...)
	b = append(b, "        "[:value-f.end-len(b)]...)
	b = append(b, make([]byte, 16)...)

	was := debug.SetPanicOnFault(true)
	defer func() {
		if debug.SetPanicOnFault(was); c.value == nil && err == nil {
			err = f.replace(recover())
		}
	}()
	if used := atomic.LoadUint32(f.used); int(used) != f.end {
		_ = f.letGo()
		return c, fmt.Errorf("append to %s: its header says %d, and should say %d: %w", f.path, used, f.end, errChanged)
	}
	f.write(f.end, b)
	atomic.StoreUint32(f.used, uint32(end))
	f.end = end
	return f.cellAt(value), f.deleted()
}

// deleted returns an error when the file has no name any more.
func (f *file) deleted() error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.fd.Fd()), &st); err != nil || st.Nlink > 0 {
		return nil // what cannot be known is not told
	}
	return fmt.Errorf("count in %s: %w", f.path, errDeleted)
}

// write copies b into the mapping.
func (f *file) write(at int, b []byte) {
	for len(b) > 0 {
		n := copy(f.at(at), b)
		at, b = at+n, b[n:]
	}
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
		return nil // another goroutine was here first
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
