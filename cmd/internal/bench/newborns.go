package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// birth is what a newborn says of itself.
type birth struct {
	at   int64 // of the monotonic clock, in nanoseconds
	pid  int
	slot int
}

func parseBirth(words string) (birth, error) {
	var b birth
	if _, err := fmt.Sscanf(words, "%d %d %d", &b.at, &b.pid, &b.slot); err != nil {
		return birth{}, fmt.Errorf("birth %q: want a time, a process and a slot: %w", words, err)
	}
	return b, nil
}

// monotonic returns the nanoseconds of the clock that newborns look at.
func monotonic() int64 {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &t) // always there
	return t.Nano()
}

// registrar hears of births. It is not safe for concurrent use.
type registrar struct {
	conn *net.UnixConn
	path string
	stop func() bool
}

// hearBirths listens at path until close, or until ctx is done.
func hearBirths(ctx context.Context, path string) (*registrar, error) {
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return nil, fmt.Errorf("hear of births: %w", err)
	}
	return &registrar{conn, path, context.AfterFunc(ctx, func() { _ = conn.Close() })}, nil
}

// next returns the next birth, which must come within a time.
func (r *registrar) next(within time.Duration) (birth, error) {
	var words [100]byte
	if err := r.conn.SetReadDeadline(time.Now().Add(within)); err != nil {
		return birth{}, fmt.Errorf("hear of a birth: %w", err)
	}
	n, err := r.conn.Read(words[:])
	if err != nil {
		return birth{}, fmt.Errorf("hear of a birth: %w", err)
	}
	return parseBirth(string(words[:n]))
}

// last lets newborns speak to nobody from now on, and returns how many have spoken before that.
func (r *registrar) last() (n int, err error) {
	const silence = time.Second // ten times as long as a slot waits
	if err := os.Remove(r.path); err != nil {
		return 0, fmt.Errorf("hear of the last births: %w", err)
	}
	for {
		_, err := r.next(silence)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return n, nil
		}
		if err != nil {
			return n, err
		}
		n++
	}
}

func (r *registrar) close() error {
	r.stop()
	if err := r.conn.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}
