package multiproc

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
)

// model is workers that count, and files that come, go and change under them. It
// knows what was counted: the merge must show just that, whatever happened.
type model struct {
	t       *testing.T
	r       *rand.Rand
	dirs    []string // of one application
	away    string   // where files are that left
	state   string
	merger  *Merger
	keep    int // how many files are kept open
	names   int
	workers []*counting
	counted map[string]float64 // by series
}

// counting is a worker of the model.
type counting struct {
	*worker
	path   string
	anchor bool // its file stays: else the application would begin anew
	left   bool
	values map[string]float64 // by key

	rewritten int // how often
}

func newModel(t *testing.T, seed uint64) *model {
	r := rand.New(rand.NewPCG(seed, 0))
	m := &model{t: t, r: r, away: t.TempDir(), state: t.TempDir(), keep: []int{0, 2, 1000}[r.IntN(3)], counted: map[string]float64{}}
	for range 1 + r.IntN(2) {
		m.dirs = append(m.dirs, t.TempDir())
		m.start(m.dirs[len(m.dirs)-1], "").anchor = true
	}
	m.open()
	return m
}

// open starts the exporter.
func (m *model) open() {
	m.merger = New(Options{StateDir: m.state})
	m.merger.settle, m.merger.keepOpen, m.merger.room = 0, m.keep, m.keep
	var sources []Source
	for _, dir := range m.dirs {
		sources = append(sources, Source{Path: dir})
	}
	m.merger.SetSources(sources)
}

func (m *model) name() string {
	m.names++
	return fmt.Sprintf("counter_%d.db", m.names)
}

// start starts a worker, with a file of that name or a new one.
func (m *model) start(dir, name string) *counting {
	if name == "" {
		name = m.name()
	}
	w := &counting{worker: newWorker(m.t, dir, name), path: filepath.Join(dir, name), values: map[string]float64{}}
	m.workers = append(m.workers, w)
	m.count(w, 0)
	return w
}

// count has w count one of the series.
func (m *model) count(w *counting, series int) {
	key := jsonKey("work", "work_total", map[string]string{"n": fmt.Sprint(series)})
	w.values[key]++
	w.set(key, w.values[key])
	m.counted[fmt.Sprintf(`{__name__="work_total", n="%d"}`, series)]++
}

func (m *model) move(w *counting, to string) {
	rename(m.t, w.path, to)
	w.path = to
}

// step lets something happen.
func (m *model) step() string {
	w := m.workers[m.r.IntN(len(m.workers))]
	dir := m.dirs[m.r.IntN(len(m.dirs))]
	if w.left {
		m.move(w, filepath.Join(dir, m.name()))
		w.left = false
		return "came back"
	}
	switch op := m.r.IntN(16); {
	case op < 3:
		m.start(dir, "")
		return "started"
	case op < 8 || w.anchor:
		m.count(w, m.r.IntN(5))
		return "counted"
	}
	switch m.r.IntN(7) {
	case 0:
		for key := range w.values {
			w.values[key] = 0
			w.set(key, 0)
		}
		return "began at zero"
	case 1:
		m.move(w, filepath.Join(dir, m.name()))
		return "was renamed"
	case 2:
		m.move(w, filepath.Join(m.away, m.name()))
		w.left = true
		return "left"
	case 3:
		m.copy(w)
		return "was replaced by a copy"
	case 4:
		m.rewrite(w)
		return "was written anew"
	default:
		m.end(w)
		return "ended"
	}
}

// copy replaces the file of w by a copy, which w goes on to write.
func (m *model) copy(w *counting) {
	replaceByCopy(m.t, w.path)
	f, err := os.OpenFile(w.path, os.O_RDWR, 0)
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { _ = f.Close() })
	w.f = f
}

// rewrite writes the file of w anew in place, with an entry of another length in
// front: keys of the same length that only change places, and do not fall, are
// not told apart.
func (m *model) rewrite(w *counting) {
	w.used, w.at = headerBytes, map[string]int64{}
	w.rewritten++
	w.raw(jsonKey("other", "other_total", map[string]string{"x": fmt.Sprintf("%0*d", 1+8*(w.rewritten%9), 1)}), 1)
	for key, v := range w.values {
		w.raw(key, v)
	}
}

const headerBytes = 8

// end deletes the file of w, whose name another worker may take.
func (m *model) end(w *counting) {
	if err := os.Remove(w.path); err != nil {
		m.t.Fatal(err)
	}
	for i := range m.workers {
		if m.workers[i] == w {
			m.workers = append(m.workers[:i], m.workers[i+1:]...)
			break
		}
	}
	if total := w.values[jsonKey("work", "work_total", map[string]string{"n": "0"})]; total > 1 && m.r.IntN(2) == 0 {
		m.start(filepath.Dir(w.path), filepath.Base(w.path))
	}
}

// check merges.
func (m *model) check(seed uint64, step int, what []string) {
	m.t.Helper()
	s, err := m.merger.Merge(m.t.Context())
	if err != nil {
		m.t.Fatal(err)
	}
	got := flat(m.t, s)
	for series, want := range m.counted {
		if got[series] != want {
			m.t.Fatalf("seed %d, step %d, %d files kept open: %s is %v, want %v; what happened: %q", seed, step, m.keep, series, got[series], want, what)
		}
	}
}

// somebodyLeft says whether a file is away, which the state does not know one by one.
func (m *model) somebodyLeft() bool {
	for _, w := range m.workers {
		if w.left {
			return true
		}
	}
	return false
}

// TestAttackTotalsAreWhatWorkersCounted runs ten thousand models with PREFORK_ATTACK=1.
func TestAttackTotalsAreWhatWorkersCounted(t *testing.T) {
	models := uint64(60)
	if os.Getenv("PREFORK_ATTACK") == "1" {
		models = 10_000
	}
	for seed := range models {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			m := newModel(t, seed)
			defer func() { m.merger.Close() }()
			var what []string
			for step := range 50 {
				what = append(what, m.step())
				if m.r.IntN(4) == 0 {
					m.merger.Sweep()
					what = append(what, "sweep")
				}
				m.check(seed, step, what)
				if m.r.IntN(20) == 0 && !m.somebodyLeft() {
					m.merger.Close()
					m.open()
					what = append(what, "exporter restarted")
					m.check(seed, step, what)
				}
			}
		})
	}
}
