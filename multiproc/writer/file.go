package writer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/prefork-exporter/prefork_exporter/multiproc/internal/pyfile"
)

// cell is where an entry has its value and its time stamp: bits of float64s in a
// mapping, or in memory when there is no room in the file.
type cell struct{ value, stamp *uint64 }

// newCell returns a cell in memory.
func newCell() cell {
	c := new([2]uint64)
	return cell{&c[0], &c[1]}
}

// file is one metric file of era D. What was mapped once stays where it is until
// the process ends, so that cells need no lock.
type file struct {
	path string

	mu       sync.Mutex
	fd       *os.File // nil: there is none, and cells are in memory
	segments []segment
	size     int
	used     *uint32 // in the mapping
	cells    map[string]cell
	report   func(error)
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

// openFile opens or creates the file at path, for this process alone. A file that is
// there is continued.
func openFile(path string, report func(error)) (*file, error) {
	f := &file{path: path, cells: map[string]cell{}, report: report}
	fd, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o644)
	if err != nil {
		return f, err
	}
	if err := f.adopt(fd); err != nil {
		_ = fd.Close()
		return f, err
	}
	f.fd = fd
	return f, nil
}

// errInUse says that another writer has the file.
var errInUse = errors.New("another process writes it: two processes need two ids")

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
	if err := f.extend(fd, max(initialSize, roundUp(len(old)))); err != nil {
		return err
	}
	f.used = (*uint32)(unsafe.Pointer(&f.segments[0].data[0]))
	return f.recall(old)
}

// recall finds the cells of entries that are there.
func (f *file) recall(old []byte) error {
	samples, err := pyfile.Decode(nil, old)
	if err != nil {
		return fmt.Errorf("continue %s: %w", f.path, err)
	}
	for _, s := range samples {
		if s.Era.String() != "D" {
			return fmt.Errorf("continue %s: entry at byte %d is of era %s, not of this one", f.path, s.Offset, s.Era)
		}
		f.cells[s.Raw] = f.cellAt(s.Offset + 4 + padded(len(s.Raw)))
	}
	if atomic.LoadUint32(f.used) < headerSize {
		atomic.StoreUint32(f.used, headerSize)
	}
	return nil
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
	f.mu.Lock()
	defer f.mu.Unlock()
	if c, ok := f.cells[string(key)]; ok {
		return c
	}
	c, err := f.append(key)
	if err != nil {
		c = newCell()
		f.report(err)
	}
	f.cells[string(key)] = c
	return c
}

// append writes a new entry, and then the header, as the readers expect it.
func (f *file) append(key []byte) (cell, error) {
	if f.fd == nil {
		return newCell(), nil // reported when it was opened
	}
	at := int(atomic.LoadUint32(f.used))
	value := at + 4 + padded(len(key))
	end := value + 16
	for end > f.size {
		if err := f.extend(f.fd, 2*f.size); err != nil {
			return cell{}, err
		}
	}
	entry := binary.NativeEndian.AppendUint32(nil, uint32(len(key)))
	entry = append(entry, key...)
	entry = append(entry, "        "[:value-at-len(entry)]...)
	if _, err := f.fd.WriteAt(entry, int64(at)); err != nil {
		return cell{}, fmt.Errorf("append to %s: %w", f.path, err)
	}
	c := f.cellAt(value)
	atomic.StoreUint64(c.value, 0)
	atomic.StoreUint64(c.stamp, 0)
	atomic.StoreUint32(f.used, uint32(end))
	return c, nil
}

// cellAt returns the cell whose value is at that offset.
func (f *file) cellAt(at int) cell { return cell{f.word(at), f.word(at + 8)} }

// word returns the eight bytes at that offset, a multiple of eight.
func (f *file) word(at int) *uint64 {
	for i := len(f.segments) - 1; ; i-- {
		if s := f.segments[i]; at >= s.from {
			return (*uint64)(unsafe.Pointer(&s.data[at-s.from]))
		}
	}
}

// close lets go of the lock. The mapping stays: metrics may still count.
func (f *file) close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fd == nil {
		return nil
	}
	err := errors.Join(unix.Flock(int(f.fd.Fd()), unix.LOCK_UN), f.fd.Close()) // the mapping would keep the lock
	f.fd = nil
	return err
}
