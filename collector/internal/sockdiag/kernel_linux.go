package sockdiag

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Kernel asks the kernel. It is for one goroutine at a time.
type Kernel struct {
	proc string // where proc is mounted
	dial func() (*netlink.Conn, error)
	conn *netlink.Conn // nil: none is open
}

// New returns a Kernel that has nothing open yet.
func New() *Kernel { return NewAt("/proc") }

// NewAt returns a Kernel as [New] does, for where proc is mounted.
func NewAt(proc string) *Kernel {
	return &Kernel{proc: proc, dial: func() (*netlink.Conn, error) { return netlink.Dial(unix.NETLINK_SOCK_DIAG, nil) }}
}

// Close closes what is open. What is asked later opens it again.
func (k *Kernel) Close() error {
	if k.conn == nil {
		return nil
	}
	err := k.conn.Close()
	k.conn = nil
	return err
}

// Listening returns the sockets that somebody listens on, by sock_diag or else, with
// less, by the tables below /proc/net. The error says which could not be read at all.
func (k *Kernel) Listening() (Listening, error) {
	var l Listening
	var failed error
	for _, f := range []Family{TCP4, TCP6, Unix} {
		sockets, err := k.listeningBy(f)
		if err != nil {
			l.Refused = cmp.Or(l.Refused, err)
			if sockets, err = k.listeningInProc(f); err != nil {
				failed = errors.Join(failed, err)
			}
		}
		l.Sockets = append(l.Sockets, sockets...)
	}
	return l, failed
}

// Oldest returns how long the oldest connection has waited at each TCP address, by what
// [Kernel.Listening] has returned; 0 where none waits. It counts from the last data that
// came, or from the begin of a connection that has sent none. The kernel goes
// through all connections of the network namespace for it, so it is asked only where
// connections wait.
func (k *Kernel) Oldest(listening []Socket) (map[Address]time.Duration, error) {
	var tcp []Socket
	ports := map[Family][]uint16{}
	for _, s := range listening {
		if s.Family == Unix {
			continue
		}
		tcp = append(tcp, s)
		if s.Depth > 0 {
			ports[s.Family] = append(ports[s.Family], s.TCP.Port())
		}
	}
	var connections []waiting
	for f, those := range ports {
		err := k.dump(connectionsRequest(f, those), func(b []byte) {
			if c, ok := parseConnection(b); ok {
				connections = append(connections, c)
			}
		})
		if err != nil {
			return nil, err
		}
	}
	return oldest(tcp, connections), nil
}

// Accepted calls each with every connection that somebody has accepted from these
// listening sockets, one that the client has ended included. Like [Kernel.Oldest] it has
// the kernel go through all connections of the network namespace.
func (k *Kernel) Accepted(listening []Socket, each func(Connection)) error {
	at := map[Address]bool{}
	ports := map[Family][]uint16{}
	for _, s := range listening {
		if s.Family != Unix {
			at[s.Address] = true
			ports[s.Family] = append(ports[s.Family], s.TCP.Port())
		}
	}
	for f, those := range ports {
		var parsing error
		err := k.dump(connectionsRequest(f, those), func(b []byte) {
			c, ok, err := parseAccepted(b)
			if err != nil {
				parsing = err
			}
			if _, ours := listenerOf(at, c.Address); ok && ours {
				each(c)
			}
		})
		if err := cmp.Or(err, parsing); err != nil {
			return err
		}
	}
	return nil
}

func (k *Kernel) listeningBy(f Family) (sockets []Socket, err error) {
	request, parse := listenersRequest(f), parseListener
	if f == Unix {
		request, parse = unixRequest(), parseUnix
	}
	seen := map[ID]bool{} // one may come twice while others come and go
	err = k.dump(request, func(b []byte) {
		if s, ok := parse(b); ok && !seen[s.ID] {
			seen[s.ID] = true
			sockets = append(sockets, s)
		}
	})
	if err != nil {
		return nil, err
	}
	return sockets, nil
}

func (k *Kernel) listeningInProc(f Family) ([]Socket, error) {
	name, parse := "tcp", parseProcTCP
	switch f {
	case TCP6:
		name = "tcp6"
	case Unix:
		name, parse = "unix", parseProcUnix
	}
	table, err := readTable(k.proc + "/net/" + name)
	if f == TCP6 && errors.Is(err, fs.ErrNotExist) {
		return nil, nil // a machine without IPv6
	}
	if err != nil {
		return nil, fmt.Errorf("read accept queues: %w", err)
	}
	return parse(table), nil
}

// answerWithin bounds the wait for the kernel, which answers at once.
const answerWithin = 2 * time.Second

// dump asks for all sockets that the request describes, and calls each with the
// description of one. After an error the connection begins anew: the rest of an
// answer may still be in it.
func (k *Kernel) dump(request []byte, each func(b []byte)) (err error) {
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("ask sock_diag: %w", err), k.Close())
		}
	}()
	if k.conn == nil {
		if k.conn, err = k.dial(); err != nil {
			return err
		}
	}
	if err := k.conn.SetDeadline(time.Now().Add(answerWithin)); err != nil {
		return err
	}
	sent, err := k.conn.Send(netlink.Message{
		Header: netlink.Header{Type: unix.SOCK_DIAG_BY_FAMILY, Flags: netlink.Request | netlink.Dump}, Data: request,
	})
	if err != nil {
		return err
	}
	for m, err := range k.conn.ReceiveIter() {
		if err != nil {
			return err
		}
		if err := netlink.Validate(sent, []netlink.Message{m}); err != nil {
			return err
		}
		each(m.Data)
	}
	return nil
}
