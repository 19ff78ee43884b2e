package exits

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestConnectorIsRefusedInANetworkNamespace(t *testing.T) {
	if inside(t, &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}, false) {
		return
	}
	if c, err := openConnector(); err == nil {
		c.close()
		t.Error("the connector was opened")
	}
	w := open(t, infos)
	if f := w.Feature(); f.How != "zombie" || f.Reason != "" {
		t.Errorf("the feature is %+v", f)
	}
}

// Events may arrive in a PID namespace, with ids of another.
func TestConnectorIsSilentInAPIDNamespace(t *testing.T) {
	if c, err := openConnector(); err == nil { // so that the kernel makes events
		defer c.close()
	}
	if inside(t, &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS}, false) {
		return
	}
	mountProc(t)
	if c, err := openConnector(); !errors.Is(err, errSilent) {
		if err == nil {
			c.close()
		}
		t.Errorf("openConnector = %v, want silence", err)
	}
	w, m := open(t, infos), newMaster(t)
	p := m.script("exit 7")
	add(t, w, p)
	m.release()
	if d := next(t, w); d.Process != p || !d.Known || d.Status.ExitStatus() != 7 || w.Feature().How != "zombie" {
		t.Errorf("told %+v by %+v", d, w.Feature())
	}
}

func listen(t *testing.T) *connector {
	t.Helper()
	c, err := openConnector()
	if err != nil {
		t.Skipf("needs the proc connector, in the first namespaces: %v", err)
	}
	t.Cleanup(c.close)
	return c
}

// A connector that loses messages loses statuses, but no death, and says so until it
// tells one again.
func TestConnectorOverrun(t *testing.T) {
	listen(t)
	w, m := open(t, infos|zombies), newMaster(t)
	w.mu.Lock()
	err := unix.SetsockoptInt(w.events.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 1)
	w.mu.Unlock()
	if err != nil {
		t.Skipf("needs CAP_NET_ADMIN, to make the buffer small: %v", err)
	}
	var all []Process
	for range 50 {
		all = append(all, m.script("exit 7"))
		add(t, w, all[len(all)-1])
	}
	w.mu.Lock() // nobody reads
	m.release()
	for _, p := range all {
		m.reap(p)
	}
	w.mu.Unlock()
	unknown := 0
	for range all {
		d := next(t, w)
		if d.Known && d.Status.ExitStatus() != 7 {
			t.Errorf("told %+v", d)
		}
		if !d.Known {
			unknown++
		}
	}
	if f := w.Feature(); unknown == 0 || f.How != "connector" || f.Reason == "" {
		t.Errorf("%d of 50 statuses are unknown; the feature is %+v", unknown, f)
	}
	add(t, w, m.script("exit 8"))
	m.release()
	if d := next(t, w); !d.Known || d.Status.ExitStatus() != 8 || w.Feature().Reason != "" {
		t.Errorf("told %+v; the feature is %+v", d, w.Feature())
	}
}

// A message is no proof of a death that it may not be about.
func TestConnectorMessageOfAnother(t *testing.T) {
	listen(t)
	w, m := open(t, infos|zombies), newMaster(t)
	lives, zombie := m.script("exit 7"), m.script("exit 8")
	if err := unix.Kill(zombie.PID, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	awaitZombie(t, zombie)
	first, second := w.watchUnattended(t, lives), w.watchUnattended(t, zombie)
	w.mu.Lock()
	w.exited(exit{lives.PID, monotonic(), 3 << 8})              // of its first thread, say
	w.exited(exit{zombie.PID, second.added - 1, 3 << 8})        // of who had its id
	w.exited(exit{zombie.PID + lives.PID, monotonic(), 3 << 8}) // of a stranger
	known := first.known || second.known
	w.attend(first)
	w.mu.Unlock()
	if known {
		t.Error("a message of another was believed")
	}
	m.release()
	if d := next(t, w); d.Process != lives || d.Status.ExitStatus() != 7 {
		t.Errorf("told %+v", d)
	}
}

// watchUnattended adds a process of whose end nobody but the connector is told.
func (w *Watcher) watchUnattended(t *testing.T, of Process) *process {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	p, err := w.open(of)
	if err != nil {
		t.Fatal(err)
	}
	w.watched[of.PID] = p
	return p
}

// Who may send to us is not believed for that.
func TestConnectorBelievesTheKernelOnly(t *testing.T) {
	c := listen(t)
	name, err := unix.Getsockname(c.fd)
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.NETLINK_CONNECTOR)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(fd) }()
	forged := event(t)
	binary.NativeEndian.PutUint32(forged[atThread:], 4711)
	binary.NativeEndian.PutUint32(forged[atProcess:], 4711)
	if err := unix.Sendto(fd, forged, 0, name); err != nil {
		t.Skipf("needs CAP_NET_ADMIN, to send to another: %v", err)
	}
	for {
		e, err := c.receive()
		if errors.Is(err, errForeign) {
			return
		}
		if err != nil || e.pid == 4711 {
			t.Fatalf("receive = %+v, %v", e, err)
		}
	}
}

