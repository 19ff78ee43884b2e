package multiproc

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// The invariant: a merged counter may rise, stay or begin anew as a whole; it
// never falls in part.

const hits = `{__name__="hits_total"}`

func hitsKey() string { return jsonKey("hits", "hits_total", nil) }

func TestWhatAFileHasCountedStays(t *testing.T) {
	for name, tc := range map[string]struct {
		then func(t *testing.T, dir string, a, b *worker)
		want map[string]float64
	}{
		"when the file is deleted": {
			func(_ *testing.T, _ string, a, _ *worker) { a.remove() },
			map[string]float64{hits: 30},
		},
		"and what came between the last merge and the deletion": {
			func(_ *testing.T, _ string, a, _ *worker) { a.set(hitsKey(), 15); a.remove() },
			map[string]float64{hits: 35},
		},
		"when the process begins at zero again": {
			func(_ *testing.T, _ string, a, _ *worker) { a.set(hitsKey(), 1) },
			map[string]float64{hits: 31},
		},
		"when another process takes the name": {
			func(t *testing.T, dir string, a, _ *worker) {
				a.remove()
				newWorker(t, dir, "counter_1.db").set(hitsKey(), 5)
			},
			map[string]float64{hits: 35},
		},
		"when the file is written anew in place": {
			func(_ *testing.T, _ string, a, _ *worker) {
				a.used, a.at = 8, map[string]int64{}
				a.raw(jsonKey("other", "other_total", nil), 3)
			},
			map[string]float64{hits: 30, `{__name__="other_total"}`: 3},
		},
		"when the file is written anew in place, and begins lower": {
			func(_ *testing.T, _ string, a, _ *worker) {
				a.used, a.at = 8, map[string]int64{}
				a.raw(hitsKey(), 3)
				a.raw(jsonKey("longer_name", "longer_name_total", nil), 1)
			},
			map[string]float64{hits: 33, `{__name__="longer_name_total"}`: 1},
		},
		"when the file is cut off": {
			func(t *testing.T, _ string, a, _ *worker) {
				if err := a.f.Truncate(20); err != nil {
					t.Fatal(err)
				}
			},
			map[string]float64{hits: 30},
		},
		"when the file is emptied": {
			func(t *testing.T, _ string, a, _ *worker) {
				if err := a.f.Truncate(0); err != nil {
					t.Fatal(err)
				}
			},
			map[string]float64{hits: 30},
		},
		"once, when the file gets another name": {
			func(t *testing.T, dir string, a, _ *worker) {
				if err := os.Rename(a.f.Name(), filepath.Join(dir, "counter_9.db")); err != nil {
					t.Fatal(err)
				}
			},
			map[string]float64{hits: 30},
		},
		"once, when the application moves it to an archive": {
			func(t *testing.T, dir string, a, _ *worker) {
				newWorker(t, dir, "counter_archive.db").set(hitsKey(), 10)
				a.remove()
			},
			map[string]float64{hits: 30},
		},
		"but not when all files are replaced: the application began anew": {
			func(t *testing.T, dir string, a, b *worker) {
				a.remove()
				b.remove()
				newWorker(t, dir, "counter_3.db").set(hitsKey(), 2)
			},
			map[string]float64{hits: 2},
		},
		"but not when the directory is replaced": {
			func(t *testing.T, dir string, _, _ *worker) {
				if err := os.RemoveAll(dir); err != nil {
					t.Fatal(err)
				}
				if err := os.Mkdir(dir, 0o755); err != nil {
					t.Fatal(err)
				}
				newWorker(t, dir, "counter_1.db").set(hitsKey(), 4)
			},
			map[string]float64{hits: 4},
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "metrics")
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			a, b := newWorker(t, dir, "counter_1.db"), newWorker(t, dir, "counter_2.db")
			a.set(hitsKey(), 10)
			b.set(hitsKey(), 20)
			m := watch(t, Source{Path: dir})
			sameValues(t, m.samples(), map[string]float64{hits: 30})
			tc.then(t, dir, a, b)
			for range 3 {
				sameValues(t, m.samples(), tc.want)
			}
		})
	}
}

