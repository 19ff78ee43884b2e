package gunicorn

import (
	"errors"
	"io/fs"
	"time"
)

// ErrNoHeartbeat says that a process has no heartbeat file of its own: it is no worker of
// this master, or no gunicorn, or it is about to end.
var ErrNoHeartbeat = errors.New("no heartbeat file of its own")

// ErrUnsettled says that a process has the files of others, too. A worker has, for less than
// a millisecond after it was forked: ask again. What else the master has forked may have
// them all its life.
var ErrUnsettled = errors.New("more than one heartbeat file")

// touched is what a heartbeat file says of itself.
type touched struct {
	modified, changed time.Time
	mode              fs.FileMode
}

// lastSign returns the last sign of life, given the present time by the wall clock and by
// the worker's monotonic one.
//
// Since gunicorn 22.0 (gunicorn/workers/workertmp.py) a sign of life sets the time of
// modification to the monotonic clock, which is far behind the wall clock that the file
// was made by. Before, it changed the permissions to 000 and 001 in turn, and so the time
// of the change; the file is made with others. A worker that has done neither still boots,
// and gunicorn will wait for it for ever.
func (t touched) lastSign(now time.Time, monotonic time.Duration) (time.Time, bool) {
	if at := t.modified.Sub(time.Unix(0, 0)); at >= 0 && at <= monotonic {
		return now.Add(at - monotonic), true
	}
	if t.mode.Perm() <= 1 {
		return t.changed, true
	}
	return time.Time{}, false
}
