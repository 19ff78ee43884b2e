// Package sockdiag reads accept queues from the Linux kernel, without privileges:
// how many connections wait at a listening socket, how many may, how many were
// dropped, and how long the oldest has waited. It sees the network namespace that it
// runs in. It promises nothing to other modules.
package sockdiag

import (
	"net/netip"
	"strings"
	"time"
)

// Family is what a socket's addresses are.
type Family uint8

// The families. A TCP6 socket may take connections of IPv4, too.
const (
	TCP4 Family = iota + 1
	TCP6
	Unix
)

// Address is where somebody listens.
type Address struct {
	Family Family
	TCP    netip.AddrPort
	Path   string // of a Unix socket; an abstract name begins with @
}

// String returns the address as in tcp://127.0.0.1:8000 or unix:///run/a.sock. It is
// valid UTF-8, whatever the path.
func (a Address) String() string {
	if a.Family == Unix {
		return "unix://" + strings.ToValidUTF8(a.Path, "\uFFFD")
	}
	return "tcp://" + a.TCP.String()
}

// Unknown is a number that could not be had.
const Unknown = -1

// Socket is one listening socket.
type Socket struct {
	Address
	ID    ID
	Depth int64 // connections that wait to be accepted
	Limit int64 // one more than this may wait; or Unknown
	// Drops are packets that the socket has dropped since it listens, modulo 2^32, most of
	// them since too many connections waited; or Unknown. A client that tries again is
	// dropped again.
	Drops int64
}

// ID tells a socket from all others: an inode may be used again. The cookie is 0 where
// the kernel told none.
type ID struct {
	Inode, Cookie uint64
}

// Full says whether the socket takes no more connections. The kernel's test is >, so one
// more than the limit may wait.
func (s Socket) Full() bool { return s.Limit != Unknown && s.Depth > s.Limit }

// Listening are all sockets that somebody listens on.
type Listening struct {
	Sockets []Socket
	// Refused says why sock_diag did not tell of all of them, so that limits, drops and
	// ages are not known of some. Nil: it did.
	Refused error
}

// waiting is a connection that nobody has accepted yet.
type waiting struct {
	Address
	idle time.Duration // since its last data, or its begin if there was none
}

// oldest returns, for each address somebody listens on, the longest that a connection
// has waited there.
func oldest(listening []Socket, connections []waiting) map[Address]time.Duration {
	ages := map[Address]time.Duration{}
	for _, s := range listening {
		ages[s.Address] = 0
	}
	for _, c := range connections {
		at := c.Address
		if _, exact := ages[at]; !exact {
			at.TCP = netip.AddrPortFrom(anyHost(at.Family), at.TCP.Port())
		}
		if age, ok := ages[at]; ok {
			ages[at] = max(age, c.idle)
		}
	}
	return ages
}

// anyHost is the address of a socket that takes connections to every host.
func anyHost(f Family) netip.Addr {
	if f == TCP4 {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}
