package notify_test

import (
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prefork-exporter/prefork_exporter/registry/notify"
)

// parent listens as a parent does, until the test ends.
func parent(t *testing.T, name string) *net.UnixConn {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	t.Setenv("NOTIFY_SOCKET", name)
	if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return conn
}

func TestTheParentHearsWhatIsSaid(t *testing.T) {
	for name, socket := range map[string]string{
		"by a path":           filepath.Join(t.TempDir(), "notify"),
		"by an abstract name": "@prefork-notify-test-" + strconv.Itoa(os.Getpid()),
	} {
		t.Run(name, func(t *testing.T) {
			conn := parent(t, socket)
			for want, say := range map[string]func() error{
				"READY=1":    notify.Ready,
				"WATCHDOG=1": notify.Alive,
				"STOPPING=1\nX_PREFORK_REASON=max_requests": func() error { return notify.Stopping("max_requests") },
			} {
				if err := say(); err != nil {
					t.Fatal(err)
				}
				b := make([]byte, 100)
				n, err := conn.Read(b)
				if err != nil || string(b[:n]) != want {
					t.Errorf("heard %q, %v; want %q", b[:n], err, want)
				}
			}
		})
	}
}

func TestWithoutAParentNothingIsSaid(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	if err := notify.Ready(); err != nil {
		t.Error(err)
	}
	t.Setenv("NOTIFY_SOCKET", filepath.Join(t.TempDir(), "gone"))
	if err := notify.Ready(); err == nil || !strings.Contains(err.Error(), `tell the parent ["READY=1"]`) {
		t.Errorf("error %v, want one that says what was to be told", err)
	}
}

func TestWhatTheWatchdogWants(t *testing.T) {
	for name, tc := range map[string]struct {
		usec, pid string
		want      time.Duration
	}{
		"nothing":                   {"", "", 0},
		"a sign of life in 2 s":     {"2000000", "", 2 * time.Second},
		"one of this process":       {"2000000", strconv.Itoa(os.Getpid()), 2 * time.Second},
		"one of another process":    {"2000000", "1", 0},
		"what is no number":         {"soon", "", 0},
		"what is no time to come":   {"-5", "", 0},
		"what no time can be, zero": {"0", "", 0},
		"more than 292 years":       {"9223372036854775807", "", 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("WATCHDOG_USEC", tc.usec)
			t.Setenv("WATCHDOG_PID", tc.pid)
			if got := notify.Watchdog(); got != tc.want {
				t.Errorf("watchdog %v, want %v", got, tc.want)
			}
		})
	}
}
