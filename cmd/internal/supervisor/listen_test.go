package supervisor

import (
	"net"
	"os"
	"path/filepath"
	"strings"
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
	s, err := Listen([]string{"127.0.0.1:0", "unix:" + filepath.Join(dir, "new"), "unix:" + stale})
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Files) != 3 || s.Names[1] != "unix-"+filepath.Join(dir, "new") {
		t.Errorf("sockets %q", s.Names)
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
		if s, err := Listen([]string{"127.0.0.1:0", address}); s != nil || err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "--listen "+address) {
			t.Errorf("%s: %v; want %q", address, err, want)
		}
	}
}
