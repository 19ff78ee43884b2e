package sockdiag

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// What follows is of the kernel's include/uapi/linux/{inet_diag,unix_diag,tcp}.h, in
// the byte order of the machine but for addresses and ports:
//
//	inet_diag_req_v2  family 1, protocol 1, extensions 1, padding 1, states 4, inet_diag_sockid 48
//	inet_diag_sockid  source port 2, destination port 2, source 16, destination 16, interface 4, cookie 8
//	inet_diag_msg     family 1, state 1, timer 1, retransmits 1, inet_diag_sockid 48,
//	                  expires 4, receive queue 4, send queue 4, user 4, inode 4; attributes
//	unix_diag_req     family 1, protocol 1, padding 2, states 4, inode 4, what to show 4, cookie 8
//	unix_diag_msg     family 1, type 1, state 1, padding 1, inode 4, cookie 8; attributes
const (
	inetRequestSize = 56
	inetMessageSize = 72
	unixMessageSize = 16

	inetBytecode   = 1 // attributes of a request
	inetInfo       = 2 // attributes of an answer, and bits of extensions
	inetSockMemory = 7
	memoryDrops    = 8   // which of the numbers of the last one
	infoLastSent   = 44  // offset of tcpi_last_data_sent, milliseconds
	infoLastData   = 52  // offset of tcpi_last_data_recv, milliseconds
	infoReceived   = 152 // offset of tcpi_data_segs_in
	infoSent       = 156 // offset of tcpi_data_segs_out

	unixName, unixQueue         = 0, 4
	unixShowName, unixShowQueue = 0x01, 0x10

	established, closeWait, listen = 1, 8, 10 // states of a TCP socket
)

func inetRequest(f Family, extension uint8, states ...int) []byte {
	b := make([]byte, inetRequestSize)
	b[0], b[1], b[2] = unix.AF_INET, unix.IPPROTO_TCP, 1<<(extension-1)
	if f == TCP6 {
		b[0] = unix.AF_INET6
	}
	for _, s := range states {
		binary.NativeEndian.PutUint32(b[4:], binary.NativeEndian.Uint32(b[4:])|1<<s)
	}
	return b
}

func listenersRequest(f Family) []byte { return inetRequest(f, inetSockMemory, listen) }

// connectionsRequest asks for the connections to some local ports. One whose client
// has given up waits to be accepted, too.
func connectionsRequest(f Family, ports []uint16) []byte {
	request := inetRequest(f, inetInfo, established, closeWait)
	ports = slices.Compact(slices.Sorted(slices.Values(ports)))
	if len(ports) > mostPorts {
		return request
	}
	filter := netlink.Attribute{Type: inetBytecode, Data: onlyPorts(ports)}
	attributes, err := netlink.MarshalAttributes([]netlink.Attribute{filter})
	if err != nil {
		return request // cannot be; it would ask for all connections
	}
	return append(request, attributes...)
}

// mostPorts keeps a filter short: its offsets are of 16 bits, and the kernel checks
// each against all before it. For more ports the kernel tells of all connections.
const mostPorts = 64

// onlyPorts is a program of inet_diag_bc_op, which has four bytes: what to do, how far
// to go when it holds, how far when not. Whose port is in the next one. For each
// port it is
//
//	port >= p, else to the next port
//	port <= p, else to the next port
//	go to the end
//
// To go four bytes beyond the end is to refuse.
func onlyPorts(ports []uint16) []byte {
	const atLeast, atMost, jump, each = 2, 3, 1, 20
	var b []byte
	op := func(code, yes uint8, no uint16) {
		b = binary.NativeEndian.AppendUint16(append(b, code, yes), no)
	}
	for i, port := range ports {
		left := uint16(each * (len(ports) - i)) // from here to the end
		next := uint16(each)                    // to the next port
		if i == len(ports)-1 {
			next += 4
		}
		op(atLeast, 8, next)
		op(0, 0, port)
		op(atMost, 8, next-8)
		op(0, 0, port)
		op(jump, 4, left-16)
	}
	return b
}

func unixRequest() []byte {
	b := make([]byte, 24)
	b[0] = unix.AF_UNIX
	binary.NativeEndian.PutUint32(b[4:], 1<<listen)
	binary.NativeEndian.PutUint32(b[12:], unixShowName|unixShowQueue)
	return b
}

// inetAddress reads what opens an inet_diag_msg.
func inetAddress(b []byte) (Address, bool) {
	if len(b) < inetMessageSize {
		return Address{}, false
	}
	port := binary.BigEndian.Uint16(b[4:])
	switch source := b[8:24]; b[0] {
	case unix.AF_INET:
		return Address{Family: TCP4, TCP: netip.AddrPortFrom(netip.AddrFrom4([4]byte(source)), port)}, true
	case unix.AF_INET6:
		return Address{Family: TCP6, TCP: netip.AddrPortFrom(netip.AddrFrom16([16]byte(source)), port)}, true
	}
	return Address{}, false
}