func TestAFileThatIsWrittenAnewAndGoesOnIsNotCountedTwice(t *testing.T) {
	dir := t.TempDir()
	a, b := newWorker(t, dir, "counter_1.db"), newWorker(t, dir, "counter_2.db")
	a.set(hitsKey(), 10)
	b.set(hitsKey(), 20)
	m := watch(t, Source{Path: dir})
	m.samples()
	for round := range 5 { // two processes that share a file overwrite each other
		a.used, a.at = 8, map[string]int64{}
		a.raw(jsonKey("x", "x_total", nil), 1)
		a.set(hitsKey(), 10+float64(round))
		sameValues(t, m.samples(), map[string]float64{hits: 30 + float64(round), `{__name__="x_total"}`: 1})
		a.used, a.at = 8, map[string]int64{}
		a.set(hitsKey(), 10+float64(round))
		sameValues(t, m.samples(), map[string]float64{hits: 30 + float64(round), `{__name__="x_total"}`: 1})
	}
}

func TestGaugesGoWithTheirFile(t *testing.T) {
	dir := t.TempDir()
	newWorker(t, dir, "counter_1.db").set(hitsKey(), 1)
	var gauges []*worker
	for _, mode := range []string{"all", "liveall", "sum", "max"} {
		g := newWorker(t, dir, "gauge_"+mode+"_1.db")
		g.set(jsonKey("g_"+mode, "g_"+mode, nil), 7)
		gauges = append(gauges, g)
	}
	m := watch(t, Source{Path: dir})
	if got := m.samples(); len(got) != 5 {
		t.Fatalf("before: %v", got)
	}
	for _, g := range gauges {
		g.remove()
	}
	sameValues(t, m.samples(), map[string]float64{hits: 1})
}

func TestAFamilyThatGoesAndComesAgainIsThere(t *testing.T) {
	dir := t.TempDir()
	newWorker(t, dir, "counter_1.db").set(hitsKey(), 1)
	m := watch(t, Source{Path: dir})
	for i := range 40 { // collections come and go meanwhile
		g := newWorker(t, dir, fmt.Sprintf("gauge_livesum_%d.db", i))
		g.set(jsonKey("busy", "busy", nil), 5)
		sameValues(t, m.samples(), map[string]float64{hits: 1, `{__name__="busy"}`: 5})
		g.remove()
		sameValues(t, m.samples(), map[string]float64{hits: 1})
	}
}

func TestSweepLetsGoOfDeletedFiles(t *testing.T) {
	dir := t.TempDir()
	a, b := newWorker(t, dir, "counter_1.db"), newWorker(t, dir, "counter_2.db")
	a.set(hitsKey(), 10)
	b.set(hitsKey(), 20)
	m := watch(t, Source{Path: dir})
	m.samples()
	before := m.open
	a.set(hitsKey(), 12)
	a.remove()
	m.Sweep()
	if m.open != before-1 {
		t.Errorf("%d files open after the sweep, want %d", m.open, before-1)
	}
	sameValues(t, m.samples(), map[string]float64{hits: 32})
}

// flaky is a file system that fails.
type flaky struct {
	filesystem
	fails func() error
}

func (f flaky) openDir(path string) (directory, error) {
	if err := f.fails(); err != nil {
		return nil, err
	}
	d, err := f.filesystem.openDir(path)
	return flakyDir{d, f.fails}, err
}

type flakyDir struct {
	directory
	fails func() error
}

func (d flakyDir) list(visit func(name []byte, inode uint64, regular bool)) error {
	return d.directory.list(func(name []byte, inode uint64, regular bool) { visit(name, inode, regular) })
}

func (d flakyDir) stat() (dirStat, error) {
	if err := d.fails(); err != nil {
		return dirStat{}, err
	}
	return d.directory.stat()
}

func (d flakyDir) open(name string) (handle, fileID, error) {
	if err := d.fails(); err != nil {
		return nil, fileID{}, err
	}
	h, id, err := d.directory.open(name)
	if err != nil {
		return nil, fileID{}, err
	}
	return flakyHandle{h, d.fails}, id, nil
}

type flakyHandle struct {
	handle
	fails func() error
}

func (h flakyHandle) ReadAt(b []byte, off int64) (int, error) {
	if err := h.fails(); err != nil {
		return 0, err
	}
	return h.handle.ReadAt(b, off)
}

// lottery fails one call in n, with an error drawn at random.
func lottery(r *rand.Rand, n int) func() error {
	errs := []error{syscall.EMFILE, syscall.EACCES, syscall.EIO, syscall.ENFILE, syscall.EPERM, syscall.ENOMEM}
	return func() error {
		if r.IntN(n) > 0 {
			return nil
		}
		return errs[r.IntN(len(errs))]
	}
}

