package sockdiag

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// The recordings are of one socket each, with connections that wait.
func recordedListener(tb testing.TB) []byte {
	return recorded(tb, "listener.bin", func() []byte {
		a := addressOf(tb, listenOn(tb, tcp4(), 2))
		connect(tb, "tcp", a.TCP.String(), 3)
		return first(tb, listenersRequest(TCP4), func(b []byte) bool {
			s, _ := parseListener(b)
			return s.Address == a
		})
	})
}

func recordedListener6(tb testing.TB) []byte {
	return recorded(tb, "listener6.bin", func() []byte {
		a := addressOf(tb, listenOn(tb, tcp6(), 2))
		return first(tb, listenersRequest(TCP6), func(b []byte) bool {
			s, _ := parseListener(b)
			return s.Address == a
		})
	})
}

func recordedConnection(tb testing.TB) []byte {
	return recorded(tb, "connection.bin", func() []byte {
		a := addressOf(tb, listenOn(tb, tcp4(), 2))
		connect(tb, "tcp", a.TCP.String(), 1)
		for {
			if b := first(tb, connectionsRequest(TCP4, []uint16{a.TCP.Port()}), func(b []byte) bool {
				c, ok := parseConnection(b)
				return ok && c.idle > 0
			}); b != nil {
				return b
			}
		}
	})
}

// recordedAccepted is of one that was accepted, and has sent five bytes.
func recordedAccepted(tb testing.TB) []byte {
	return recorded(tb, "accepted.bin", func() []byte {
		fd := listenOn(tb, tcp4(), 2)
		a := addressOf(tb, fd)
		client := connect(tb, "tcp", a.TCP.String(), 1)[0]
		accepted, _, err := unix.Accept(fd)
		must(tb, err)
		tb.Cleanup(func() { _ = unix.Close(accepted) })
		_, err = client.Write([]byte("hello"))
		must(tb, err)
		return first(tb, connectionsRequest(TCP4, []uint16{a.TCP.Port()}), func(b []byte) bool {
			_, ok, err := parseAccepted(b)
			return ok && err == nil
		})
	})
}

func recordedUnix(tb testing.TB) []byte {
	return recorded(tb, "unix.bin", func() []byte {
		path := filepath.Join(os.TempDir(), "sockdiag.sock")
		listenOn(tb, &unix.SockaddrUnix{Name: path}, 2)
		tb.Cleanup(func() { _ = os.Remove(path) })
		connect(tb, "unix", path, 3)
		return first(tb, unixRequest(), func(b []byte) bool {
			s, _ := parseUnix(b)
			return s.Path == path
		})
	})
}

func recordedTable(tb testing.TB, f Family) []byte {
	switch f {
	case TCP4:
		return recorded(tb, "tcp", func() []byte {
			a := addressOf(tb, listenOn(tb, tcp4(), 2))
			connect(tb, "tcp", a.TCP.String(), 3)
			return rows(tb, "tcp", fmt.Sprintf(":%04X ", a.TCP.Port()))
		})
	case TCP6:
		return recorded(tb, "tcp6", func() []byte {
			a := addressOf(tb, listenOn(tb, tcp6(), 2))
			return rows(tb, "tcp6", fmt.Sprintf(":%04X ", a.TCP.Port()))
		})
	}
	return recorded(tb, "unix", func() []byte {
		path := filepath.Join(os.TempDir(), "a sockdiag.sock")
		listenOn(tb, &unix.SockaddrUnix{Name: path}, 2)
		tb.Cleanup(func() { _ = os.Remove(path) })
		connect(tb, "unix", path, 3)
		return rows(tb, "unix", path)
	})
}