func inetInode(b []byte) uint64 { return uint64(binary.NativeEndian.Uint32(b[68:])) }

// cookieOf reads a cookie: the low half comes first on every machine.
func cookieOf(b []byte) uint64 {
	return uint64(binary.NativeEndian.Uint32(b)) | uint64(binary.NativeEndian.Uint32(b[4:]))<<32
}

// parseListener reads a listening TCP socket.
func parseListener(b []byte) (Socket, bool) {
	address, ok := inetAddress(b)
	if !ok || b[1] != listen {
		return Socket{}, false
	}
	s := Socket{
		Address: address, ID: ID{inetInode(b), cookieOf(b[44:])}, Drops: Unknown,
		Depth: int64(binary.NativeEndian.Uint32(b[56:])), Limit: int64(binary.NativeEndian.Uint32(b[60:])),
	}
	ok = attributes(b[inetMessageSize:], func(kind uint16, value []byte) {
		if kind == inetSockMemory && len(value) >= 4*(memoryDrops+1) {
			s.Drops = int64(binary.NativeEndian.Uint32(value[4*memoryDrops:]))
		}
	})
	return s, ok
}

// parseConnection reads a connection. One that somebody has accepted has an inode: ok
// is false then.
func parseConnection(b []byte) (c waiting, ok bool) {
	address, ok := inetAddress(b)
	if !ok || b[1] != established && b[1] != closeWait || inetInode(b) != 0 {
		return waiting{}, false
	}
	c.Address = address
	told := false
	ok = attributes(b[inetMessageSize:], func(kind uint16, value []byte) {
		if kind == inetInfo && len(value) >= infoLastData+4 {
			c.idle = time.Duration(binary.NativeEndian.Uint32(value[infoLastData:])) * time.Millisecond
			told = true
		}
	})
	return c, ok && told
}

// parseAccepted reads a connection that somebody has accepted: else ok is false. The error
// is that of a kernel that tells too little.
func parseAccepted(b []byte) (c Connection, ok bool, err error) {
	address, ok := inetAddress(b)
	if !ok || b[1] != established && b[1] != closeWait || inetInode(b) == 0 {
		return Connection{}, false, nil
	}
	c = Connection{Address: address, ID: ID{inetInode(b), cookieOf(b[44:])}}
	err = ErrOldKernel
	ok = attributes(b[inetMessageSize:], func(kind uint16, value []byte) {
		if kind != inetInfo || len(value) < infoSent+4 {
			return
		}
		number := func(at int) uint32 { return binary.NativeEndian.Uint32(value[at:]) }
		c.Received, c.Sent = number(infoReceived), number(infoSent)
		c.SinceReceived = time.Duration(number(infoLastData)) * time.Millisecond
		c.SinceSent = time.Duration(number(infoLastSent)) * time.Millisecond
		err = nil
	})
	return c, ok, err
}

// parseUnix reads a listening Unix socket. One without a name cannot be connected to.
func parseUnix(b []byte) (Socket, bool) {
	if len(b) < unixMessageSize || b[0] != unix.AF_UNIX || b[2] != listen {
		return Socket{}, false
	}
	s := Socket{
		Address: Address{Family: Unix}, Drops: Unknown, Depth: Unknown,
		ID: ID{uint64(binary.NativeEndian.Uint32(b[4:])), cookieOf(b[8:])},
	}
	ok := attributes(b[unixMessageSize:], func(kind uint16, value []byte) {
		switch {
		case kind == unixName:
			s.Path = socketName(string(value))
		case kind == unixQueue && len(value) >= 8:
			s.Depth, s.Limit = int64(binary.NativeEndian.Uint32(value)), int64(binary.NativeEndian.Uint32(value[4:]))
		}
	})
	return s, ok && s.Path != "" && s.Depth != Unknown
}

// socketName returns a name as proc has it: a zero before an abstract one, and in it,
// is an @. A path ends at its zero.
func socketName(name string) string {
	if strings.HasPrefix(name, "\x00") {
		return strings.ReplaceAll(name, "\x00", "@")
	}
	name, _, _ = strings.Cut(name, "\x00")
	return name
}

// attributes calls each for what follows a message, and says whether it was whole.
func attributes(b []byte, each func(kind uint16, value []byte)) bool {
	d, err := netlink.NewAttributeDecoder(b)
	if err != nil {
		return false
	}
	for d.Next() {
		each(d.Type(), d.Bytes())
	}
	return d.Err() == nil
}
