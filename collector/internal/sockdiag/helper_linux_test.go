package sockdiag

import (
	"errors"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

var update = flag.Bool("update", false, "record the kernel's answers anew")

func TestMain(m *testing.M) {
	if where := os.Getenv(asChild); where != "" {
		if err := printQueue(where); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

// must fails the test on an error.
func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// patience is how long a test waits for anything before it fails.
const patience = 60 * time.Second

// await waits until ok.
func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline.C:
			t.Fatalf("waited %s in vain for %s", patience, what)
		case <-tick.C:
		}
	}
}

// newKernel returns a Kernel that the test closes.
func newKernel(tb testing.TB) *Kernel {
	tb.Helper()
	k := New()
	tb.Cleanup(func() { must(tb, k.Close()) })
	return k
}

// errRefused is what a sandbox says.
var errRefused = errors.New("netlink is not for you")

// refused returns a Kernel that has to do without netlink.
func refused(tb testing.TB) *Kernel {
	tb.Helper()
	k := newKernel(tb)
	k.dial = func() (*netlink.Conn, error) { return nil, errRefused }
	return k
}

// listenOn opens a socket that nobody accepts from, with a backlog.
func listenOn(tb testing.TB, at unix.Sockaddr, backlog int, options ...int) int {
	tb.Helper()
	domain := unix.AF_INET
	switch at.(type) {
	case *unix.SockaddrInet6:
		domain = unix.AF_INET6
	case *unix.SockaddrUnix:
		domain = unix.AF_UNIX
	}
	fd, err := unix.Socket(domain, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if errors.Is(err, unix.EAFNOSUPPORT) {
		tb.Skip("this kernel has no IPv6")
	}
	must(tb, err)
	tb.Cleanup(func() { _ = unix.Close(fd) })
	for _, option := range options {
		must(tb, unix.SetsockoptInt(fd, unix.SOL_SOCKET, option, 1))
	}
	err = unix.Bind(fd, at)
	if errors.Is(err, unix.EADDRNOTAVAIL) {
		tb.Skip("this machine has no IPv6 on loopback")
	}
	must(tb, err)
	must(tb, unix.Listen(fd, backlog))
	return fd
}

// addressOf returns where a socket listens.
func addressOf(tb testing.TB, fd int) Address {
	tb.Helper()
	name, err := unix.Getsockname(fd)
	must(tb, err)
	switch a := name.(type) {
	case *unix.SockaddrInet4:
		return Address{Family: TCP4, TCP: netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))}
	case *unix.SockaddrInet6:
		return Address{Family: TCP6, TCP: netip.AddrPortFrom(netip.AddrFrom16(a.Addr), uint16(a.Port))}
	}
	return Address{Family: Unix, Path: name.(*unix.SockaddrUnix).Name}
}

// tcp4 and tcp6 are loopback addresses with a port of the kernel's choice.
func tcp4() unix.Sockaddr { return &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}} }

func tcp6() unix.Sockaddr { return &unix.SockaddrInet6{Addr: netip.IPv6Loopback().As16()} }

// connect makes so many connections that stay until the test ends.
func connect(tb testing.TB, network, address string, n int) []net.Conn {
	tb.Helper()
	var all []net.Conn
	for range n {
		c, err := net.DialTimeout(network, address, patience)
		must(tb, err)
		tb.Cleanup(func() { _ = c.Close() })
		all = append(all, c)
	}
	return all
}

// at returns the sockets of an address.
func at(t *testing.T, k *Kernel, a Address) []Socket {
	t.Helper()
	l, err := k.Listening()
	must(t, err)
	return slices.DeleteFunc(l.Sockets, func(s Socket) bool { return s.Address != a })
}

// recorded returns an answer of the kernel that a file of testdata has. With -update it
// is what ask returns now.
func recorded(tb testing.TB, name string, ask func() []byte) []byte {
	tb.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		must(tb, os.WriteFile(path, ask(), 0o644))
	}
	b, err := os.ReadFile(path)
	must(tb, err)
	return b
}

// first returns the first answer to a request that parse takes.
func first(tb testing.TB, request []byte, parse func(b []byte) bool) (found []byte) {
	tb.Helper()
	must(tb, newKernel(tb).dump(request, func(b []byte) {
		if found == nil && parse(b) {
			found = slices.Clone(b)
		}
	}))
	return found
}

// rows returns the head of a table and the rows that have the text.
func rows(tb testing.TB, table, text string) []byte {
	tb.Helper()
	b, err := os.ReadFile("/proc/net/" + table)
	must(tb, err)
	var kept strings.Builder
	for line := range strings.Lines(string(b)) {
		if kept.Len() == 0 || strings.Contains(line, text) {
			kept.WriteString(line)
		}
	}
	return []byte(kept.String())
}
