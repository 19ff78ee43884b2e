// Package sockdiag reads accept queues from the Linux kernel, without privileges:
// how many connections wait at a listening socket, how many may, how many were
// dropped, and how long the oldest has waited. It sees the network namespace that it
// runs in. It promises nothing to other modules.
package sockdiag

import (
	"errors"
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

// ErrOldKernel says that the kernel, before 4.6, does not tell enough of connections.
var ErrOldKernel = errors.New("the kernel counts no segments of a connection")

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
		if at, ok := listenerOf(ages, c.Address); ok {
			ages[at] = max(ages[at], c.idle)
		}
	}
	return ages
}

// listenerOf returns where the listener of a connection listens: exactly where the
// connection is, else at every host.
func listenerOf[V any](listening map[Address]V, of Address) (at Address, ok bool) {
	if _, exact := listening[of]; exact {
		return of, true
	}
	of.TCP = netip.AddrPortFrom(anyHost(of.Family), of.TCP.Port())
	_, ok = listening[of]
	return of, ok
}

// Connection is a TCP connection that somebody has accepted.
type Connection struct {
	Address // its local end
	ID      ID
	// Received and Sent are segments with data, not those that only acknowledge, begin or
	// end, modulo 2^32.
	Received, Sent uint32
	// SinceReceived and SinceSent are how long ago the last of each was, in ticks of the
	// kernel's clock, of 1 to 10 ms. Without one, they count from the connection's begin.
	SinceReceived, SinceSent time.Duration
}

// anyHost is the address of a socket that takes connections to every host.
func anyHost(f Family) netip.Addr {
	if f == TCP4 {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}
