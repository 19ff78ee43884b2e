package sockdiag

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestTheDepthAndTheLimitOfAnAcceptQueue(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a socket")
	for name, tc := range map[string]struct {
		at      unix.Sockaddr
		network string
		drops   int64
	}{
		"IPv4":          {tcp4(), "tcp", 0},
		"IPv6":          {tcp6(), "tcp", 0},
		"every host":    {&unix.SockaddrInet6{}, "tcp", 0},
		"Unix":          {&unix.SockaddrUnix{Name: path}, "unix", Unknown},
		"Unix, no file": {&unix.SockaddrUnix{Name: fmt.Sprintf("@sockdiag-%d", os.Getpid())}, "unix", Unknown},
	} {
		t.Run(name, func(t *testing.T) {
			fd := listenOn(t, tc.at, 5)
			a := addressOf(t, fd)
			target := a.Path
			if a.Family != Unix {
				target = a.TCP.String()
			}
			k, without := newKernel(t), refused(t)
			for _, want := range []int{0, 3, 5, 6} {
				connect(t, tc.network, target, want-depth(t, k, a))
				await(t, fmt.Sprintf("%d that wait", want), func() bool { return depth(t, k, a) == want })
				if got := depth(t, without, a); got != want {
					t.Errorf("without netlink %d wait, want %d", got, want)
				}
				if at(t, k, a)[0].Full() != (want == 6) {
					t.Errorf("full with %d: want room for one more than the limit of 5", want)
				}
			}
			s := at(t, k, a)[0]
			if s.Limit != 5 || s.Drops != tc.drops || !s.Full() || s.ID.Cookie == 0 || s.ID.Inode != inode(t, fd) {
				t.Errorf("%+v; want a full queue of limit 5, drops %d and inode %d", s, tc.drops, inode(t, fd))
			}
			less := at(t, without, a)[0]
			if less.Limit != Unknown || less.Drops != Unknown || less.Full() || less.ID.Inode != s.ID.Inode {
				t.Errorf("without netlink: %+v; want neither limit nor drops", less)
			}
			for range 4 {
				accepted, _, err := unix.Accept(fd)
				must(t, err)
				must(t, unix.Close(accepted))
			}
			if got := depth(t, k, a); got != 2 || at(t, k, a)[0].Full() {
				t.Errorf("%d wait after four were accepted, want 2", got)
			}
		})
	}
}

func depth(t *testing.T, k *Kernel, a Address) int {
	t.Helper()
	all := at(t, k, a)
	if len(all) != 1 {
		t.Fatalf("%d sockets listen on %s, want one", len(all), a)
	}
	return int(all[0].Depth)
}

func inode(t *testing.T, fd int) uint64 {
	t.Helper()
	var stat unix.Stat_t
	must(t, unix.Fstat(fd, &stat))
	return stat.Ino
}

func TestConnectionsThatFindNoRoomAreDrops(t *testing.T) {
	fd := listenOn(t, tcp4(), 1)
	a, k := addressOf(t, fd), newKernel(t)
	connect(t, "tcp", a.TCP.String(), 2)
	late, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK, 0)
	must(t, err)
	defer func() { _ = unix.Close(late) }()
	if err := unix.Connect(late, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: int(a.TCP.Port())}); !errors.Is(err, unix.EINPROGRESS) {
		t.Fatal(err)
	}
	await(t, "a drop", func() bool { return at(t, k, a)[0].Drops >= 1 })
	if got := at(t, k, a)[0]; got.Depth != 2 {
		t.Errorf("%d wait, want 2", got.Depth)
	}
}

