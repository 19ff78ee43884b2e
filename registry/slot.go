package registry

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// maxSlots is how many workers a directory may have.
const maxSlots = 1 << 16

// takeSlot takes the lowest number that no living process has of those that take
// theirs here. It is taken for as long as the file is open: the kernel unlocks it
// when the process dies, however it dies.
func takeSlot(dir string) (string, *os.File, error) {
	for n := range maxSlots {
		slot := strconv.Itoa(n)
		f, err := os.OpenFile(filepath.Join(dir, "worker_"+slot+".lock"), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o644)
		if err != nil {
			return "", nil, fmt.Errorf("take a worker's slot: %w", err)
		}
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return slot, f, nil
		}
		_ = f.Close()
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return "", nil, fmt.Errorf("take a worker's slot: lock %s: %w", f.Name(), err)
		}
	}
	return "", nil, fmt.Errorf("take a worker's slot: %d workers live in %s", maxSlots, dir)
}
