// Command newborn is the least worker that supervise can have, so that what bench measures is supervise. It
// tells bench when it was born, and lives on; with a second argument it ends as soon as bench has heard of it.
package main

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	born := monotonic() // before anything else: what is left between the exec and this is Go's runtime
	if err := live(born, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "newborn:", err)
		os.Exit(1)
	}
}

// live is the rest of its life. While nobody listens on the socket that the arguments name, it goes on.
func live(born int64, args []string) error {
	if len(args) == 0 {
		return fmt.Errorf("no argument: want a socket to speak to")
	}
	birth := fmt.Sprintf("%d %d %s", born, os.Getpid(), os.Getenv("PREFORK_WORKER_ID"))
	for tell(args[0], birth) != nil {
		time.Sleep(100 * time.Millisecond)
	}
	if len(args) > 1 {
		return tell(os.Getenv("NOTIFY_SOCKET"), "STOPPING=1\nX_PREFORK_REASON=max_requests")
	}
	for {
		time.Sleep(time.Hour)
	}
}

// tell sends one datagram. Package net would do so too, and take a while to start.
func tell(socket, words string) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	return unix.Sendto(fd, []byte(words), 0, &unix.SockaddrUnix{Name: socket})
}

// monotonic returns the nanoseconds of a clock that all processes share.
func monotonic() int64 {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &t) // always there
	return t.Nano()
}
