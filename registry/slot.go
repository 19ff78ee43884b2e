package registry

import (
	"errors"
	"fmt"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// WorkerSlot is the gauge, of mode liveall, by which a worker may announce its slot in its
// own file: its number in a server that gives workers none. It is read, and never shown.
const WorkerSlot = Prefix + "worker_slot"

// maxSlots is how many workers a directory may have.
const maxSlots = 1 << 16

// takeSlot takes the lowest number that no living process has of those that take
// theirs here. It is taken for as long as fd is open: the kernel unlocks it when the
// process dies, however it dies. A number whose file cannot be used is passed over.
func takeSlot(dir string) (slot string, fd int, err error) {
	for n := range maxSlots {
		slot = strconv.Itoa(n)
		path := filepath.Join(dir, "worker_"+slot+".lock")
		fd, err = lockSlot(path)
		if err == nil {
			return slot, fd, nil
		}
		if errors.Is(err, errNoSlot) {
			break
		}
	}
	return "", -1, fmt.Errorf("take a worker's slot: %w", err)
}

// errNoSlot says that there is no point in trying the next one.
var errNoSlot = errors.New("the directory cannot be used")

// lockSlot opens and locks the file of a slot, made if it is not there. It has no
// finalizer, as an os.File would: nobody may lose a slot by forgetting who has it.
func lockSlot(path string) (int, error) {
	const flags = unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NOFOLLOW | unix.O_NONBLOCK
	for {
		fd, err := unix.Open(path, flags, 0) // another user's may be read only
		if errors.Is(err, unix.ENOENT) {
			if fd, err = unix.Open(path, flags|unix.O_CREAT|unix.O_EXCL, 0o644); errors.Is(err, unix.EEXIST) {
				continue
			}
			if err != nil {
				return -1, fmt.Errorf("make %s: %w: %w", path, errNoSlot, err)
			}
		}
		if err != nil {
			return -1, fmt.Errorf("open %s: %w", path, err)
		}
		if err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err != nil {
			_ = unix.Close(fd)
			return -1, fmt.Errorf("lock %s: %w", path, err)
		}
		if named(fd, path) {
			return fd, nil
		}
		_ = unix.Close(fd) // it was deleted before it was locked
	}
}

// named says whether the file still has the path.
func named(fd int, path string) bool {
	var ours, theirs unix.Stat_t
	return unix.Fstat(fd, &ours) == nil && unix.Lstat(path, &theirs) == nil && ours.Ino == theirs.Ino && ours.Dev == theirs.Dev
}
