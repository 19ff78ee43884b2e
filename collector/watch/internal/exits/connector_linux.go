package exits

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"

	"golang.org/x/sys/unix"
)

// A message of the proc connector, as linux/netlink.h, linux/connector.h and
// linux/cn_proc.h have it, all in the machine's byte order:
//
//	 0  nlmsghdr    length u32, type u16, flags u16, sequence u32, port u32
//	16  cn_msg      index u32, value u32, sequence u32, acknowledged u32, length u16, flags u16
//	36  proc_event  what u32, processor u32, time u64 (CLOCK_MONOTONIC, in ns), then by what:
//	52                an exit: thread u32, process u32, status u32, signal u32, …
//	52                an acknowledgement: error u32
//
// What is sent is an operation u32 at 36, and which events u32 (since Linux 6.6).
const (
	atType      = 4
	atIndex     = 16
	atValue     = 20
	atAck       = 28
	atLength    = 32
	atEvent     = 36
	atTime      = 44
	atData      = 52
	atThread    = atData
	atProcess   = atData + 4
	atStatus    = atData + 8
	exitSize    = atData + 16
	ackSize     = atData + 4
	connectorID = 1 // CN_IDX_PROC and CN_VAL_PROC, and the multicast group

	listenOp, ignoreOp = 1, 2 // PROC_CN_MCAST_LISTEN and …_IGNORE
	noEvent, exitEvent = 0, 0x80000000
)

// connector tells of all deaths of the machine.
type connector struct {
	fd int
	b  [512]byte // a message has less than 100 bytes
}

// exit is the end of the first thread of a process.
type exit struct {
	pid    int
	at     int64 // by CLOCK_MONOTONIC, in ns
	status unix.WaitStatus
}

var (
	errForeign = errors.New("a message that is not the end of a process")
	errSilent  = errors.New("the proc connector does not answer in this namespace")
)

// openConnector listens to the proc connector. It is refused in network namespaces but
// the first, and before Linux 6.6 to who has no CAP_NET_ADMIN. In PID namespaces but the
// first the kernel ignores the request, though events may come that others have asked for,
// with the ids of the first: only an acknowledgement proves that they are ours.
func openConnector() (*connector, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_CONNECTOR)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	c := &connector{fd: fd}
	if err := c.listen(); err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

// connectorBuffer is room for a thousand deaths at once and more, where it is allowed.
const connectorBuffer = 1 << 20

func (c *connector) listen() error {
	if unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, connectorBuffer) != nil {
		_ = unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_RCVBUF, connectorBuffer)
	}
	if err := c.filter(); err != nil {
		return os.NewSyscallError("setsockopt", err)
	}
	if err := unix.Bind(c.fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: connectorID}); err != nil {
		return os.NewSyscallError("bind", err)
	}
	ack := rand.Uint32() // others' answers arrive, too, and the sequence is the kernel's own since Linux 6.6
	// With the events named the kernel would not acknowledge. Once more with them, which
	// older kernels ignore, spares it the making of the others.
	if err := c.send(ack, listenOp); err != nil {
		return err
	}
	if err := c.acknowledged(ack + 1); err != nil {
		return err
	}
	return c.send(ack, listenOp, exitEvent)
}

// acknowledged reads until the answer, which is there as soon as the request was sent.
func (c *connector) acknowledged(ack uint32) error {
	for {
		b, err := c.read()
		switch {
		case errors.Is(err, unix.EAGAIN):
			return errSilent
		case err != nil && !errors.Is(err, errForeign):
			return err
		}
		if code, ok := parseAck(b, ack); ok {
			if code != 0 {
				return fmt.Errorf("listen to the proc connector: %w", unix.Errno(code))
			}
			return nil
		}
	}
}

// filter has the kernel drop all but acknowledgements and the end of first threads. It
// reads numbers in network order, whatever the machine's is.
func (c *connector) filter() error {
	const load, jumpIfEqual = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, unix.BPF_JMP | unix.BPF_JEQ
	program := []unix.SockFilter{
		{Code: load, K: atEvent},
		{Code: jumpIfEqual | unix.BPF_K, K: networkOrder(noEvent), Jt: 5},
		{Code: jumpIfEqual | unix.BPF_K, K: networkOrder(exitEvent), Jf: 5},
		{Code: load, K: atThread},
		{Code: unix.BPF_MISC | unix.BPF_TAX},
		{Code: load, K: atProcess},
		{Code: jumpIfEqual | unix.BPF_X, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0xffff_ffff},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
	}
	return unix.SetsockoptSockFprog(c.fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
		&unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]})
}

func networkOrder(v uint32) uint32 {
	return binary.BigEndian.Uint32(binary.NativeEndian.AppendUint32(nil, v))
}

func (c *connector) send(ack uint32, operation ...uint32) error {
	e := binary.NativeEndian
	b := make([]byte, atEvent, atEvent+4*len(operation))
	for _, o := range operation {
		b = e.AppendUint32(b, o)
	}
	e.PutUint32(b, uint32(len(b)))
	e.PutUint16(b[atType:], unix.NLMSG_DONE)
	e.PutUint32(b[atIndex:], connectorID)
	e.PutUint32(b[atValue:], connectorID)
	e.PutUint32(b[atAck:], ack)
	e.PutUint16(b[atLength:], uint16(len(b)-atEvent))
	return os.NewSyscallError("sendto", unix.Sendto(c.fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}))
}

// read returns one message of the kernel; errForeign for one of somebody else.
func (c *connector) read() ([]byte, error) {
	n, from, err := unix.Recvfrom(c.fd, c.b[:], 0)
	if err != nil {
		return nil, os.NewSyscallError("recvfrom", err)
	}
	if kernel, ok := from.(*unix.SockaddrNetlink); !ok || kernel.Pid != 0 {
		return nil, errForeign
	}
	return c.b[:n], nil
}

// receive returns the next death; EAGAIN where there is none, ENOBUFS where some were
// lost, errForeign for what is none.
func (c *connector) receive() (exit, error) {
	b, err := c.read()
	if err != nil {
		return exit{}, err
	}
	e, ok := parseExit(b)
	if !ok {
		return exit{}, errForeign
	}
	return e, nil
}

// close says so first: else the kernel would go on to make messages for nobody.
func (c *connector) close() {
	_ = c.send(0, ignoreOp)
	_ = unix.Close(c.fd)
}

// ofProc reports whether b is a message of the proc connector of at least so many bytes
// with such an event.
func ofProc(b []byte, size int, event uint32) bool {
	e := binary.NativeEndian
	return len(b) >= size && int64(e.Uint32(b)) >= int64(size) &&
		e.Uint32(b[atIndex:]) == connectorID && e.Uint32(b[atValue:]) == connectorID &&
		int(e.Uint16(b[atLength:])) >= size-atEvent && e.Uint32(b[atEvent:]) == event
}

func parseExit(b []byte) (exit, bool) {
	if !ofProc(b, exitSize, exitEvent) {
		return exit{}, false
	}
	e := binary.NativeEndian
	thread, process := e.Uint32(b[atThread:]), e.Uint32(b[atProcess:])
	if thread != process || int32(process) <= 0 {
		return exit{}, false
	}
	return exit{int(process), int64(e.Uint64(b[atTime:])), unix.WaitStatus(e.Uint32(b[atStatus:]))}, true
}

func parseAck(b []byte, ack uint32) (code uint32, ok bool) {
	e := binary.NativeEndian
	if !ofProc(b, ackSize, noEvent) || e.Uint32(b[atAck:]) != ack {
		return 0, false
	}
	return e.Uint32(b[atData:]), true
}
