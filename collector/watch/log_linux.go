package watch

import (
	"strconv"
	"time"

	"github.com/prefork-exporter/prefork_exporter/collector/watch/internal/exits"
	"github.com/prefork-exporter/prefork_exporter/collector/watch/internal/serverlog"
)

// mostHeard is how many events of a log may wait. More tell no more.
const mostHeard = 256

// Hear takes what a line of the server's log tells. It does not block.
func (w *Watcher) Hear(e LogEvent) {
	select {
	case w.heard <- e:
	default:
	}
}

// heed joins what the log tells to what is known. Anybody may write there: what is said of
// a worker counts only if its master says it, or itself, and is no more than a hint.
func (w *Watcher) heed(e LogEvent, now time.Time) {
	m := w.masters.present
	if m == nil || e.Server != string(w.book.kind) || e.By != serverlog.None && e.By != m.PID && e.By != e.PID {
		return
	}
	switch e.What {
	case serverlog.WorkerTimeout:
		w.book.hint(e.PID, index(e), reasonTimeout)
	case serverlog.MaxRequests:
		w.book.hint(e.PID, index(e), reasonMaxRequests)
	case serverlog.BootFailed:
		w.book.hint(e.PID, index(e), reasonBootError)
	case serverlog.MasterReload:
		w.book.told(now, time.Time{})
	case serverlog.HelperBorn:
		w.dismiss(e.PID)
	}
}

// index is the server's own number of a worker; empty: it tells none.
func index(e LogEvent) string {
	if e.Worker == serverlog.None {
		return ""
	}
	return strconv.Itoa(e.Worker)
}

// dismiss notes that a process is no worker.
func (w *Watcher) dismiss(pid int) {
	for who := range w.book.living {
		if who.PID == pid {
			w.book.dismiss(who)
			w.tree.known[pid] = relation{start: who.Start, role: helper}
			w.exits.Remove(exits.Process{PID: pid, Start: who.Start})
		}
	}
}
