// Package notify lets a worker tell its parent how it is, by the protocol of
// sd_notify(3): to systemd, to prefork_exporter supervise, or to nobody, when
// $NOTIFY_SOCKET is not set.
package notify

import (
	"fmt"
	"math"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
)

// Ready says that the worker serves.
func Ready() error { return Send("READY=1") }

// Stopping says that the worker stops by itself, and why: one of the reasons of
// prefork_worker_restart_total, such as max_requests.
func Stopping(reason string) error { return Send("STOPPING=1", "X_PREFORK_REASON="+reason) }

// Alive is the sign of life that a parent with a watchdog waits for.
func Alive() error { return Send("WATCHDOG=1") }

// Send sends assignments, each a line of the protocol, in one datagram. Without
// $NOTIFY_SOCKET it does nothing.
func Send(assignments ...string) error {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return nil
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("tell the parent %q: %w", assignments, err)
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(time.Second)); err != nil { // a parent that hangs must not hang us
		return fmt.Errorf("tell the parent %q: %w", assignments, err)
	}
	if _, err := conn.Write([]byte(strings.Join(assignments, "\n"))); err != nil {
		return fmt.Errorf("tell the parent %q: %w", assignments, err)
	}
	return nil
}

// Watchdog returns within which time the parent wants a sign of life, from
// $WATCHDOG_USEC; zero when it wants none, or wants it of another process, by
// $WATCHDOG_PID.
func Watchdog() time.Duration {
	if pid := os.Getenv("WATCHDOG_PID"); pid != "" && pid != strconv.Itoa(os.Getpid()) {
		return 0
	}
	micros, err := strconv.ParseInt(os.Getenv("WATCHDOG_USEC"), 10, 64)
	if err != nil || micros <= 0 || micros > math.MaxInt64/1000 {
		return 0
	}
	return time.Duration(micros) * time.Microsecond
}