func TestWhatTheKernelAnswers(t *testing.T) {
	in := netip.MustParseAddrPort
	listener, _ := parseListener(recordedListener(t))
	listener6, _ := parseListener(recordedListener6(t))
	connection, _ := parseConnection(recordedConnection(t))
	path, _ := parseUnix(recordedUnix(t))
	for name, tc := range map[string]struct{ got, want any }{
		"a listener": {listener, Socket{
			Address: Address{Family: TCP4, TCP: in("127.0.0.1:0")}, Depth: 3, Limit: 2,
		}},
		"a listener of IPv6": {listener6, Socket{Address: Address{Family: TCP6, TCP: in("[::1]:0")}, Limit: 2}},
		"a connection":       {connection.Address, Address{Family: TCP4, TCP: in("127.0.0.1:0")}},
		"a Unix socket": {path, Socket{
			Address: Address{Family: Unix, Path: "/tmp/sockdiag.sock"}, Depth: 3, Limit: 2, Drops: Unknown,
		}},
		"the table of IPv4": {parseProcTCP(recordedTable(t, TCP4)), []Socket{{
			Address: Address{Family: TCP4, TCP: in("127.0.0.1:0")}, Depth: 3, Limit: Unknown, Drops: Unknown,
		}}},
		"the table of IPv6": {parseProcTCP(recordedTable(t, TCP6)), []Socket{{
			Address: Address{Family: TCP6, TCP: in("[::1]:0")}, Limit: Unknown, Drops: Unknown,
		}}},
		"the table of Unix sockets": {parseProcUnix(recordedTable(t, Unix)), []Socket{{
			Address: Address{Family: Unix, Path: "/tmp/a sockdiag.sock"}, Depth: 3, Limit: Unknown, Drops: Unknown,
		}}},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, tc.got, ignoringChance()...); diff != "" {
				t.Errorf("parsed (-want +got):\n%s", diff)
			}
		})
	}
	accepted, ok, err := parseAccepted(recordedAccepted(t))
	if !ok || err != nil || accepted.TCP.Addr() != netip.MustParseAddr("127.0.0.1") || accepted.Received != 1 || accepted.Sent != 0 || accepted.ID.Inode == 0 || accepted.ID.Cookie == 0 {
		t.Errorf("accepted: %+v, %v, %v; want one segment that was received", accepted, ok, err)
	}
	if _, ok, _ := parseAccepted(recordedConnection(t)); ok {
		t.Error("a connection that waits was taken for one that was accepted")
	}
	if connection.idle <= 0 || connection.idle > time.Minute || listener.ID.Cookie == 0 || path.ID.Cookie == 0 {
		t.Errorf("idle for %s, cookies %d and %d", connection.idle, listener.ID.Cookie, path.ID.Cookie)
	}
}

// ignoringChance leaves out what each recording has of its own: ports, inodes and cookies.
func ignoringChance() []cmp.Option {
	return []cmp.Option{
		cmp.Transformer("port", func(a netip.AddrPort) string { return a.Addr().String() }),
		cmp.Transformer("id", func(ID) string { return "" }),
	}
}

