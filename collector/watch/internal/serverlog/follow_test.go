package serverlog_test

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prefork-exporter/prefork_exporter/collector/watch/internal/serverlog"
)

// followed returns a file, and what its follower tells of it, bit by bit.
func followed(t *testing.T, before string) (f *os.File, next func(n int) string, stop func()) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "log")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	write(t, f, before)
	view, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := view.Seek(0, io.SeekEnd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = f.Close(), view.Close() })
	ctx, cancel := context.WithCancel(t.Context())
	r := serverlog.Follow(ctx, view)
	return f, func(n int) string {
		b := make([]byte, n)
		got, err := io.ReadFull(r, b)
		if err != nil {
			return string(b[:got]) + ": " + err.Error()
		}
		return string(b)
	}, cancel
}

func write(t *testing.T, f *os.File, text string) {
	t.Helper()
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
}

func TestAFileIsFollowed(t *testing.T) {
	f, next, stop := followed(t, "before\n")
	write(t, f, "one\n")
	if got := next(4); got != "one\n" {
		t.Errorf("%q", got)
	}
	go func() { _, _ = f.WriteString("two\n") }() // while it waits
	if got := next(4); got != "two\n" {
		t.Errorf("%q", got)
	}
	if err := f.Truncate(0); err != nil {
		t.Fatal(err)
	}
	write(t, f, "three\n")
	if got := next(7); got != "\x00three\n" {
		t.Errorf("after it was cut: %q", got)
	}
	write(t, f, strings.Repeat("x", 9<<20))
	if got := next(1); got != "\x00" {
		t.Errorf("after too much: %q", got)
	}
	write(t, f, "four\n")
	if got := next(5); got != "four\n" {
		t.Errorf("behind that: %q", got)
	}
	stop()
	if got := next(1); got != ": EOF" {
		t.Errorf("at the end: %q", got)
	}
}
