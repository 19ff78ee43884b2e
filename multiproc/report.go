package multiproc

import (
	"context"
	"log/slog"
)

// count counts what is wrong with the directories and files after a merge, and
// logs what was not logged yet.
func (m *Merger) count() {
	for _, s := range m.sources {
		m.countSource(s)
		for _, f := range s.order {
			m.countFile(f)
		}
	}
}

func (m *Merger) countSource(s *source) {
	if s.fault == nil {
		delete(m.logged, s.Path)
		return
	}
	m.errors[s.fault.Reason]++
	noted := m.logged[s.Path]
	if noted.has(s.fault.Reason) {
		return
	}
	noted.add(s.fault.Reason)
	m.logged[s.Path] = noted
	m.log.Warn("metric directory cannot be used", "dir", s.Path, "err", s.fault)
}

func (m *Merger) countFile(f *file) {
	all := f.faults
	if f.binding != nil {
		all |= f.binding.faults
	}
	all.each(func(r Reason) {
		m.errors[r]++
		if f.logged.has(r) {
			return
		}
		f.logged.add(r)
		level := slog.LevelWarn
		if r == ReasonShadowed {
			level = slog.LevelDebug // as it should be
		}
		m.log.Log(context.Background(), level, "metric file is not used, or not all of it",
			"reason", r.String(), "dir", f.source.Path, "file", clip(f.base), "err", f.why(r))
	})
}

// why returns what is behind the fault r of f.
func (f *file) why(r Reason) error {
	if f.faults.has(r) {
		return f.broken
	}
	first := f.binding.first[r]
	k, place := f.binding.layout.keys[first.index], f.binding.layout.place[first.index]
	return fault(r, "entry at byte %d: %w", f.framing().Start(int(place.at), len(k.raw)), first.err)
}
