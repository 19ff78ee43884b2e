package sockdiag

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/prefork-exporter/prefork_exporter/collector/internal/procfs"
)

// Of many processes with very many files only so many are looked at: to find out what a
// descriptor is takes a microsecond. Those that listen have low numbers, for a server
// opens them before it has connections.
const (
	mostFiles    = 256 // of one process
	mostFilesAll = 20_000
)

// Held returns the inodes of the sockets that a process and its descendants have open,
// but for this process and its own. It reads the state of every process there is. The
// error says that the descriptors of some of them may not be read; what was read is
// returned with it.
func (k *Kernel) Held(pid int) (map[uint64]bool, error) {
	children, err := procfs.New(k.proc).Families()
	if err != nil {
		return nil, err
	}
	inodes := map[uint64]bool{}
	var failed error
	left := mostFilesAll
	self := os.Getpid()
	for family := []int{pid}; len(family) > 0; family = family[1:] {
		of := family[0]
		n, err := k.socketsOf(of, min(mostFiles, left), inodes)
		if errors.Is(err, fs.ErrPermission) { // else it has ended
			failed = fmt.Errorf("read the descriptors of process %d: %w", of, err)
		}
		left -= n
		sons := slices.DeleteFunc(children[of], func(pid int) bool { return pid == self })
		delete(children, of) // a table that was read while processes ended may have a circle
		family = append(family, sons...)
	}
	return inodes, failed
}

// socketsOf adds the inodes of the sockets among a process's first files, and returns how
// many files those were.
func (k *Kernel) socketsOf(pid, most int, to map[uint64]bool) (int, error) {
	return k.Sockets(pid, most, func(_ string, inode uint64) { to[inode] = true })
}

// Sockets calls each with the descriptor and the inode of every socket among a process's
// first files, and returns how many files those were, at most as many as asked for. Who
// may not trace the process may not.
func (k *Kernel) Sockets(pid, most int, each func(fd string, inode uint64)) (int, error) {
	if most == 0 {
		return 0, nil
	}
	d, err := os.Open(k.descriptors(pid))
	if err != nil {
		return 0, err
	}
	defer func() { _ = d.Close() }()
	names, err := d.Readdirnames(most)
	if errors.Is(err, io.EOF) {
		err = nil // it has none
	}
	for _, fd := range names {
		if inode, ok := k.SocketAt(pid, fd); ok {
			each(fd, inode)
		}
	}
	return len(names), err
}

func (k *Kernel) descriptors(pid int) string {
	return filepath.Join(k.proc, strconv.Itoa(pid), "fd")
}

// SocketAt returns the inode of the socket that a process has at a descriptor, if it is one.
func (k *Kernel) SocketAt(pid int, fd string) (inode uint64, ok bool) {
	target, err := os.Readlink(k.descriptors(pid) + "/" + fd)
	if err != nil {
		return 0, false // closed since
	}
	return parseSocketLink(target)
}

// parseSocketLink reads socket:[4711], which a descriptor of a socket is a link to.
func parseSocketLink(target string) (uint64, bool) {
	number, ok := strings.CutPrefix(target, "socket:[")
	inode, err := strconv.ParseUint(strings.TrimSuffix(number, "]"), 10, 64)
	return inode, ok && err == nil
}
