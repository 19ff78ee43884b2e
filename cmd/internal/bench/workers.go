package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"regexp"

	"golang.org/x/sys/unix"
)

// workers stands in for the processes that wrote a directory: like them it maps their files and changes
// values in place. Without it every scrape of a run would see the same values, which no real server shows.
type workers struct {
	maps  [][]byte
	slots []slot
	every int // one value in so many changes; 0: none
	turn  int
}

// slot is the place of one value.
type slot struct{ file, offset int }

// openWorkers maps the files of dir. percent of their values change with each advance.
func openWorkers(dir string, percent int) (*workers, error) {
	w := &workers{}
	if percent == 0 {
		return w, nil
	}
	w.every = max(1, 100/percent)
	paths, err := filepath.Glob(filepath.Join(dir, "*.db"))
	if err != nil {
		return nil, fmt.Errorf("list metric files: %w", err)
	}
	// Ruby's buckets are stored cumulated, and single ones cannot rise by themselves.
	cumulative := regexp.MustCompile(`^histogram_.*-\d+\.db$`)
	for _, path := range paths {
		if cumulative.MatchString(filepath.Base(path)) {
			continue
		}
		if err := w.add(path); err != nil {
			return nil, errors.Join(fmt.Errorf("map %s: %w", path, err), w.close())
		}
	}
	return w, nil
}

func (w *workers) add(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	b, err := unix.Mmap(int(f.Fd()), 0, int(info.Size()), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	w.maps = append(w.maps, b)
	offsets, err := valueOffsets(b)
	for _, at := range offsets {
		w.slots = append(w.slots, slot{len(w.maps) - 1, at})
	}
	return err
}

// advance changes the values whose turn it is.
func (w *workers) advance() {
	if w.every == 0 {
		return
	}
	for i := w.turn % w.every; i < len(w.slots); i += w.every {
		b := w.maps[w.slots[i].file][w.slots[i].offset:]
		value := math.Float64frombits(binary.NativeEndian.Uint64(b))
		binary.NativeEndian.PutUint64(b, math.Float64bits(value+1))
	}
	w.turn++
}

func (w *workers) close() error {
	var errs []error
	for _, b := range w.maps {
		errs = append(errs, unix.Munmap(b))
	}
	w.maps, w.slots = nil, nil
	return errors.Join(errs...)
}

// valueOffsets finds the values of a file at rest. Entries hold a value of 8 bytes, or of 16 where the client
// adds a time; the size under which they end where the header says is the right one.
func valueOffsets(b []byte) ([]int, error) {
	if len(b) < 8 {
		return nil, fmt.Errorf("%d bytes hold no header", len(b))
	}
	used := int(binary.NativeEndian.Uint32(b))
	if used > len(b) {
		return nil, fmt.Errorf("header claims %d of %d bytes", used, len(b))
	}
	for _, size := range []int{8, 16} {
		if offsets, ok := walk(b[:used], size); ok {
			return offsets, nil
		}
	}
	return nil, errors.New("entries do not end where the header says")
}

func walk(b []byte, size int) (offsets []int, ok bool) {
	at := 8
	for at+4 <= len(b) {
		key := int(binary.NativeEndian.Uint32(b[at:]))
		if key > len(b) {
			return nil, false
		}
		value := at + 4 + key + 8 - (4+key)%8
		offsets = append(offsets, value)
		at = value + size
	}
	return offsets, at == len(b)
}