// event is what Linux 6.18 has sent of the end of process 30227 with status 7.
func event(t *testing.T) []byte {
	t.Helper()
	b, err := hex.DecodeString("4c00000003000000010000000000000001000000010000000100000000000000280000000000008000000000" +
		"1122334455667700137600001376000000070000110000000c7600000c760000")
	if err != nil {
		t.Fatal(err)
	}
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		t.Skip("needs a little-endian machine, as the recorded message is")
	}
	return b
}

func TestConnectorMessages(t *testing.T) {
	with := func(at int, v uint32) []byte {
		b := event(t)
		binary.NativeEndian.PutUint32(b[at:], v)
		return b
	}
	for name, tc := range map[string]struct {
		b    []byte
		want bool
	}{
		"as the kernel sent it":          {event(t), true},
		"without the parent, as of old":  {append(with(0, exitSize)[:atLength], append([]byte{32, 0}, event(t)[atLength+2:exitSize]...)...), true},
		"cut":                            {event(t)[:exitSize-1], false},
		"empty":                          {nil, false},
		"longer than it says":            {with(0, exitSize-1), false},
		"of another connector":           {with(atIndex, 2), false},
		"of another value":               {with(atValue, 2), false},
		"a fork":                         {with(atEvent, 1), false},
		"the end of another thread":      {with(atThread, 1), false},
		"an event shorter than its kind": {with(atLength, 8), false},
	} {
		t.Run(name, func(t *testing.T) {
			e, ok := parseExit(tc.b)
			if ok != tc.want || ok && (e.pid != 30227 || e.status.ExitStatus() != 7 || e.at != 0x0077665544332211) {
				t.Errorf("parseExit = %+v, %t", e, ok)
			}
		})
	}
}

func FuzzConnectorMessage(f *testing.F) {
	f.Add(bytes.Repeat([]byte{0}, 76), uint32(0))
	f.Add([]byte{}, uint32(0))
	b := make([]byte, 76)
	binary.NativeEndian.PutUint32(b, 76)
	binary.NativeEndian.PutUint32(b[atIndex:], 1)
	binary.NativeEndian.PutUint32(b[atValue:], 1)
	binary.NativeEndian.PutUint16(b[atLength:], 40)
	f.Add(bytes.Clone(b), uint32(0))
	binary.NativeEndian.PutUint32(b[atEvent:], exitEvent)
	binary.NativeEndian.PutUint32(b[atThread:], 9)
	binary.NativeEndian.PutUint32(b[atProcess:], 9)
	f.Add(b, uint32(1))
	f.Fuzz(func(t *testing.T, b []byte, ack uint32) {
		e, exited := parseExit(b)
		if exited && (e.pid <= 0 || len(b) < exitSize) {
			t.Errorf("parseExit = %+v", e)
		}
		if _, acknowledged := parseAck(b, ack); acknowledged && (exited || len(b) < ackSize) {
			t.Error("an acknowledgement that is none")
		}
	})
}

func FuzzInfo(f *testing.F) {
	f.Add(make([]byte, infoSize))
	f.Add(bytes.Repeat([]byte{0xff}, infoSize))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) != infoSize {
			return
		}
		status, err := parseInfo([infoSize]byte(b))
		there := binary.NativeEndian.Uint64(b)&8 != 0
		if there != (err == nil) || there && uint32(status) != binary.NativeEndian.Uint32(b[60:]) {
			t.Errorf("parseInfo = %x, %v", status, err)
		}
	})
}

func TestProbe(t *testing.T) {
	before := descriptors(t)
	for range 20 {
		if err := probeInfo(); err != nil {
			t.Skipf("needs Linux 6.15: %v", err)
		}
	}
	if after := descriptors(t); after != before {
		t.Errorf("%d descriptors are open, %d were", after, before)
	}
}
