package app

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/prefork-exporter/prefork_exporter/collector/watch"
	"github.com/prefork-exporter/prefork_exporter/multiproc"
)

// search finds the metric directory of a target that names none: its master's environment
// does, or else there is one at home. What was found stays until something else is: a
// server that is started again goes on there. It is safe for concurrent use.
type search struct {
	mu    sync.Mutex
	pid   int               // of the master that it was found of
	found *multiproc.Source // without labels; nil: nothing yet
	why   string            // there is nothing; one of few texts
}

// source returns what was found.
func (s *search) source() (multiproc.Source, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.found == nil {
		return multiproc.Source{}, false
	}
	return *s.found, true
}

// reason returns why nothing was found.
func (s *search) reason() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.why
}

// look looks at the master, whose process id is 0 if it is not there, and says whether
// something else was found than before. home returns a last resort. The error is why
// nothing was found, when that is another reason than before.
func (s *search) look(pid int, home func() (string, bool)) (changed bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if pid == 0 {
		s.why = "the master is not there"
		return false, nil
	}
	if s.stands(pid) {
		return false, nil
	}
	dir, err := watch.FindDirectory("", pid)
	switch {
	case err != nil:
		return false, s.note(err)
	case dir.Path != "":
		s.pid, s.found, s.why = pid, &multiproc.Source{Path: dir.Path, Root: dir.Root}, ""
		return true, nil
	}
	if at, ok := home(); ok && s.found == nil {
		s.pid, s.found = pid, &multiproc.Source{Path: at}
		return true, nil
	}
	return false, s.note(errors.New("the environment of the master names no metric directory, or was overwritten"))
}

// note notes why nothing was found yet, and returns it if that is another reason than before.
func (s *search) note(why error) error {
	if s.found != nil || s.why == why.Error() {
		return nil
	}
	s.why = why.Error()
	return why
}

// stands says whether what was found is of that master: that at home is of none, and makes
// way when a program that is started later in its process has an environment of its own.
func (s *search) stands(pid int) bool {
	if s.found == nil || s.found.Root == nil || s.pid != pid {
		return false
	}
	root, err := s.found.Root()
	if err != nil {
		return false
	}
	_ = root.Close()
	return true
}

// lookEvery is how often masters are looked at that have named no directory yet.
const lookEvery = time.Second

// searches says whether the target's directory has to be found.
func (w *observed) searches() bool { return w.watcher != nil && len(w.directories) == 0 }

// searchDirectories looks for the directories of masters, which may start later or be
// started again.
func (a *App) searchDirectories(ctx context.Context) {
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	for {
		if a.searchOnce() {
			a.reloading.Lock()
			a.merger.SetSources(a.sources())
			a.reloading.Unlock()
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// searchOnce says whether anything was found.
func (a *App) searchOnce() (changed bool) {
	for _, w := range a.observed() {
		if !w.searches() {
			continue
		}
		home := func() (string, bool) { return a.o.homeDirectory() }
		if !w.own {
			home = func() (string, bool) { return "", false }
		}
		found, err := w.search.look(w.masterPID(), home)
		if err != nil {
			a.log.Warn("No metric directory was found", "target", w.name, "err", err)
		}
		if found {
			s, _ := w.search.source()
			a.log.Info("A metric directory was found", "target", w.name, "dir", s.Path)
		}
		changed = changed || found
	}
	return changed
}

// noDirectory says why nothing is merged.
func (a *App) noDirectory() string {
	for _, w := range a.observed() {
		if w.searches() {
			return w.search.reason()
		}
	}
	return "no metric directory is known"
}

// sources returns all directories that are merged: those that are named, and those that
// were found.
func (a *App) sources() []multiproc.Source {
	all := sources(a.targets, a.direct)
	for _, w := range a.observed() {
		if s, ok := w.search.source(); ok {
			s.Labels, s.Direct = w.labelsOf(Directory{}), a.direct
			all = append(all, s)
		}
	}
	return all
}
