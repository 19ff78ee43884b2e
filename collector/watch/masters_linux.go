package watch

import (
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/prefork-exporter/prefork_exporter/collector/internal/procfs"
	"github.com/prefork-exporter/prefork_exporter/collector/watch/internal/exits"
)

// master is one that is watched, or was.
type master struct {
	identity
	args []string
	name string // of its program
	kind Kind   // that its program, which may become another one, looks like
	born procfs.Stat
	// heir takes its place, or has taken it; nil: nobody does.
	heir *master
	// inherits says that it was started by the one before it to take its place.
	inherits bool
	gaveWay  bool // it lived when another took its place
	gone     bool
	paused   bool
	status   exitStatus
}

// recognise finds out what the program of the process is.
func (m *master) recognise(proc procfs.FS, name string) error {
	args, err := proc.Args(m.PID)
	if err != nil {
		return errors.New("the command line of the master cannot be read")
	}
	m.args, m.name, m.kind = args, name, KindOf(args)
	if kind, ok := kindOfProgram(name); ok && m.kind == Generic {
		m.kind = kind
	}
	return nil
}

// masters are those that are watched: the present one, those whose workers have not all
// ended, and who was started to take its place. It is for one goroutine.
type masters struct {
	proc     procfs.FS
	finder   Finder
	all      []*master
	present  *master // nil: there was none yet. It may be gone.
	asked    time.Time
	missing  error // why none is there
	stopping bool  // the operator has told the present one to end

	restarts map[string]float64 // by reason
}

func newMasters(proc procfs.FS, f Finder) *masters {
	return &masters{proc: proc, finder: f, restarts: map[string]float64{}}
}

// look finds out which there are.
func (ms *masters) look(now time.Time) {
	for _, m := range ms.all {
		ms.check(m)
	}
	before := ms.present
	if before != nil && before.gone && before.heir != nil && !before.heir.gone {
		ms.take(before.heir)
		return
	}
	pause := findEvery
	if before == nil || before.gone {
		pause = measureEvery
	}
	if now.Sub(ms.asked) < pause {
		return
	}
	ms.asked = now
	pid, err := ms.finder.Find()
	if err == nil {
		err = ms.find(pid)
	}
	ms.missing = err
}

// check finds out whether a master is there still.
func (ms *masters) check(m *master) {
	s, err := ms.proc.Stat(m.PID)
	switch {
	case err == nil && s.Start == m.Start:
		m.gone, m.paused = s.Gone(), s.State == 'T' || s.State == 't'
		if s.Name != m.name && !m.gone {
			_ = m.recognise(ms.proc, s.Name) // it has ended, or will be asked again
		}
	case err == nil || errors.Is(err, fs.ErrNotExist):
		m.gone = true
	}
}

// find makes the process the present master.
func (ms *masters) find(pid int) error {
	s, err := ms.proc.Stat(pid)
	if err != nil {
		return errors.New("the master is not there, or may not be seen")
	}
	if s.Gone() {
		return errors.New("the master has ended")
	}
	who := identity{s.PID, s.Start}
	for _, m := range ms.all {
		if m.identity == who {
			ms.take(m)
			return nil
		}
	}
	m := &master{identity: who, born: s}
	if err := m.recognise(ms.proc, s.Name); err != nil {
		return err
	}
	ms.all = append(ms.all, m)
	ms.take(m)
	return nil
}

// take makes m the present master, and counts why there is another.
func (ms *masters) take(m *master) {
	if old := ms.present; old != nil && old != m && m.heir != old {
		ms.restarts[old.restartReason(m)]++
		if old.heir == nil {
			old.heir, old.gaveWay = m, !old.gone
		}
	}
	ms.present = m
}

// restartReason is why another is in its place.
func (m *master) restartReason(by *master) string {
	switch {
	case m.heir == by || !m.gone:
		return reasonReload
	case !m.status.known:
		return reasonUnknown
	case m.status.Signaled():
		return reasonSignal
	case m.status.ExitStatus() != 0:
		return reasonExitCode
	}
	return reasonClean
}

// inherit notes who was started to take the place of a master.
func (ms *masters) inherit(f found) {
	heir := &master{identity: identity{f.PID, f.Start}, args: f.args, name: f.Name, kind: f.master.kind, born: f.Stat, inherits: true}
	f.master.heir = heir
	ms.all = append(ms.all, heir)
}

// end notes that a process has ended, if it is a master.
func (ms *masters) end(who identity, d exits.Death) (is bool) {
	for _, m := range ms.all {
		if m.identity == who {
			m.gone, m.status = true, exitStatus{d.Status, d.Known}
			is = true
		}
	}
	return is
}

// doings are what the master of that process id is seen to do.
func (ms *masters) doings(pid int) doings {
	for _, m := range ms.all {
		if m.PID == pid {
			replaced := m.heir != nil && !m.heir.gone && (m.heir.inherits || m.gaveWay)
			stopping := m.gone || ms.stopping || replaced && ms.present == m.heir
			return doings{stopping: stopping, replaced: replaced, paused: m.paused}
		}
	}
	return doings{stopping: true}
}

// drop forgets the masters that are gone and have no workers.
func (ms *masters) drop(living map[identity]*member) {
	has := map[int]bool{}
	for _, m := range living {
		has[m.master] = true
	}
	var left []*master
	for _, m := range ms.all {
		if m == ms.present || !m.gone || has[m.PID] {
			left = append(left, m)
		}
	}
	ms.all = left
}

// whyNone is why there is no master; empty: there is one.
func (ms *masters) whyNone() string {
	switch {
	case ms.present != nil && !ms.present.gone:
		return ""
	case ms.missing != nil:
		return fmt.Sprint(ms.missing)
	}
	return "the master has ended"
}