func TestTheAgeOfTheOldestConnection(t *testing.T) {
	for name, where := range map[string]unix.Sockaddr{"IPv4": tcp4(), "IPv6": tcp6(), "IPv4 at a socket of IPv6": &unix.SockaddrInet6{}} {
		t.Run(name, func(t *testing.T) {
			fd := listenOn(t, where, 10)
			a, k := addressOf(t, fd), newKernel(t)
			target := a.TCP.String()
			if a.TCP.Addr().IsUnspecified() {
				target = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), a.TCP.Port()).String()
			}
			age := func() time.Duration {
				l, err := k.Listening()
				must(t, err)
				ages, err := k.Oldest(l.Sockets)
				must(t, err)
				age, ok := ages[a]
				if !ok {
					t.Fatalf("no age of %s", a)
				}
				return age
			}
			if got := age(); got != 0 {
				t.Errorf("%s, and nobody waits", got)
			}
			const long, tick = 300 * time.Millisecond, 20 * time.Millisecond // the kernel's clock
			began := time.Now()
			first := connect(t, "tcp", target, 1)[0]
			await(t, "an age", func() bool { return age() >= long })
			if got, truth := age(), time.Since(began); got > truth+tick {
				t.Errorf("%s, of a connection of %s", got, truth)
			}
			must(t, first.Close()) // who has given up waits, too
			await(t, "an age again", func() bool { return age() >= 2*long })
			began = time.Now()
			connect(t, "tcp", target, 1)
			accepted, _, err := unix.Accept(fd)
			must(t, err)
			defer func() { _ = unix.Close(accepted) }()
			if got, truth := age(), time.Since(began); got > truth+tick {
				t.Errorf("%s, and the one that waits is of %s", got, truth)
			}
		})
	}
}

func TestOldestIsAskedOfSeveralPorts(t *testing.T) {
	k := newKernel(t)
	var all []Address
	for i := range mostPorts + 1 {
		a := addressOf(t, listenOn(t, tcp4(), 2))
		connect(t, "tcp", a.TCP.String(), 1)
		all = append(all, a)
		if i != 0 && i != 2 && i != mostPorts-1 && i != mostPorts {
			continue
		}
		await(t, "an age of each", func() bool {
			l, err := k.Listening()
			must(t, err)
			ours := slices.DeleteFunc(l.Sockets, func(s Socket) bool { return !slices.Contains(all, s.Address) })
			ages, err := k.Oldest(ours)
			must(t, err)
			return !slices.ContainsFunc(all, func(a Address) bool { return ages[a] == 0 })
		})
	}
}

// The kernel filters: of connections to other ports it does not tell.
func TestOtherPortsAreLeftOutByTheKernel(t *testing.T) {
	k := newKernel(t)
	var ports []uint16
	for range 6 {
		a := addressOf(t, listenOn(t, tcp4(), 2))
		connect(t, "tcp", a.TCP.String(), 1)
		ports = append(ports, a.TCP.Port())
	}
	slices.Sort(ports)
	for name, want := range map[string][]uint16{
		"the lowest": ports[:1], "the highest": ports[5:], "two apart": {ports[1], ports[4]}, "three": ports[2:5], "all": ports,
	} {
		var got []uint16
		must(t, k.dump(connectionsRequest(TCP4, want), func(b []byte) {
			a, _ := inetAddress(b)
			got = append(got, a.TCP.Port())
		}))
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("%s: connections to the ports %d, want %d", name, got, want)
		}
	}
}

// Others wait, or are of other listeners, one of which has the same port.
func TestConnectionsThatWereAccepted(t *testing.T) {
	for name, where := range map[string]unix.Sockaddr{"IPv4": tcp4(), "IPv6": tcp6(), "IPv4 at a socket of IPv6": &unix.SockaddrInet6{}} {
		t.Run(name, func(t *testing.T) {
			fd, another := listenOn(t, where, 10), listenOn(t, where, 10)
			k := newKernel(t)
			accept := func(fd int) (net.Conn, uint64) {
				a := addressOf(t, fd)
				target := a.TCP.String()
				if a.TCP.Addr().IsUnspecified() {
					target = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), a.TCP.Port()).String()
				}
				client := connect(t, "tcp", target, 1)[0]
				accepted, _, err := unix.Accept(fd)
				must(t, err)
				t.Cleanup(func() { _ = unix.Close(accepted) })
				return client, inode(t, accepted)
			}
			client, want := accept(fd)
			accept(another)
			if name == "IPv4" {
				accept(listenOn(t, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 2}, Port: int(addressOf(t, fd).TCP.Port())}, 10))
			}
			waiting := addressOf(t, fd).TCP
			if waiting.Addr().IsUnspecified() {
				waiting = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), waiting.Port())
			}
			connect(t, "tcp", waiting.String(), 1)
			see := func() (all []Connection) {
				t.Helper()
				must(t, k.Accepted(at(t, k, addressOf(t, fd)), func(c Connection) { all = append(all, c) }))
				return all
			}
			if got := see(); len(got) != 1 || got[0].ID.Inode != want || got[0].Received != 0 || got[0].Sent != 0 {
				t.Errorf("%+v; want the one of inode %d", got, want)
			}
			_, err := client.Write([]byte("hello"))
			must(t, err)
			must(t, client.(*net.TCPConn).CloseWrite())
			await(t, "its data", func() bool { got := see(); return len(got) == 1 && got[0].Received == 1 })
		})
	}
}

