package multiproc

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

func TestWhatDeletedFilesHadCountedOutlivesTheExporter(t *testing.T) {
	k := func(le string) string { return jsonKey("h", "h_bucket", map[string]string{"le": le, "p": "/"}) }
	whole := map[string]float64{
		hits:                                     30,
		`{__name__="h_bucket", le="1.0", p="/"}`: 5, `{__name__="h_bucket", le="+Inf", p="/"}`: 7,
		`{__name__="h_sum", p="/"}`: 12.5, `{__name__="h_count", p="/"}`: 7,
	}
	for name, tc := range map[string]struct {
		meanwhile func(t *testing.T, dir, state string, b *worker)
		want      map[string]float64
	}{
		"while a file of then is there": {
			func(*testing.T, string, string, *worker) {}, whole,
		},
		"and a living worker goes on": {
			func(_ *testing.T, _, _ string, b *worker) { b.set(hitsKey(), 21) },
			with31(whole),
		},
		"but not an application that began anew": {
			func(t *testing.T, dir, _ string, b *worker) {
				b.remove()
				newWorker(t, dir, "counter_2.db").set(hitsKey(), 3)
			},
			map[string]float64{hits: 3},
		},
		"but not a state that is broken": {
			func(t *testing.T, _, state string, _ *worker) {
				paths, _ := filepath.Glob(filepath.Join(state, "*.json"))
				if len(paths) != 1 {
					t.Fatalf("state files: %v", paths)
				}
				if err := os.WriteFile(paths[0], []byte("{"), 0o600); err != nil {
					t.Fatal(err)
				}
			},
			map[string]float64{hits: 20},
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir, stateDir := t.TempDir(), filepath.Join(t.TempDir(), "state")
			a, b := newWorker(t, dir, "counter_1.db"), newWorker(t, dir, "counter_2.db")
			a.set(hitsKey(), 10)
			b.set(hitsKey(), 20)
			h := newWorker(t, dir, "histogram_1.db")
			h.set(jsonKey("h", "h_sum", map[string]string{"p": "/"}), 12.5)
			h.set(k("1.0"), 5)
			h.set(k("+Inf"), 2)

			first := New(Options{StateDir: stateDir})
			first.SetSources([]Source{{Path: dir}})
			sameValues(t, watched{t, first}.samples(), whole)
			a.remove()
			h.remove()
			first.Sweep()
			sameValues(t, watched{t, first}.samples(), whole)
			first.Sweep()
			// no Close: the exporter was killed
			tc.meanwhile(t, dir, stateDir, b)
			second := New(Options{StateDir: stateDir})
			defer second.Close()
			second.SetSources([]Source{{Path: dir}})
			for range 2 {
				sameValues(t, watched{t, second}.samples(), tc.want)
			}
			first.Close()
		})
	}
}

func with31(m map[string]float64) map[string]float64 {
	out := map[string]float64{}
	for k, v := range m {
		out[k] = v
	}
	out[hits] = 31
	return out
}

func TestTheStateKeepsEveryBoundAndEveryPath(t *testing.T) {
	dir, stateDir := filepath.Join(t.TempDir(), "\xff"), t.TempDir()
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	a, b := newWorker(t, dir, "histogram_1.db"), newWorker(t, dir, "counter_2.db")
	for _, le := range []string{"-Inf", "1.0", "+Inf"} {
		a.set(jsonKey("h", "h_bucket", map[string]string{"le": le}), 1)
	}
	b.set(hitsKey(), 20)
	want := map[string]float64{
		hits: 20, `{__name__="h_count"}`: 3,
		`{__name__="h_bucket", le="-Inf"}`: 1, `{__name__="h_bucket", le="1.0"}`: 2, `{__name__="h_bucket", le="+Inf"}`: 3,
	}
	first := New(Options{StateDir: stateDir})
	first.SetSources([]Source{{Path: dir}})
	sameValues(t, watched{t, first}.samples(), want)
	a.remove()
	sameValues(t, watched{t, first}.samples(), want)
	first.Close()
	second := New(Options{StateDir: stateDir})
	defer second.Close()
	second.SetSources([]Source{{Path: dir}})
	sameValues(t, watched{t, second}.samples(), want)
}

func TestTheStateKnowsTheFilesThatCameSince(t *testing.T) {
	dir, stateDir := t.TempDir(), t.TempDir()
	a, b := newWorker(t, dir, "counter_1.db"), newWorker(t, dir, "counter_2.db")
	a.set(hitsKey(), 10)
	b.set(hitsKey(), 20)
	first := New(Options{StateDir: stateDir})
	first.SetSources([]Source{{Path: dir}})
	w := watched{t, first}
	w.samples()
	a.remove()
	w.samples()
	newWorker(t, dir, "counter_3.db").set(hitsKey(), 5)
	w.samples()
	b.remove()
	sameValues(t, w.samples(), map[string]float64{hits: 35})
	// no Close: the exporter was killed
	second := New(Options{StateDir: stateDir})
	defer second.Close()
	second.SetSources([]Source{{Path: dir}})
	sameValues(t, watched{t, second}.samples(), map[string]float64{hits: 35})
	first.Close()
}

