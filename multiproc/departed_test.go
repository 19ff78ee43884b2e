package multiproc

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/prefork-exporter/prefork_exporter/multiproc/fixture"
)

func rename(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

// replaceByCopy gives path's name to a new file with the same bytes.
func replaceByCopy(t *testing.T, path string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path+".tmp", b, 0o600); err != nil {
		t.Fatal(err)
	}
	rename(t, path+".tmp", path)
}

func TestAFileThatComesBackIsCountedOnce(t *testing.T) {
	for name, tc := range map[string]struct {
		then func(t *testing.T, m watched, path, elsewhere string, a *worker)
		want float64
	}{
		"moved away and back": {func(t *testing.T, m watched, path, _ string, _ *worker) {
			rename(t, path, path+".away")
			m.samples()
			m.Sweep()
			rename(t, path+".away", path)
		}, 30},
		"moved away and back under another name, having counted on": {func(t *testing.T, m watched, path, _ string, a *worker) {
			rename(t, path, path+".away")
			m.samples()
			a.set(hitsKey(), 12)
			rename(t, path+".away", filepath.Join(filepath.Dir(path), "counter_7.db"))
		}, 32},
		"replaced by a copy of itself": {func(t *testing.T, _ watched, path, _ string, _ *worker) {
			replaceByCopy(t, path)
		}, 30},
		"replaced by a copy again and again": {func(t *testing.T, m watched, path, _ string, _ *worker) {
			for range 5 {
				replaceByCopy(t, path)
				m.samples()
			}
		}, 30},
		"renamed while it was not open": {func(t *testing.T, m watched, path, _ string, _ *worker) {
			m.release(m.sources[0].files[filepath.Base(path)])
			m.keepOpen = 0
			rename(t, path, filepath.Join(filepath.Dir(path), "counter_7.db"))
		}, 30},
		"moved to another directory of the same application": {func(t *testing.T, _ watched, path, elsewhere string, _ *worker) {
			rename(t, path, filepath.Join(elsewhere, "counter_1.db"))
		}, 30},
		"but an earlier life of it as well": {func(t *testing.T, m watched, path, _ string, a *worker) {
			a.set(hitsKey(), 4) // began anew: 10 stay
			m.samples()
			rename(t, path, path+".away")
			m.samples()
			rename(t, path+".away", path)
		}, 34},
		"but another process that takes the name adds to it": {func(t *testing.T, m watched, path, _ string, a *worker) {
			a.remove()
			m.samples()
			newWorker(t, filepath.Dir(path), filepath.Base(path)).set(hitsKey(), 9)
		}, 39},
	} {
		t.Run(name, func(t *testing.T) {
			dir, elsewhere := t.TempDir(), t.TempDir()
			a, b, c := newWorker(t, dir, "counter_1.db"), newWorker(t, dir, "counter_2.db"), newWorker(t, elsewhere, "counter_3.db")
			a.set(hitsKey(), 10)
			b.set(hitsKey(), 15)
			c.set(hitsKey(), 5)
			m := watch(t, Source{Path: dir}, Source{Path: elsewhere})
			sameValues(t, m.samples(), map[string]float64{hits: 30})
			tc.then(t, m, a.f.Name(), elsewhere, a)
			for range 3 {
				sameValues(t, m.samples(), map[string]float64{hits: tc.want})
				m.Sweep()
			}
		})
	}
}

func TestMoreFilesLeaveThanAreRemembered(t *testing.T) {
	dir := t.TempDir()
	newWorker(t, dir, "counter_0.db").set(hitsKey(), 1)
	m := watch(t, Source{Path: dir})
	for i := range 2*remembered + 3 {
		w := newWorker(t, dir, fmt.Sprintf("counter_%d.db", i+1))
		w.set(hitsKey(), 1)
		m.samples()
		w.remove()
		sameValues(t, m.samples(), map[string]float64{hits: float64(i + 2)})
	}
	if n := len(m.sources[0].departed); n != remembered {
		t.Errorf("%d files are remembered, want %d", n, remembered)
	}
}

func TestADirectoryByTwoPathsIsMergedOnce(t *testing.T) {
	parent := t.TempDir()
	home, other, link := filepath.Join(parent, "home"), filepath.Join(parent, "other"), filepath.Join(parent, "link")
	for _, dir := range []string{home, other} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	point := func(to string) {
		t.Helper()
		if err := os.Symlink(to, link+".new"); err != nil {
			t.Fatal(err)
		}
		rename(t, link+".new", link)
	}
	point(other)
	newWorker(t, home, "counter_1.db").set(hitsKey(), 10)
	newWorker(t, other, "counter_1.db").set(hitsKey(), 5)
	m := watch(t, Source{Path: link}, Source{Path: home})
	sameValues(t, m.samples(), map[string]float64{hits: 15})
	if !m.Stats().Readable {
		t.Error("two directories, and one cannot be listed")
	}
	for _, step := range []struct {
		to       string
		readable bool
	}{{home, false}, {home, false}, {other, true}} {
		point(step.to)
		sameValues(t, m.samples(), map[string]float64{hits: 15}) // what the other had counted stays
		if got := m.Stats().Readable; got != step.readable {
			t.Errorf("the link to %s: readable %v, want %v", filepath.Base(step.to), got, step.readable)
		}
	}
}

func TestHardLinksThatAreRenamedTogetherCountOn(t *testing.T) {
	dir := t.TempDir()
	a, b := newWorker(t, dir, "counter_1.db"), newWorker(t, dir, "counter_2.db")
	a.set(hitsKey(), 10)
	b.set(hitsKey(), 5)
	in := func(name string) string { return filepath.Join(dir, name) }
	if err := os.Link(in("counter_1.db"), in("counter_3.db")); err != nil {
		t.Fatal(err)
	}
	m := watch(t, Source{Path: dir})
	sameValues(t, m.samples(), map[string]float64{hits: 25})
	rename(t, in("counter_1.db"), in("counter_4.db"))
	rename(t, in("counter_3.db"), in("counter_5.db"))
	for range 2 {
		sameValues(t, m.samples(), map[string]float64{hits: 25})
		m.Sweep()
	}
}

func TestWhatIsNoNumberGoesWithItsFile(t *testing.T) {
	dir := t.TempDir()
	a, b := newWorker(t, dir, "counter_1.db"), newWorker(t, dir, "counter_2.db")
	a.set(hitsKey(), math.NaN())
	b.set(hitsKey(), 5)
	m := watch(t, Source{Path: dir})
	if v := m.samples()[hits]; !math.IsNaN(v) {
		t.Errorf("a sum with NaN is %v", v)
	}
	a.remove()
	for range 2 {
		sameValues(t, m.samples(), map[string]float64{hits: 5})
	}
}

func TestTheLeastOfFilesThatLeftIsNotZero(t *testing.T) {
	dir := fixture.Unpack(t, "client_ruby-4.2.5/basic/db.tar.gz")
	if sub := filepath.Join(dir, "db"); exists(sub) {
		dir = sub
	}
	paths, err := filepath.Glob(filepath.Join(dir, "metric_g_max___*.bin"))
	if err != nil || len(paths) < 2 {
		t.Fatalf("files %v, %v; want some", paths, err)
	}
	m := watch(t, Source{Path: dir, Direct: map[string]DirectMetric{"g_max": {Type: "summary", Aggregation: "min"}}})
	before := m.samples()
	for _, path := range paths {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		sameValues(t, m.samples(), before)
	}
}
