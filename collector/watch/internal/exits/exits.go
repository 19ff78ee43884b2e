// Package exits tells when processes end that are not our children, at once, and how
// they have ended: what wait(2) tells their parent. It promises nothing to other modules.
//
// Linux tells that to strangers in three ways, of which the first that is to be had is
// used. A pidfd tells it once the parent has waited for the process (Linux 6.15). The
// proc connector tells of all deaths of the machine, where it is allowed to. The zombie's
// line in /proc has it for as long as the parent does not wait, for who may trace the
// process. Where none of them tells, the status is unknown, and said to be.
package exits

import (
	"log/slog"
	"time"

	"golang.org/x/sys/unix"

	"github.com/prefork-exporter/prefork_exporter/collector/internal/procfs"
)

// Process is one process, and never another that has got its id since.
type Process struct {
	PID   int
	Start uint64 // in ticks since the machine's start, as [procfs.Stat] has it
}

// Death is the end of a process.
type Death struct {
	Process
	At     time.Time       // when its end was noticed
	Status unix.WaitStatus // how it has ended, as wait(2) tells; nothing where it is not Known
	Known  bool
	// Stat is what was there of it before its parent waited for it, such as its processor
	// time; nil: its parent was faster. Its ExitCode may be 0 whatever the truth: use Status.
	Stat *procfs.Stat
}

// Feature is how the statuses of the processes are found.
type Feature struct {
	How    string // pidfd, connector or zombie
	Reason string // why some or all of them will be unknown, or late; empty: at most a zombie's whose parent was faster
}

// Options say how processes are watched.
type Options struct {
	Proc   procfs.FS     // the zero value is /proc
	Logger *slog.Logger  // nil: nothing is logged
	Poll   time.Duration // how often processes are looked at that the kernel tells nothing of; 0: 250 ms

	without ways // of the ways that there are, for tests
}

// ways is a set of means that the kernel offers.
type ways uint8

const (
	pidfds ways = 1 << iota // to be woken when a process ends
	infos                   // to ask a pidfd for the status
	connectors
	zombies
)
