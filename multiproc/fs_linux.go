package multiproc

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// osFS is the operating system's file system.
type osFS struct{}

func (osFS) openDir(path string) (directory, error) {
	fd, err := retry(func() (int, error) {
		return unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return nil, err
	}
	return &osDir{fd: fd}, nil
}

// openBelow opens a directory for listing whose path begins at root: so do absolute links
// on the way, and no ".." leads out. What /proc has of processes is not followed. It needs
// Linux 5.6.
func openBelow(root *os.File, path string) (directory, error) {
	how := unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	}
	var fd int
	var err error
	for range 8 { // whoever renames a directory meanwhile makes the kernel give up
		fd, err = retry(func() (int, error) { return unix.Openat2(int(root.Fd()), path, &how) })
		if !errors.Is(err, unix.EAGAIN) {
			break
		}
	}
	if err != nil {
		return nil, err
	}
	return &osDir{fd: fd}, nil
}

// osDir is a directory's descriptor.
type osDir struct {
	fd     int
	device uint64
}

func (d *osDir) Close() error { return unix.Close(d.fd) }

func (d *osDir) stat() (dirStat, error) {
	var st unix.Stat_t
	if err := unix.Fstat(d.fd, &st); err != nil {
		return dirStat{}, err
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(d.fd, &fs); err != nil {
		return dirStat{}, err
	}
	d.device = st.Dev
	return dirStat{
		dirID: dirID{st.Dev, st.Ino}, changed: time.Unix(st.Mtim.Sec, st.Mtim.Nsec), known: storesFiles(int64(fs.Type)),
	}, nil
}

// storesFiles says whether a file system of that magic number keeps ordinary
// files: none that the kernel or a device makes up as it is read.
func storesFiles(magic int64) bool {
	switch magic {
	case unix.PROC_SUPER_MAGIC, unix.SYSFS_MAGIC, unix.DEBUGFS_MAGIC, unix.TRACEFS_MAGIC, unix.SECURITYFS_MAGIC,
		unix.CGROUP_SUPER_MAGIC, unix.CGROUP2_SUPER_MAGIC, unix.DEVPTS_SUPER_MAGIC, unix.BPF_FS_MAGIC,
		unix.SELINUX_MAGIC, unix.SMACK_MAGIC, unix.EFIVARFS_MAGIC, unix.PSTOREFS_MAGIC, unix.BINFMTFS_MAGIC,
		unix.NSFS_MAGIC, unix.USBDEVICE_SUPER_MAGIC, unix.RDTGROUP_SUPER_MAGIC, unix.AUTOFS_SUPER_MAGIC:
		return false
	}
	return true
}

func (d *osDir) list(visit func(name []byte, inode uint64, regular bool)) error {
	buf := make([]byte, 32<<10)
	for {
		n, err := retry(func() (int, error) { return unix.Getdents(d.fd, buf) })
		if err != nil {
			return err
		}
		if n == 0 {
			return nil
		}
		d.visit(buf[:n], visit)
	}
}

// visit goes over the records that getdents64 wrote: inode (8 bytes), offset
// (8), record length (2), type (1), name with a NUL.
func (d *osDir) visit(records []byte, visit func(name []byte, inode uint64, regular bool)) {
	const header = int(unsafe.Offsetof(unix.Dirent{}.Name))
	for len(records) >= header {
		size := int(binary.NativeEndian.Uint16(records[16:]))
		name, _, _ := bytes.Cut(records[header:size], []byte{0})
		kind := records[18]
		if string(name) != "." && string(name) != ".." {
			visit(name, binary.NativeEndian.Uint64(records), kind == unix.DT_REG || kind == unix.DT_UNKNOWN)
		}
		records = records[size:]
	}
}

// reserve makes the table of descriptors large enough in one step: the kernel
// lets all threads wait several milliseconds whenever it doubles it.
func (d *osDir) reserve(n int) {
	fd, err := unix.FcntlInt(uintptr(d.fd), unix.F_DUPFD_CLOEXEC, n)
	if err == nil {
		_ = unix.Close(fd)
	}
}

func (d *osDir) open(name string) (handle, fileID, error) {
	fd, err := retry(func() (int, error) {
		return unix.Openat(d.fd, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	})
	if errors.Is(err, unix.ELOOP) {
		return nil, fileID{}, fmt.Errorf("symbolic link: %w", errNotRegular)
	}
	if err != nil {
		return nil, fileID{}, err
	}
	id, err := identify(fd)
	if err == nil && d.device != 0 && id.device != d.device {
		err = fault(ReasonFilesystem, "on another file system than its directory")
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, fileID{}, err
	}
	return osFile(fd), id, nil
}

// identify returns the identity of the regular file that fd is open on.
func identify(fd int) (fileID, error) {
	var st unix.Statx_t
	mask := unix.STATX_TYPE | unix.STATX_INO | unix.STATX_BTIME
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC, mask, &st); err != nil {
		return fileID{}, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return fileID{}, errNotRegular
	}
	id := fileID{device: unix.Mkdev(st.Dev_major, st.Dev_minor), inode: st.Ino}
	if st.Mask&unix.STATX_BTIME != 0 {
		id.born = st.Btime.Sec*int64(time.Second) + int64(st.Btime.Nsec)
	}
	return id, nil
}

// osFile is a metric file's descriptor. An [os.File] would add a lock and a
// finalizer to each of ten thousand.
type osFile int

// ReadAt implements [io.ReaderAt].
func (f osFile) ReadAt(b []byte, off int64) (int, error) {
	done := 0
	for done < len(b) {
		n, err := unix.Pread(int(f), b[done:], off+int64(done))
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return done, err
		case n == 0:
			return done, io.EOF
		default:
			done += n
		}
	}
	return done, nil
}

// Close implements [io.Closer].
func (f osFile) Close() error { return unix.Close(int(f)) }

// retry calls f again for as long as a signal interrupts it.
func retry(f func() (int, error)) (int, error) {
	for {
		n, err := f()
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

// descriptorLimit returns how many files this process may have open.
func descriptorLimit() int {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return 1024
	}
	return int(min(l.Cur, 1<<20))
}

// exhausted says whether err means that there are no more descriptors.
func exhausted(err error) bool { return errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) }
