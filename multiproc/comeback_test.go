package multiproc

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// What an attack on files that come and go found.

func TestAFileThatComesBackIsItselfNotAnEarlierOneOfItsName(t *testing.T) {
	for _, how := range []string{"moved", "copied"} {
		t.Run(how, func(t *testing.T) {
			dir := t.TempDir()
			newWorker(t, dir, "counter_2.db").set(hitsKey(), 15)
			a := newWorker(t, dir, "counter_1.db")
			a.set(hitsKey(), 10)
			m := watch(t, Source{Path: dir})
			m.samples()
			a.remove()
			m.samples()
			b := newWorker(t, dir, "counter_1.db")
			b.set(hitsKey(), 3)
			sameValues(t, m.samples(), map[string]float64{hits: 28})
			b.set(hitsKey(), 15)
			sameValues(t, m.samples(), map[string]float64{hits: 40})
			p := b.f.Name()
			if how == "moved" {
				rename(t, p, p+".away")
				m.samples()
				rename(t, p+".away", p)
			} else {
				replaceByCopy(t, p)
			}
			sameValues(t, m.samples(), map[string]float64{hits: 40})
		})
	}
}

func TestTwoDirectoriesOfOneApplicationBeginAnewTogether(t *testing.T) {
	for name, tc := range map[string]struct {
		then func(m watched, a, b *worker) // to the workers of the first and of the second
		came []float64                     // by directory, what workers that follow have counted
		want float64
	}{
		"not while the other goes on": {func(_ watched, a, _ *worker) { a.remove() }, []float64{3}, 153},
		"when both begin anew":        {func(_ watched, a, b *worker) { a.remove(); b.remove() }, []float64{3, 4}, 7},
		"when both were empty before": {func(m watched, a, b *worker) { a.remove(); b.remove(); m.Sweep(); m.samples() }, []float64{3, 4}, 7},
		"when the other ended before": {func(m watched, a, b *worker) {
			b.remove()
			sameValues(t, m.samples(), map[string]float64{hits: 150})
			a.remove()
		}, []float64{3}, 3},
	} {
		t.Run(name, func(t *testing.T) {
			dirs := []string{t.TempDir(), t.TempDir()}
			a, b := newWorker(t, dirs[0], "counter_1.db"), newWorker(t, dirs[1], "counter_2.db")
			a.set(hitsKey(), 100)
			b.set(hitsKey(), 50)
			m := watch(t, Source{Path: dirs[0]}, Source{Path: dirs[1]})
			sameValues(t, m.samples(), map[string]float64{hits: 150})
			tc.then(m, a, b)
			for i, v := range tc.came {
				newWorker(t, dirs[i], fmt.Sprintf("counter_%d.db", 3+i)).set(hitsKey(), v)
			}
			sameValues(t, m.samples(), map[string]float64{hits: tc.want})
		})
	}
}

func TestRoundingDoesNotMakeFilesThatLeftForgotten(t *testing.T) {
	for seed := range uint64(30) {
		dir := t.TempDir()
		r := rand.New(rand.NewPCG(seed, 1))
		var ws []*worker
		for i := range 10 {
			w := newWorker(t, dir, fmt.Sprintf("counter_%d.db", i))
			w.set(hitsKey(), r.Float64()*100)
			ws = append(ws, w)
		}
		m := watch(t, Source{Path: dir})
		before := m.samples()[hits]
		p := ws[9].f.Name()
		rename(t, p, p+".away")
		m.samples()
		m.samples()
		rename(t, p+".away", p)
		if got := m.samples()[hits]; got > before+1e-6 {
			t.Fatalf("seed %d: %v, was %v", seed, got, before)
		}
	}
}