func TestSocketsByDescriptor(t *testing.T) {
	k := newKernel(t)
	fd := listenOn(t, tcp4(), 1)
	want := inode(t, fd)
	found := ""
	_, err := k.Sockets(os.Getpid(), 4096, func(at string, inode uint64) {
		if inode == want {
			found = at
		}
	})
	if err != nil || found != strconv.Itoa(fd) {
		t.Errorf("found at %q, %v; want %d", found, err, fd)
	}
	if got, ok := k.SocketAt(os.Getpid(), found); !ok || got != want {
		t.Errorf("inode %d, %v; want %d", got, ok, want)
	}
	null, err := os.Open(os.DevNull)
	must(t, err)
	defer func() { _ = null.Close() }()
	for name, at := range map[string]string{"a descriptor that is none": "100000", "no socket": strconv.Itoa(int(null.Fd()))} {
		if got, ok := k.SocketAt(os.Getpid(), at); ok {
			t.Errorf("%s is the socket %d", name, got)
		}
	}
	if n, err := k.Sockets(os.Getpid(), 2, func(string, uint64) {}); err != nil || n != 2 {
		t.Errorf("%d files, %v; want no more than 2", n, err)
	}
	if _, err := k.Sockets(1<<30, 2, func(string, uint64) {}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("of nobody: %v", err)
	}
}

func TestSocketsOfOneAddressAreToldApart(t *testing.T) {
	fd := listenOn(t, tcp4(), 3, unix.SO_REUSEPORT)
	a, k := addressOf(t, fd), newKernel(t)
	listenOn(t, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: int(a.TCP.Port())}, 4, unix.SO_REUSEPORT)
	connect(t, "tcp", a.TCP.String(), 4)
	await(t, "four that wait", func() bool {
		all := at(t, k, a)
		return len(all) == 2 && all[0].Depth+all[1].Depth == 4 && all[0].Limit+all[1].Limit == 7 && all[0].ID != all[1].ID
	})
}

func TestWithoutNetlinkTheReasonIsTold(t *testing.T) {
	k := refused(t)
	l, err := k.Listening()
	if err != nil || !errors.Is(l.Refused, errRefused) {
		t.Errorf("refused: %v, error %v; want %v and none", l.Refused, err, errRefused)
	}
	if _, err := k.Oldest([]Socket{{Address: Address{Family: TCP4, TCP: netip.MustParseAddrPort("127.0.0.1:1")}, Depth: 1}}); !errors.Is(err, errRefused) {
		t.Errorf("oldest: %v, want %v", err, errRefused)
	}
	k.proc = t.TempDir()
	if _, err := k.Listening(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without proc: %v, want an error", err)
	}
}

// A connection that failed is replaced.
func TestNetlinkIsTriedAgain(t *testing.T) {
	k := newKernel(t)
	_, err := k.Listening()
	must(t, err)
	must(t, k.conn.Close())
	if l, _ := k.Listening(); l.Refused == nil {
		t.Error("a closed connection was no fault")
	}
	if l, err := k.Listening(); l.Refused != nil || err != nil {
		t.Errorf("%v, %v; want a new connection", l.Refused, err)
	}
}

// asChild has this program print what it is told of a listener, instead of its tests.
const asChild = "SOCKDIAG_TEST_CHILD"

// printQueue prints what is known of the listener at an address of TCP.
func printQueue(where string) error {
	a := Address{Family: TCP4, TCP: netip.MustParseAddrPort(where)}
	k := New()
	defer func() { _ = k.Close() }()
	l, err := k.Listening()
	ages, agesErr := k.Oldest(l.Sockets)
	if err := errors.Join(err, l.Refused, agesErr); err != nil {
		return err
	}
	for _, s := range l.Sockets {
		if s.Address == a {
			fmt.Printf("depth %d limit %d drops %d aged %v", s.Depth, s.Limit, s.Drops, ages[a] > 0)
		}
	}
	return nil
}

