package watch

import (
	"bytes"
	"context"
	"io"
	"os"

	"github.com/prefork-exporter/prefork_exporter/collector/watch/internal/serverlog"
)

// LogEvent is what a line of a server's log tells: a hint, which has to agree with what
// the kernel says.
type LogEvent = serverlog.Event

// ReadLog reads what a server writes, from a pipe or, as it grows, from a file, until it
// ends or ctx is done; then f has to be closed for a pipe. It hands over the events, in
// order. The first line is left out: somebody else may have read its begin.
func ReadLog(ctx context.Context, f *os.File, take func(LogEvent)) error {
	var r io.Reader = f
	if info, err := f.Stat(); err == nil && info.Mode().IsRegular() {
		r = serverlog.Follow(ctx, f)
	}
	return serverlog.Read(io.MultiReader(bytes.NewReader([]byte{0}), r), take) //nolint:wrapcheck // it tells all
}