func TestAFallInAMergeThatFailsIsKept(t *testing.T) {
	dir, other := t.TempDir(), t.TempDir()
	a, b := newWorker(t, dir, "counter_1.db"), newWorker(t, dir, "counter_2.db")
	a.set(hitsKey(), 10)
	b.set(hitsKey(), 20)
	newWorker(t, other, "counter_1.db").set(hitsKey(), 5)
	m := watch(t, Source{Path: dir})
	sameValues(t, m.samples(), map[string]float64{hits: 30})
	m.SetSources([]Source{{Path: dir}, {Path: other, Labels: map[string]string{"x": "y"}}})
	m.fs = noFiles{osFS{}}
	a.set(hitsKey(), 1)
	if _, err := m.Merge(t.Context()); err == nil {
		t.Fatal("no error")
	}
	m.fs = osFS{}
	sameValues(t, m.samples(), map[string]float64{hits: 31, `{__name__="hits_total", x="y"}`: 5})
}

func TestWhatWasCountedBeforeAMergeThatFailedStays(t *testing.T) {
	dir, other := t.TempDir(), t.TempDir()
	a, b := newWorker(t, dir, "counter_1.db"), newWorker(t, dir, "counter_2.db")
	a.set(hitsKey(), 10)
	b.set(hitsKey(), 20)
	newWorker(t, other, "counter_1.db").set(hitsKey(), 5)
	m := watch(t, Source{Path: dir})
	sameValues(t, m.samples(), map[string]float64{hits: 30})
	m.SetSources([]Source{{Path: dir}, {Path: other, Labels: map[string]string{"x": "y"}}})
	m.fs = noFiles{osFS{}}
	a.used, a.at = 8, map[string]int64{}
	a.raw(jsonKey("o", "o_total", nil), 1)
	if _, err := m.Merge(t.Context()); err == nil {
		t.Fatal("no error")
	}
	a.remove()
	m.fs = osFS{}
	got := m.samples()
	if got[hits] != 30 {
		t.Error(got)
	}
}

func TestADirectoryByTwoPathsIsMergedOnceThoughOneCannotBeOpened(t *testing.T) {
	parent := t.TempDir()
	dir, link := filepath.Join(parent, "home"), filepath.Join(parent, "link")
	if err := errors.Join(os.Mkdir(dir, 0o755), os.Symlink(dir, link)); err != nil {
		t.Fatal(err)
	}
	newWorker(t, dir, "counter_1.db").set(hitsKey(), 10)
	m := watch(t, Source{Path: dir}, Source{Path: link})
	sameValues(t, m.samples(), map[string]float64{hits: 10})
	m.fs = shutPath{osFS{}, dir}
	sameValues(t, m.samples(), map[string]float64{hits: 10})
	m.fs = osFS{}
	sameValues(t, m.samples(), map[string]float64{hits: 10})
}

func TestADirectoryThatLosesOneOfItsTwoPathsGoesOn(t *testing.T) {
	parent := t.TempDir()
	dir, link := filepath.Join(parent, "home"), filepath.Join(parent, "link")
	if err := errors.Join(os.Mkdir(dir, 0o755), os.Symlink(dir, link)); err != nil {
		t.Fatal(err)
	}
	newWorker(t, dir, "counter_1.db").set(hitsKey(), 10)
	b := newWorker(t, dir, "counter_2.db")
	b.set(hitsKey(), 20)
	m := watch(t, Source{Path: link}, Source{Path: dir})
	sameValues(t, m.samples(), map[string]float64{hits: 30})
	b.remove()
	sameValues(t, m.samples(), map[string]float64{hits: 30})
	if err := os.Remove(link); err != nil {
		t.Fatal(err)
	}
	sameValues(t, m.samples(), map[string]float64{hits: 30})
}

func TestACounterThatFallsWhileAnotherIsLookedAtAgainIsNotForgotten(t *testing.T) {
	dir := t.TempDir()
	a := newWorker(t, dir, "counter_1.db")
	k1, k2 := jsonKey("a", "a_total", nil), jsonKey("b", "b_total", nil)
	a.set(k1, 10)
	a.set(k2, 20)
	m := New(Options{})
	defer m.Close()
	reads := 0
	m.fs = onRead{osFS{}, func(b []byte, off int64) {
		reads++
		at := a.at[k1]
		if reads == 3 {
			at = a.at[k2]
		}
		if reads <= 3 && reads != 2 && at-off >= 0 && int(at-off)+8 <= len(b) {
			clear(b[at-off:][:8])
		}
	}}
	m.SetSources([]Source{{Path: dir}})
	w := watched{t, m}
	reads = 100
	want := map[string]float64{`{__name__="a_total"}`: 10, `{__name__="b_total"}`: 20}
	sameValues(t, w.samples(), want)
	reads = 0
	sameValues(t, w.samples(), want)
}