func TestAUserWithoutPrivilegesIsToldAll(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("every other test shows it")
	}
	fd := listenOn(t, tcp4(), 2)
	a, k := addressOf(t, fd), newKernel(t)
	connect(t, "tcp", a.TCP.String(), 3)
	await(t, "a connection that is some time old", func() bool {
		l, err := k.Listening()
		must(t, err)
		ages, err := k.Oldest(l.Sockets)
		must(t, err)
		return ages[a] > 0
	})
	cmd := exec.Command(childProgram(t))
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), asChild+"="+a.TCP.String())
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	if want := "depth 3 limit 2 drops 0 aged true"; err != nil || string(out) != want {
		t.Errorf("%s, %v; want %s", out, err, want)
	}
}

// childProgram returns this program, where every user can run it.
func childProgram(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "sockdiag-")
	must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	must(t, os.Chmod(dir, 0o755))
	path := filepath.Join(dir, "child")
	from, err := os.Open("/proc/self/exe")
	must(t, err)
	defer func() { _ = from.Close() }()
	to, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o755)
	must(t, err)
	_, err = io.Copy(to, from)
	must(t, errors.Join(err, to.Close()))
	return path
}

func TestSocketsOfAProcessAndItsDescendants(t *testing.T) {
	k := newKernel(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer func() { _ = l.Close() }()
	f, err := l.(*net.TCPListener).File()
	must(t, err)
	defer func() { _ = f.Close() }()
	want := inode(t, int(f.Fd()))
	// sh, of which a grandchild has the socket and it itself has not.
	cmd := exec.Command("sh", "-c", "sh -c 'sleep 1000 & wait' & exec 3<&-; wait")
	cmd.ExtraFiles = []*os.File{f}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	must(t, cmd.Start())
	defer func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		_ = cmd.Wait()
	}()
	await(t, "the grandchild's socket", func() bool {
		held, err := k.Held(cmd.Process.Pid)
		return err == nil && held[want]
	})
	if held, err := k.Held(os.Getppid()); err != nil || held[want] {
		t.Errorf("of this process's parent: %v, %v; want nothing of this process and its own", held, err)
	}
	if held, err := k.Held(1 << 30); err != nil || len(held) != 0 {
		t.Errorf("of nobody: %v, %v", held, err)
	}
}

// Few kernels tell the children of one process: by the parents of all, there may be a circle.
func TestSocketsWhereTheKernelTellsNoChildren(t *testing.T) {
	dir := t.TempDir()
	for pid, parent := range map[int]int{7: 8, 8: 7, 9: 8, 10: 1} {
		fd := filepath.Join(dir, strconv.Itoa(pid), "fd")
		must(t, os.MkdirAll(fd, 0o755))
		must(t, os.Symlink(fmt.Sprintf("socket:[%d]", 100+pid), filepath.Join(fd, "3")))
		stat := fmt.Sprintf("%d (a) S %d 7 7 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 4242 0 0\n", pid, parent)
		must(t, os.WriteFile(filepath.Join(dir, strconv.Itoa(pid), "stat"), []byte(stat), 0o644))
	}
	held, err := NewAt(dir).Held(7)
	if want := map[uint64]bool{107: true, 108: true, 109: true}; err != nil || !maps.Equal(held, want) {
		t.Errorf("held %v, %v; want %v", held, err, want)
	}
}

// BenchmarkListening reads ten listeners beside a thousand connections.
func BenchmarkListening(b *testing.B) {
	crowd(b)
	for name, k := range map[string]*Kernel{"netlink": newKernel(b), "proc": refused(b)} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_, err := k.Listening()
				must(b, err)
			}
		})
	}
}

func BenchmarkOldest(b *testing.B) {
	crowd(b)
	k := newKernel(b)
	l, err := k.Listening()
	must(b, err)
	b.ReportAllocs()
	for b.Loop() {
		_, err := k.Oldest(l.Sockets)
		must(b, err)
	}
}

func BenchmarkHeld(b *testing.B) {
	k := newKernel(b)
	b.ReportAllocs()
	for b.Loop() {
		_, err := k.Held(os.Getppid())
		must(b, err)
	}
}

// crowd opens nine listeners with one connection that waits, and one with a thousand
// that are served.
func crowd(b *testing.B) {
	b.Helper()
	var busy int
	for range 10 {
		busy = listenOn(b, tcp4(), 1000)
		connect(b, "tcp", addressOf(b, busy).TCP.String(), 1)
	}
	for range 1000 {
		connect(b, "tcp", addressOf(b, busy).TCP.String(), 1)
		fd, _, err := unix.Accept(busy)
		must(b, err)
		b.Cleanup(func() { _ = unix.Close(fd) })
	}
}