// rises says whether a series may never fall.
func rises(series string) bool {
	return strings.Contains(series, "_total") || strings.Contains(series, "_bucket") || strings.Contains(series, "_count")
}

// TestAttackNoSeriesFallsThoughOpensAndReadsFailAtRandom takes minutes with
// PREFORK_ATTACK=1, and other random numbers each time.
func TestAttackNoSeriesFallsThoughOpensAndReadsFailAtRandom(t *testing.T) {
	scrapes, seed := 10_000, uint64(1)
	if os.Getenv("PREFORK_ATTACK") == "1" {
		scrapes, seed = 1_000_000, rand.Uint64()
	}
	for _, keepOpen := range []int{1000, 3, 0} {
		t.Run(fmt.Sprintf("%d files kept open", keepOpen), func(t *testing.T) {
			t.Logf("seed %d", seed)
			scrapeThroughFailures(t, keepOpen, scrapes, seed)
		})
	}
}

func scrapeThroughFailures(t *testing.T, keepOpen, scrapes int, seed uint64) {
	r := rand.New(rand.NewPCG(seed, uint64(keepOpen)))
	dir := t.TempDir()
	m := New(Options{})
	defer m.Close()
	m.readers = m.readers[:1] // the failures come in one order
	m.keepOpen, m.room = keepOpen, keepOpen
	fails := lottery(r, 8)
	m.fs = flaky{osFS{}, func() error { return fails() }}
	m.SetSources([]Source{{Path: dir}})
	fleet := newFleet(t, r, dir)
	last := map[string]float64{}
	for i := range scrapes {
		fleet.work()
		s, err := m.Merge(t.Context())
		if err != nil {
			if m.whole {
				t.Fatalf("scrape %d: %v", i, err)
			}
			continue
		}
		got := flat(t, s)
		for series, before := range last {
			if now, ok := got[series]; rises(series) && (!ok || now < before) {
				t.Fatalf("scrape %d: %s fell from %v to %v (there: %v)", i, series, before, now, ok)
			}
		}
		last = got
	}
	fails = func() error { return nil }
	for range 2 {
		if _, err := m.Merge(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	s, err := m.Merge(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got := flat(t, s)
	for series, want := range fleet.truth {
		if got[series] != want {
			t.Errorf("at last %s = %v, want %v", series, got[series], want)
		}
	}
}

// fleet is workers that count, grow, begin anew and come.
type fleet struct {
	t       *testing.T
	r       *rand.Rand
	dir     string
	workers []*worker
	values  []map[string]float64
	truth   map[string]float64
	born    int
}

func newFleet(t *testing.T, r *rand.Rand, dir string) *fleet {
	f := &fleet{t: t, r: r, dir: dir, truth: map[string]float64{}}
	for range 4 {
		f.birth()
	}
	return f
}

func (f *fleet) birth() {
	f.born++
	f.workers = append(f.workers, newWorker(f.t, f.dir, fmt.Sprintf("counter_%d.db", f.born)))
	f.values = append(f.values, map[string]float64{})
	f.count(len(f.workers)-1, 0)
}

// count adds one to the counter n of worker i.
func (f *fleet) count(i, n int) {
	label := fmt.Sprint(n)
	k := jsonKey("work", "work_total", map[string]string{"n": label})
	f.values[i][k]++
	f.workers[i].set(k, f.values[i][k])
	f.truth[fmt.Sprintf(`{__name__="work_total", n=%q}`, label)]++
}

func (f *fleet) work() {
	for range 1 + f.r.IntN(3) {
		f.count(f.r.IntN(len(f.workers)), f.r.IntN(1+min(f.born, 20)))
	}
	if f.r.IntN(500) == 0 && len(f.workers) < 24 {
		f.birth()
	}
}

func TestAZeroOfTheOldestClientsIsNoRestart(t *testing.T) {
	dir := t.TempDir()
	a := newWorker(t, dir, "counter_1.db")
	a.set(hitsKey(), 10)
	m := New(Options{})
	defer m.Close()
	zero := false
	m.fs = blinking{osFS{}, &zero, a.at[hitsKey()]}
	m.SetSources([]Source{{Path: dir}})
	w := watched{t, m}
	sameValues(t, w.samples(), map[string]float64{hits: 10})
	for i := range 50 {
		a.set(hitsKey(), 11+float64(i))
		zero = true
		sameValues(t, w.samples(), map[string]float64{hits: 11 + float64(i)})
	}
}

// blinking is a file system on which one value reads 0 once when zero is set.
type blinking struct {
	filesystem
	zero *bool
	at   int64
}

func (f blinking) openDir(path string) (directory, error) {
	d, err := f.filesystem.openDir(path)
	return blinkingDir{d, f}, err
}

type blinkingDir struct {
	directory
	fs blinking
}

func (d blinkingDir) open(name string) (handle, fileID, error) {
	h, id, err := d.directory.open(name)
	return blinkingHandle{h, d.fs}, id, err
}

type blinkingHandle struct {
	handle
	fs blinking
}

func (h blinkingHandle) ReadAt(b []byte, off int64) (int, error) {
	n, err := h.handle.ReadAt(b, off)
	if at := h.fs.at - off; *h.fs.zero && at >= 0 && at+8 <= int64(n) {
		clear(b[at : at+8])
		*h.fs.zero = false
	}
	return n, err
}

func TestSumsDoNotFallByTheOrderOfTheirTerms(t *testing.T) {
	dir := t.TempDir()
	r := rand.New(rand.NewPCG(7, 7))
	workers := map[int]*worker{}
	for i := range 40 {
		workers[i] = newWorker(t, dir, fmt.Sprintf("counter_%d.db", 100+i))
		workers[i].set(hitsKey(), r.Float64()*1000)
	}
	m := watch(t, Source{Path: dir})
	last := m.samples()[hits]
	for i := range 39 { // what is deleted is added first from then on
		workers[i].remove()
		now := m.samples()[hits]
		if now < last {
			t.Fatalf("after %d deletions: %v, before it %v", i+1, now, last)
		}
		last = now
	}
}

func TestMergeIsTheSameWhateverCameFirst(t *testing.T) {
	dir := t.TempDir()
	grown := watch(t, Source{Path: dir})
	r := rand.New(rand.NewPCG(3, 3))
	f := newFleet(t, r, dir)
	for range 300 {
		f.work()
		grown.samples()
	}
	if diff := maps.Equal(grown.samples(), merged(t, Source{Path: dir})); !diff {
		t.Error("a merger that saw the files grow differs from one that sees them first")
	}
}

func TestARenamedFileThatIsSweptAndDeletedHasCounted(t *testing.T) {
	dir := t.TempDir()
	a, b := newWorker(t, dir, "counter_1.db"), newWorker(t, dir, "counter_2.db")
	a.set(hitsKey(), 10)
	b.set(hitsKey(), 20)
	m := watch(t, Source{Path: dir})
	m.samples()
	to := filepath.Join(dir, "counter_9.db")
	if err := os.Rename(a.f.Name(), to); err != nil {
		t.Fatal(err)
	}
	m.Sweep()
	if err := os.Remove(to); err != nil {
		t.Fatal(err)
	}
	m.Sweep()
	sameValues(t, m.samples(), map[string]float64{hits: 30})
}

func TestKeysThatAreExchangedInPlaceKeepTheirCounts(t *testing.T) {
	dir := t.TempDir()
	a := newWorker(t, dir, "counter_1.db")
	ok, bad := jsonKey("r", "r_total", map[string]string{"c": "200"}), jsonKey("r", "r_total", map[string]string{"c": "500"})
	a.raw(ok, 10)
	a.raw(bad, 20)
	m := watch(t, Source{Path: dir})
	m.samples()
	a.used, a.at = 8, map[string]int64{}
	a.raw(bad, 20)
	a.raw(ok, 10)
	sameValues(t, m.samples(), map[string]float64{`{__name__="r_total", c="200"}`: 10, `{__name__="r_total", c="500"}`: 20})
}

func TestAnEarlierLifeStaysWhenTheFileIsWrittenAnew(t *testing.T) {
	dir := t.TempDir()
	a := newWorker(t, dir, "counter_1.db")
	a.set(hitsKey(), 100)
	m := watch(t, Source{Path: dir})
	m.samples()
	for _, v := range []float64{5, 120} { // it began anew, and went on
		a.set(hitsKey(), v)
		sameValues(t, m.samples(), map[string]float64{hits: 100 + v})
	}
	a.used, a.at = 8, map[string]int64{}
	a.raw(jsonKey("new", "new_total", nil), 1)
	a.raw(hitsKey(), 150)
	sameValues(t, m.samples(), map[string]float64{hits: 250, `{__name__="new_total"}`: 1})
}
