package supervisor

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestWhereSocketsAreOpened(t *testing.T) {
	dir := t.TempDir()
	stale := filepath.Join(dir, "stale")
	l, err := net.Listen("unix", stale)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	s, err := Listen([]string{"127.0.0.1:0", "unix:" + filepath.Join(dir, "new"), "unix:" + stale}, false)
	if err != nil {
		t.Fatal(err)
	}
	files, names, err := s.For(7)
	if err != nil || len(files) != 3 || names[1] != "unix-"+filepath.Join(dir, "new") {
		t.Errorf("sockets %q, %v", names, err)
	}
	for _, path := range []string{stale, filepath.Join(dir, "new")} {
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Error(err)
			continue
		}
		_ = c.Close()
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left %v, %v", left, err)
	}
}

func TestWhereSocketsCannotBeOpened(t *testing.T) {
	dir := t.TempDir()
	l, err := net.Listen("unix", filepath.Join(dir, "taken"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tcp.Close() }()
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for address, want := range map[string]string{
		"unix:" + filepath.Join(dir, "taken"): "a server listens there",
		"unix:" + filepath.Join(dir, "file"):  "no socket",
		"unix:/no/such/directory":             "no such file",
		tcp.Addr().String():                   "address already in use",
		"nowhere":                             "missing port",
	} {
		if s, err := Listen([]string{"127.0.0.1:0", address}, false); s != nil || err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "--listen "+address) {
			t.Errorf("%s: %v; want %q", address, err, want)
		}
	}
}

// Each slot has a queue of its own, which ends with the slot.
func TestSocketsThatSharePortsAreOnesOfSlots(t *testing.T) {
	s, err := Listen([]string{"127.0.0.1:0", "unix:" + filepath.Join(t.TempDir(), "s")}, true)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	inodes := func(slot int) (all []uint64) {
		t.Helper()
		files, _, err := s.For(slot)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			info, err := f.Stat()
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, info.Sys().(*syscall.Stat_t).Ino)
		}
		return all
	}
	first, second := inodes(0), inodes(1)
	if first[0] == second[0] || first[1] != second[1] {
		t.Errorf("inodes %v and %v: want TCP apart, and one unix socket", first, second)
	}
	if again := inodes(1); again[0] != second[0] {
		t.Errorf("inode %d for a successor, want its predecessor's %d", again[0], second[0])
	}
	s.Keep(1)
	if again := inodes(0); again[0] != first[0] {
		t.Errorf("inode %d, want what it was: %d", again[0], first[0])
	}
	if again := inodes(1); again[0] == second[0] {
		t.Error("the socket of a slot that was taken is still there")
	}
}
