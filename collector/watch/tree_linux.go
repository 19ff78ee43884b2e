package watch

import (
	"slices"
	"time"

	"github.com/prefork-exporter/prefork_exporter/collector/internal/procfs"
)

// relation is what is known of a process below a master.
type relation struct {
	start uint64
	since time.Time
	role  role
}

// tree finds the processes below masters. It is for one goroutine.
type tree struct {
	proc   procfs.FS
	preset preset
	known  map[int]relation // by process id
	// listeners tell helpers that look like workers; nil: this kind of server has none.
	listeners *listeners
}

// found is a process below a master.
type found struct {
	procfs.Stat
	master *master
	args   []string
	role   role
	index  string
}

// young is how long a process that was forked may take to run another program.
const young = 50 * time.Millisecond

// undecidedEnds is how long a process may take to show what it is.
const undecidedEnds = 30 * time.Second

// news returns the processes below the masters that were not there before, or did not show what they are.
func (t *tree) news(masters []*master, now time.Time, boot time.Time) (all []found) {
	relatives := t.proc.Relatives()
	there := map[int]bool{}
	for _, m := range masters {
		if m.gone {
			continue
		}
		for _, pid := range t.below(relatives, m.PID, there) {
			if f, is := t.look(m, pid, now, boot); is {
				all = append(all, f)
			}
		}
	}
	for pid := range t.known {
		if !there[pid] {
			delete(t.known, pid)
		}
	}
	t.sortOut(all)
	return all
}

// sortOut finds out which of the new workers are none.
func (t *tree) sortOut(news []found) {
	if t.listeners == nil || !slices.ContainsFunc(news, found.isPlain) {
		return
	}
	var workers []int
	for pid, r := range t.known {
		if r.role == worker {
			workers = append(workers, pid)
		}
	}
	helpers := t.listeners.helpers(workers)
	for i, f := range news {
		if f.isPlain() && slices.Contains(helpers, f.PID) {
			news[i].role = helper
			r := t.known[f.PID]
			r.role = helper
			t.known[f.PID] = r
		}
	}
}

// isPlain says whether it is a worker only because nothing says otherwise.
func (f found) isPlain() bool { return f.role == worker && f.index == "" }

// below returns the children of a process, and theirs where it is deep. What cannot be
// read now will be the next time.
func (t *tree) below(relatives *procfs.Relatives, pid int, there map[int]bool) (all []int) {
	children, _ := relatives.Children(pid)
	for _, child := range children {
		if there[child] {
			continue // a table that is read while processes end may have a circle
		}
		there[child] = true
		all = append(all, child)
		if t.preset.deep {
			all = append(all, t.below(relatives, child, there)...)
		}
	}
	return all
}

// look returns a process, if it is new or was undecided.
func (t *tree) look(m *master, pid int, now, boot time.Time) (f found, is bool) {
	before, known := t.known[pid]
	if known && before.role != undecided {
		return f, false
	}
	s, err := t.proc.Stat(pid)
	if err != nil || s.Gone() {
		return f, false
	}
	if !known || before.start != s.Start {
		before = relation{start: s.Start, since: now}
	}
	args, err := t.proc.Args(pid)
	if err != nil {
		return f, false
	}
	f = found{Stat: s, master: m, args: args}
	f.role, f.index = t.preset.role(relative{args, s.Forked, s.Name == m.name})
	if f.role != undecided && s.Forked && now.Sub(s.Born(boot)) < young {
		f.role = undecided // it may be about to run another program
	}
	if f.role == undecided && now.Sub(before.since) > undecidedEnds {
		f.role = helper
	}
	before.role = f.role
	t.known[pid] = before
	return f, true
}

// isMaster says whether it takes the place of the master that has started it: gunicorn
// and unicorn do so when their master gets USR2.
func (f found) isMaster(k Kind) bool {
	return (k == Gunicorn || k == Unicorn) && !f.Forked && f.Name == f.master.name && KindOf(f.args) == k
}

// forget has a process looked at again.
func (t *tree) forget(pid int) { delete(t.known, pid) }
