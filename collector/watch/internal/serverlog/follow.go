package serverlog

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"
)

// Follow returns a reader of what is written to a file from where it stands on: at the
// end of the file it waits for more, until ctx is done. Where bytes are missing, because
// the file was cut or because there were too many, is a byte 0. The file stays the caller's.
func Follow(ctx context.Context, f *os.File) io.Reader { return &follower{ctx, f} }

type follower struct {
	ctx context.Context //nolint:containedctx // that of a reader, which has no other
	f   *os.File
}

const (
	lookEvery = 250 * time.Millisecond
	maxBehind = 8 << 20 // what is left out is older
)

// Read implements [io.Reader].
func (l *follower) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	timer := time.NewTimer(lookEvery)
	defer timer.Stop()
	for l.ctx.Err() == nil {
		moved, err := l.keepUp()
		switch {
		case err != nil:
			return 0, err
		case moved:
			b[0] = gap
			return 1, nil
		}
		if n, err := l.f.Read(b); n > 0 || err != io.EOF {
			return n, err //nolint:wrapcheck // it is that of a file
		}
		timer.Reset(lookEvery)
		select {
		case <-l.ctx.Done():
		case <-timer.C:
		}
	}
	return 0, io.EOF
}

// keepUp moves on where the file is, by now, too long or too short.
func (l *follower) keepUp() (moved bool, err error) {
	info, err := l.f.Stat()
	if err != nil {
		return false, fmt.Errorf("follow the server's log: %w", err)
	}
	at, err := l.f.Seek(0, io.SeekCurrent)
	if err != nil {
		return false, fmt.Errorf("follow the server's log: %w", err)
	}
	switch {
	case info.Size() < at:
		at = 0
	case info.Size()-at > maxBehind:
		at = info.Size()
	default:
		return false, nil
	}
	_, err = l.f.Seek(at, io.SeekStart)
	return true, err //nolint:wrapcheck // it is that of a file
}