func TestTheStateIsTheDirectorysWhateverItIsCalled(t *testing.T) {
	dir, link, stateDir := t.TempDir(), filepath.Join(t.TempDir(), "link"), t.TempDir()
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	a, b := newWorker(t, dir, "counter_1.db"), newWorker(t, dir, "counter_2.db")
	a.set(hitsKey(), 10)
	b.set(hitsKey(), 20)
	for i, path := range []string{dir, dir + "/", link, filepath.Join(dir, "..", filepath.Base(dir))} {
		m := New(Options{StateDir: stateDir})
		m.SetSources([]Source{{Path: path}})
		sameValues(t, watched{t, m}.samples(), map[string]float64{hits: 30})
		if i == 0 {
			a.remove()
			m.Sweep()
		}
		m.Close()
	}
}

func TestWithoutAStateDirectoryNoneIsKept(t *testing.T) {
	m := New(Options{})
	defer m.Close()
	if err := m.Stats().State; !errors.Is(err, ErrNoState) {
		t.Errorf("state: %v, want %v", err, ErrNoState)
	}
}

func TestTheStateOutlivesAReload(t *testing.T) {
	dir, other, stateDir := t.TempDir(), t.TempDir(), t.TempDir()
	a, b := newWorker(t, dir, "counter_1.db"), newWorker(t, dir, "counter_2.db")
	a.set(hitsKey(), 10)
	b.set(hitsKey(), 20)
	m := New(Options{StateDir: stateDir})
	defer m.Close()
	w := watched{t, m}
	m.SetSources([]Source{{Path: dir}})
	w.samples()
	a.remove()
	m.Sweep()
	for _, path := range []string{other, dir} {
		m.SetSources([]Source{{Path: path}})
		w.samples()
	}
	sameValues(t, w.samples(), map[string]float64{hits: 30})
}

// shut is a file system whose files cannot be opened.
type shut struct{ filesystem }

func (s shut) openDir(path string) (directory, error) {
	d, err := s.filesystem.openDir(path)
	return shutDir{d}, err
}

type shutDir struct{ directory }

func (shutDir) open(string) (handle, fileID, error) { return nil, fileID{}, syscall.EACCES }

func TestAStateIsGoodThoughTheFileOfThenCannotBeOpenedForNow(t *testing.T) {
	dir, stateDir := t.TempDir(), t.TempDir()
	a, b := newWorker(t, dir, "counter_1.db"), newWorker(t, dir, "counter_2.db")
	a.set(hitsKey(), 10)
	b.set(hitsKey(), 20)
	first := New(Options{StateDir: stateDir})
	first.SetSources([]Source{{Path: dir}})
	watched{t, first}.samples()
	a.remove()
	watched{t, first}.samples()
	first.Close()

	second := New(Options{StateDir: stateDir})
	defer second.Close()
	second.SetSources([]Source{{Path: dir}})
	second.fs = shut{osFS{}}
	sameValues(t, watched{t, second}.samples(), map[string]float64{hits: 10})
	second.fs = osFS{}
	sameValues(t, watched{t, second}.samples(), map[string]float64{hits: 30})
}

func TestAStateDirectoryThatCannotBeWrittenIsSaid(t *testing.T) {
	dir := t.TempDir()
	a, b := newWorker(t, dir, "counter_1.db"), newWorker(t, dir, "counter_2.db")
	a.set(hitsKey(), 10)
	b.set(hitsKey(), 20)
	blocked := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(blocked, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	m := New(Options{StateDir: filepath.Join(blocked, "state")})
	defer m.Close()
	m.SetSources([]Source{{Path: dir}})
	if m.Stats().State == nil {
		t.Error("a state directory that cannot be made, and nothing says so at the start")
	}
	w := watched{t, m}
	w.samples()
	a.remove()
	m.Sweep()
	w.samples()
	m.Sweep()
	if m.Stats().State == nil {
		t.Error("the state was not written, and nothing says so")
	}
	sameValues(t, w.samples(), map[string]float64{hits: 30})
}

func TestNoStateIsWrittenWhereNothingIsGone(t *testing.T) {
	dir, stateDir := t.TempDir(), t.TempDir()
	newWorker(t, dir, "counter_1.db").set(hitsKey(), 10)
	m := New(Options{StateDir: stateDir})
	m.SetSources([]Source{{Path: dir}})
	watched{t, m}.samples()
	m.Sweep()
	m.Close()
	if names, err := os.ReadDir(stateDir); err != nil || len(names) > 0 {
		t.Errorf("state files %v, error %v; want none", names, err)
	}
}

func TestSumsDoNotFallByTheOrderOfTheirTermsOverARestart(t *testing.T) {
	dir, stateDir := t.TempDir(), t.TempDir()
	workers := map[int]*worker{}
	for i := range 40 {
		workers[i] = newWorker(t, dir, fmt.Sprintf("counter_%d.db", 100+i))
		workers[i].set(hitsKey(), 0.1*float64(i*i+1))
	}
	last := 0.0
	for i := range 39 {
		m := New(Options{StateDir: stateDir})
		m.SetSources([]Source{{Path: dir}})
		w := watched{t, m}
		for range 3 {
			now := w.samples()[hits]
			if now < last {
				t.Fatalf("after %d deletions: %v, before it %v", i, now, last)
			}
			last = now
		}
		workers[i].remove()
		m.Sweep()
		last = max(last, w.samples()[hits])
		w.samples()
		m.Close()
	}
}
