//go:build !linux

package gunicorn

import (
	"errors"
	"time"

	"github.com/prefork-exporter/prefork_exporter/collector/internal/procfs"
)

// Heartbeat would be a worker's file; there is none to be had here.
type Heartbeat struct{}

// OpenHeartbeat returns [errors.ErrUnsupported].
func OpenHeartbeat(procfs.FS, int, int) (*Heartbeat, error) { return nil, errors.ErrUnsupported }

// LastSign knows nothing.
func (*Heartbeat) LastSign() (time.Time, bool) { return time.Time{}, false }

// Close does nothing.
func (*Heartbeat) Close() error { return nil }
