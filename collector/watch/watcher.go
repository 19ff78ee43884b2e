package watch

import (
	"log/slog"
	"time"
)

// Options say which server is watched, and how.
type Options struct {
	Proc   string // where proc is mounted; empty: /proc
	Master Finder // finds the master; never nil
	Kind   Kind   // of the server; empty: it is found out
	// Timeout is how long a worker may give no sign of life, where the server does not tell
	// that; 0: nobody knows, and no death is taken for a timeout.
	Timeout   time.Duration
	StateFile string // of the slots, which outlive the exporter; empty: they do not
	// OOMKills counts the processes of the server's control group that the kernel has killed
	// for want of memory; nil: nobody does.
	OOMKills func() (n int64, ok bool)
	// Parent is what our own parent, which has started the server, tells of its master; nil: nobody has.
	Parent Source
	Logger *slog.Logger // nil: nothing is logged
}

// Finder finds a master. Its error says what was looked for and not found: it may start later.
type Finder interface{ Find() (pid int, err error) }
