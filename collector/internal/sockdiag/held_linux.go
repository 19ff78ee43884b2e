package sockdiag

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
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
// but for this process and its own. The error says that some of them may not be looked at;
// what was read is returned with it.
func (k *Kernel) Held(pid int) (map[uint64]bool, error) {
	relatives := procfs.New(k.proc).Relatives()
	inodes := map[uint64]bool{}
	seen := map[int]bool{os.Getpid(): true} // a table that is read while processes end may have a circle
	var failed error
	left := mostFilesAll
	for all := []int{pid}; len(all) > 0; all = all[1:] {
		one := all[0]
		if seen[one] {
			continue
		}
		seen[one] = true
		n, err := k.socketsOf(one, min(mostFiles, left), inodes)
		if errors.Is(err, fs.ErrPermission) { // else it has ended
			failed = fmt.Errorf("read the descriptors of process %d: %w", one, err)
		}
		left -= n
		children, err := relatives.Children(one)
		if err != nil {
			failed = err
		}
		all = append(all, children...)
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