func TestWhatMakesNoSenseIsLeftOut(t *testing.T) {
	for _, whole := range [][]byte{recordedListener(t), recordedUnix(t), recordedConnection(t)} {
		for n := range len(whole) {
			for name, parse := range map[string]func(b []byte) (any, bool){
				"listener":    func(b []byte) (any, bool) { s, ok := parseListener(b); s.Drops = 0; return s, ok },
				"Unix socket": func(b []byte) (any, bool) { return parseUnix(b) },
				"connection":  func(b []byte) (any, bool) { return parseConnection(b) },
			} {
				want, _ := parse(whole)
				if got, ok := parse(whole[:n]); ok && got != want {
					t.Errorf("%d bytes of %d of a %s: %+v, want %+v or nothing", n, len(whole), name, got, want)
				}
			}
		}
	}
	whole := recordedAccepted(t)
	want, _, _ := parseAccepted(whole)
	for n := range len(whole) {
		if got, ok, err := parseAccepted(whole[:n]); ok && err == nil && got != want {
			t.Errorf("%d bytes of %d of an accepted connection: %+v, want %+v or nothing", n, len(whole), got, want)
		}
	}
	if _, ok, err := parseAccepted(whole[:inetMessageSize]); !ok || !errors.Is(err, ErrOldKernel) {
		t.Errorf("without what the kernel tells of it: %v, %v; want that it is too old", ok, err)
	}
	head := "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
	for name, row := range map[string]string{
		"a connection":             " 0: 0100007F:1F90 0100007F:1F91 01 00000000:00000001 00:00000000 00000000 0 0 7 1",
		"no queue":                 " 0: 0100007F:1F90 00000000:0000 0A 00000000 00:00000000 00000000 0 0 7 1",
		"a short address":          " 0: 01007F:1F90 00000000:0000 0A 00000000:00000001 00:00000000 00000000 0 0 7 1",
		"an address of two words":  " 0: 0100007F0100007F:1F90 00000000:0000 0A 00000000:00000001 00:00000000 00000000 0 0 7 1",
		"an address of no digits":  " 0: 0100007X:1F90 00000000:0000 0A 00000000:00000001 00:00000000 00000000 0 0 7 1",
		"no port":                  " 0: 0100007F 00000000:0000 0A 00000000:00000001 00:00000000 00000000 0 0 7 1",
		"no inode":                 " 0: 0100007F:1F90 00000000:0000 0A 00000000:00000001 00:00000000 00000000 0 0 x 1",
		"a row that is not whole":  " 0: 0100007F:1F90 00000000:0000 0A 00000000:00000001 00:00000000",
		"a queue of more than any": " 0: 0100007F:1F90 00000000:0000 0A 00000000:100000000 00:00000000 00000000 0 0 7 1",
	} {
		if got := parseProcTCP([]byte(head + row + "\n")); got != nil {
			t.Errorf("%s: %+v", name, got)
		}
	}
	for name, row := range map[string]string{
		"no name":            "0000000000000000: 00000002 00000000 00010000 0001 01 12",
		"a connected socket": "0000000000000000: 00000003 00000000 00000000 0001 03 12 /a",
		"no flags":           "0000000000000000: 00000002 00000000 x 0001 01 12 /a",
		"no inode":           "0000000000000000: 00000002 00000000 00010000 0001 01 x /a",
	} {
		if got := parseProcUnix([]byte(row + "\n")); got != nil {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func TestNamesOfAddresses(t *testing.T) {
	for want, a := range map[string]Address{
		"tcp://127.0.0.1:8000": {Family: TCP4, TCP: netip.MustParseAddrPort("127.0.0.1:8000")},
		"tcp://[::]:8000":      {Family: TCP6, TCP: netip.MustParseAddrPort("[::]:8000")},
		"unix:///run/a.sock":   {Family: Unix, Path: "/run/a.sock"},
		"unix://@a@b":          {Family: Unix, Path: socketName("\x00a\x00b")},
		"unix:///run/\uFFFD":   {Family: Unix, Path: "/run/\xff"},
	} {
		if got := a.String(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestAConnectionBelongsToTheNearestListener(t *testing.T) {
	tcp := func(f Family, text string) Address { return Address{Family: f, TCP: netip.MustParseAddrPort(text)} }
	listening := []Socket{
		{Address: tcp(TCP4, "0.0.0.0:80")}, {Address: tcp(TCP4, "10.0.0.1:80")}, {Address: tcp(TCP4, "10.0.0.2:81")}, {Address: tcp(TCP6, "[::]:80")},
	}
	got := oldest(listening, []waiting{
		{tcp(TCP4, "10.0.0.1:80"), 1}, {tcp(TCP4, "10.0.0.2:80"), 2}, {tcp(TCP4, "10.0.0.3:80"), 3}, {tcp(TCP4, "10.0.0.3:80"), 2},
		{tcp(TCP4, "10.0.0.1:81"), 4}, {tcp(TCP6, "[::ffff:10.0.0.1]:80"), 5},
	})
	want := map[Address]time.Duration{
		tcp(TCP4, "0.0.0.0:80"): 3, tcp(TCP4, "10.0.0.1:80"): 1, tcp(TCP4, "10.0.0.2:81"): 0, tcp(TCP6, "[::]:80"): 5,
	}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b Address) bool { return a == b })); diff != "" {
		t.Errorf("ages (-want +got):\n%s", diff)
	}
}

func FuzzListener(f *testing.F) {
	f.Add(recordedListener(f))
	f.Add(recordedListener6(f))
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, ok := parseListener(b); ok {
			check(t, s)
		}
	})
}

func FuzzConnection(f *testing.F) {
	f.Add(recordedConnection(f))
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, ok := parseConnection(b); ok && (c.idle < 0 || !c.TCP.IsValid()) {
			t.Errorf("%+v", c)
		}
	})
}

func FuzzAccepted(f *testing.F) {
	f.Add(recordedAccepted(f))
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, ok, err := parseAccepted(b); ok && err == nil && (c.ID.Inode == 0 || !c.TCP.IsValid() || c.SinceReceived < 0 || c.SinceSent < 0) {
			t.Errorf("%+v", c)
		}
	})
}

func FuzzUnix(f *testing.F) {
	f.Add(recordedUnix(f))
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, ok := parseUnix(b); ok {
			check(t, s)
		}
	})
}

func FuzzProcTCP(f *testing.F) {
	f.Add(recordedTable(f, TCP4))
	f.Add(recordedTable(f, TCP6))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, s := range parseProcTCP(b) {
			check(t, s)
		}
	})
}

func FuzzProcUnix(f *testing.F) {
	f.Add(recordedTable(f, Unix))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, s := range parseProcUnix(b) {
			check(t, s)
		}
		if rows := bytes.Count(b, []byte("\n")) + 1; len(parseProcUnix(b)) > rows {
			t.Errorf("more sockets than the %d rows", rows)
		}
	})
}

// check fails the test for a socket that cannot be.
func check(t *testing.T, s Socket) {
	t.Helper()
	const most = 1<<32 - 1
	if s.Depth < 0 || s.Depth > most || s.Limit < Unknown || s.Limit > most || s.Drops < Unknown || s.Drops > most {
		t.Errorf("numbers out of range: %+v", s)
	}
	if s.Family == Unix && s.Path == "" || s.Family != Unix && (!s.TCP.IsValid() || s.TCP.Addr().Is4() != (s.Family == TCP4)) {
		t.Errorf("no address: %+v", s)
	}
}