func TestAnEntryThatComesBackByGrowthIsCountedOnce(t *testing.T) {
	dir := t.TempDir()
	a, b := newWorker(t, dir, "counter_1.db"), newWorker(t, dir, "counter_2.db")
	a.set(hitsKey(), 10)
	b.set(hitsKey(), 20)
	m := watch(t, Source{Path: dir})
	m.samples()
	a.used, a.at = 8, map[string]int64{}
	a.raw(jsonKey("x", "x_total", nil), 1)
	sameValues(t, m.samples(), map[string]float64{hits: 30, `{__name__="x_total"}`: 1})
	a.raw(hitsKey(), 10)
	sameValues(t, m.samples(), map[string]float64{hits: 30, `{__name__="x_total"}`: 1})
}

func TestACopyThatIsEmptyWhenItIsSeenFirstIsCountedOnce(t *testing.T) {
	dir := t.TempDir()
	a, b := newWorker(t, dir, "counter_1.db"), newWorker(t, dir, "counter_2.db")
	a.set(hitsKey(), 10)
	b.set(hitsKey(), 20)
	m := watch(t, Source{Path: dir})
	m.samples()
	p := a.f.Name()
	rename(t, p, p+".bak")
	content, err := os.ReadFile(p + ".bak")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	sameValues(t, m.samples(), map[string]float64{hits: 30})
	if err := os.WriteFile(p, content, 0o600); err != nil {
		t.Fatal(err)
	}
	sameValues(t, m.samples(), map[string]float64{hits: 30})
}

func TestACopyThatNoMergeHasSeenOutlivesTheExporterOnce(t *testing.T) {
	dir, state := t.TempDir(), t.TempDir()
	a, b := newWorker(t, dir, "counter_1.db"), newWorker(t, dir, "counter_2.db")
	a.set(hitsKey(), 10)
	b.set(hitsKey(), 20)
	m := New(Options{StateDir: state})
	m.SetSources([]Source{{Path: dir}})
	sameValues(t, watched{t, m}.samples(), map[string]float64{hits: 30})
	replaceByCopy(t, a.f.Name())
	m.Sweep()
	m.Close()
	m = New(Options{StateDir: state})
	defer m.Close()
	m.SetSources([]Source{{Path: dir}})
	sameValues(t, watched{t, m}.samples(), map[string]float64{hits: 30})
}

func TestMoreFilesAreReplacedByCopiesThanAreRemembered(t *testing.T) {
	dir := t.TempDir()
	newWorker(t, dir, "counter_0.db").set(hitsKey(), 1)
	var ws []*worker
	for i := range remembered + 44 {
		w := newWorker(t, dir, fmt.Sprintf("counter_%d.db", i+1))
		w.set(hitsKey(), 1)
		ws = append(ws, w)
	}
	m := watch(t, Source{Path: dir})
	sameValues(t, m.samples(), map[string]float64{hits: 301})
	for _, w := range ws {
		replaceByCopy(t, w.f.Name())
	}
	sameValues(t, m.samples(), map[string]float64{hits: 301})
}

// noFiles is a file system without descriptors for files.
type noFiles struct{ filesystem }

func (s noFiles) openDir(path string) (directory, error) {
	d, err := s.filesystem.openDir(path)
	return noFilesDir{d}, err
}

type noFilesDir struct{ directory }

func (noFilesDir) open(string) (handle, fileID, error) { return nil, fileID{}, syscall.EMFILE }

// shutPath is a file system with a directory that cannot be opened.
type shutPath struct {
	filesystem
	path string
}

