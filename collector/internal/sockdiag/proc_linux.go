package sockdiag

import (
	"bytes"
	"encoding/binary"
	"io"
	"net/netip"
	"os"
	"strconv"
	"strings"
)

// tableSize is how much of a table is read, some 1,700 rows. Linux lists who listens
// before all connections, of which there may be very many, and each row takes it long.
const tableSize = 256 << 10

// readTable returns whole rows.

func readTable(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	table, err := io.ReadAll(io.LimitReader(f, tableSize))
	return table[:bytes.LastIndexByte(table, '\n')+1], err
}

// parseProcTCP reads proc_net(5), tcp and tcp6: a head, then rows of
//
//	sl local_address rem_address st tx_queue:rx_queue tr:when retrnsmt uid timeout inode …
//
// in hexadecimal up to the queues. Of a listening socket (st 0A) the receive queue has the
// connections that wait. Rows that make no sense are left out.
func parseProcTCP(table []byte) (sockets []Socket) {
	for line := range bytes.Lines(table) {
		fields := strings.Fields(string(line))
		if len(fields) < 10 || fields[3] != "0A" {
			continue
		}
		address, ok := parseProcAddress(fields[1])
		_, queue, _ := strings.Cut(fields[4], ":")
		depth, err := strconv.ParseUint(queue, 16, 32)
		inode, inodeErr := strconv.ParseUint(fields[9], 10, 64)
		if !ok || err != nil || inodeErr != nil {
			continue
		}
		sockets = append(sockets, Socket{Address: address, ID: ID{Inode: inode}, Depth: int64(depth), Limit: Unknown, Drops: Unknown})
	}
	return sockets
}

// parseProcAddress reads 0100007F:1F90, which is 127.0.0.1:8000: the address in words of
// the machine's byte order, the port as it is.
func parseProcAddress(text string) (Address, bool) {
	host, port, _ := strings.Cut(text, ":")
	number, err := strconv.ParseUint(port, 16, 16)
	if err != nil {
		return Address{}, false
	}
	var b []byte
	for ; len(host) >= 8; host = host[8:] {
		word, err := strconv.ParseUint(host[:8], 16, 32)
		if err != nil {
			return Address{}, false
		}
		b = binary.NativeEndian.AppendUint32(b, uint32(word))
	}
	a, ok := netip.AddrFromSlice(b)
	family := TCP4
	if a.Is6() {
		family = TCP6
	}
	return Address{Family: family, TCP: netip.AddrPortFrom(a, uint16(number))}, ok && host == ""
}

// parseProcUnix reads proc_net(5), unix: a head, then rows of
//
//	Num: RefCount Protocol Flags Type St Inode Path
//
// in hexadecimal but for the inode. A socket with the flag 10000 listens. The connections that
// wait are sockets of their own that have its path and the state 02, connecting.
// Two sockets of one path cannot be told apart: the first has all that wait.
func parseProcUnix(table []byte) (sockets []Socket) {
	waiting := map[string]int64{}
	for line := range bytes.Lines(table) {
		fields, path := leadingFields(strings.TrimSuffix(string(line), "\n"), 7)
		flags, err := strconv.ParseUint(fields[3], 16, 32)
		inode, inodeErr := strconv.ParseUint(fields[6], 10, 64)
		switch {
		case err != nil || inodeErr != nil || path == "":
		case flags&0x10000 != 0:
			sockets = append(sockets, Socket{Address: Address{Family: Unix, Path: path}, ID: ID{Inode: inode}, Limit: Unknown, Drops: Unknown})
		case fields[5] == "02":
			waiting[path]++
		}
	}
	for i, s := range sockets {
		sockets[i].Depth = waiting[s.Path]
		delete(waiting, s.Path)
	}
	return sockets
}

// leadingFields returns the first n fields of a line, and what is behind the blank that
// ends them: a path may have blanks in it.
func leadingFields(line string, n int) (fields []string, rest string) {
	for range n {
		var field string
		field, line, _ = strings.Cut(strings.TrimLeft(line, " "), " ")
		fields = append(fields, field)
	}
	return fields, line
}
