//go:build !linux

package multiproc

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
)

// osFS is the operating system's file system, by what every Unix has.
type osFS struct{}

func (osFS) openDir(path string) (directory, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	return &osDir{f: f}, nil
}

// openBelow would open a directory whose path begins at root.
func openBelow(*os.File, string) (directory, error) {
	return nil, fmt.Errorf("open below another root: %w", errors.ErrUnsupported)
}

type osDir struct{ f *os.File }

func (d *osDir) Close() error { return d.f.Close() }

func (d *osDir) stat() (dirStat, error) {
	info, err := d.f.Stat()
	if err != nil {
		return dirStat{}, err
	}
	id := identify(info)
	return dirStat{dirID: dirID{id.device, id.inode}, changed: info.ModTime(), known: true}, nil
}

func (d *osDir) list(visit func(name []byte, inode uint64, regular bool)) error {
	entries, err := d.f.ReadDir(-1)
	for _, e := range entries {
		var inode uint64
		if info, err := e.Info(); err == nil {
			inode = identify(info).inode
		}
		visit([]byte(e.Name()), inode, e.Type().IsRegular())
	}
	return err
}

func (d *osDir) reserve(int) {}

func (d *osDir) open(name string) (handle, fileID, error) {
	path := filepath.Join(d.f.Name(), name)
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, fileID{}, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errNotRegular
	}
	if err != nil {
		_ = f.Close()
		return nil, fileID{}, err
	}
	return osFile{f}, identify(info), nil
}

// osFile ends reads at the end of the file with io.EOF, as the contract of
// [io.ReaderAt] wants it.
type osFile struct{ *os.File }

var _ io.ReaderAt = osFile{}

func identify(info os.FileInfo) fileID {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fileID{}
	}
	return fileID{device: uint64(st.Dev), inode: uint64(st.Ino)}
}

// descriptorLimit returns how many files this process may have open.
func descriptorLimit() int {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return 256
	}
	return int(min(uint64(l.Cur), 1<<20))
}

// exhausted says whether err means that there are no more descriptors.
func exhausted(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)
}