func (s shutPath) openDir(path string) (directory, error) {
	if path == s.path {
		return nil, syscall.EACCES
	}
	return s.filesystem.openDir(path)
}

// onRead is a file system that changes what is read.
type onRead struct {
	filesystem
	f func(b []byte, off int64)
}
type onReadDir struct {
	directory
	f func(b []byte, off int64)
}
type onReadHandle struct {
	handle
	f func(b []byte, off int64)
}

func (o onRead) openDir(path string) (directory, error) {
	d, err := o.filesystem.openDir(path)
	return onReadDir{d, o.f}, err
}
func (o onReadDir) open(name string) (handle, fileID, error) {
	h, id, err := o.directory.open(name)
	return onReadHandle{h, o.f}, id, err
}
func (o onReadHandle) ReadAt(b []byte, off int64) (int, error) {
	n, err := o.handle.ReadAt(b, off)
	o.f(b[:n], off)
	return n, err
}

func TestAnEntryThatFallsBeforeAnyPlanHadItIsNoFall(t *testing.T) {
	dir, other := t.TempDir(), t.TempDir()
	a := newWorker(t, dir, "counter_1.db")
	a.set(hitsKey(), 10)
	newWorker(t, other, "counter_1.db").set(hitsKey(), 5)
	m := watch(t, Source{Path: dir})
	m.samples()
	m.SetSources([]Source{{Path: dir}, {Path: other, Labels: map[string]string{"x": "y"}}})
	m.fs = noFiles{osFS{}}
	k := jsonKey("new", "new_total", nil)
	a.set(k, 7)
	if _, err := m.Merge(t.Context()); err == nil {
		t.Fatal("no error")
	}
	a.set(k, 1)
	m.fs = osFS{}
	got := m.samples()
	if got[hits] != 10 || got[`{__name__="new_total"}`] != 1 {
		t.Errorf("samples %v", got)
	}
}

func TestTheStateKnowsFilesThatASweepSawFirst(t *testing.T) {
	dir, state := t.TempDir(), t.TempDir()
	a, b := newWorker(t, dir, "counter_1.db"), newWorker(t, dir, "counter_2.db")
	a.set(hitsKey(), 10)
	b.set(hitsKey(), 20)
	m := New(Options{StateDir: state})
	m.SetSources([]Source{{Path: dir}})
	sameValues(t, watched{t, m}.samples(), map[string]float64{hits: 30})
	a.remove()
	newWorker(t, dir, "counter_3.db").set(hitsKey(), 1)
	m.Sweep()
	b.remove()
	newWorker(t, dir, "counter_4.db").set(hitsKey(), 1)
	m.Sweep()
	for range 3 {
		sameValues(t, watched{t, m}.samples(), map[string]float64{hits: 32})
		m.Sweep()
	}
	m.Close()
	m = New(Options{StateDir: state})
	defer m.Close()
	m.SetSources([]Source{{Path: dir}})
	sameValues(t, watched{t, m}.samples(), map[string]float64{hits: 32})
}

// coarse is a file system whose time stamps are whole seconds.
type coarse struct{ filesystem }
type coarseDir struct{ directory }

func (c coarse) openDir(p string) (directory, error) {
	d, err := c.filesystem.openDir(p)
	return coarseDir{d}, err
}
func (d coarseDir) stat() (dirStat, error) {
	st, err := d.directory.stat()
	st.changed = st.changed.Truncate(time.Second)
	return st, err
}

func TestAFileIsFoundWhereTimeStampsAreWholeSeconds(t *testing.T) {
	dir := t.TempDir()
	newWorker(t, dir, "counter_1.db").set(hitsKey(), 1)
	m := watch(t, Source{Path: dir})
	m.fs = coarse{osFS{}}
	sameValues(t, m.samples(), map[string]float64{hits: 1})
	newWorker(t, dir, "counter_2.db").set(hitsKey(), 5)
	s := m.sources[0]
	s.listed = s.at.changed.Add(time.Second) // the listing came late in that second
	s.at.changed = s.at.changed.Truncate(time.Second)
	sameValues(t, m.samples(), map[string]float64{hits: 6})
}
