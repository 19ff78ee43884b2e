package multiproc

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// rooted returns what opens a directory as a root.
func rooted(dir string) func() (*os.File, error) {
	return func() (*os.File, error) { return os.Open(dir) }
}

func TestADirectoryBelowAnotherRoot(t *testing.T) {
	none := map[string]float64{}
	for name, tc := range map[string]struct {
		path string
		make func(root, outside string) error // beside root/metrics, which has a file
		want map[string]float64
	}{
		"by its path":               {"/metrics", nil, map[string]float64{hits: 1}},
		"by a path that leads up":   {"/../../../metrics", nil, map[string]float64{hits: 1}},
		"by a path without a slash": {"metrics", nil, map[string]float64{hits: 1}},
		"that is not there":         {"/other", nil, none},
		"that is a file":            {"/metrics/counter_1.db", nil, none},
		"behind a link that is relative": {
			"/link", func(root, _ string) error { return os.Symlink("metrics", filepath.Join(root, "link")) }, map[string]float64{hits: 1},
		},
		"behind a link that is absolute, which begins at that root": {
			"/link", func(root, _ string) error { return os.Symlink("/metrics", filepath.Join(root, "link")) }, map[string]float64{hits: 1},
		},
		"behind a link that leads out, which does not": {
			"/a/link", func(root, outside string) error {
				up, err := filepath.Rel(filepath.Join(root, "a"), outside)
				return errors.Join(err, os.Mkdir(filepath.Join(root, "a"), 0o755), os.Symlink(up, filepath.Join(root, "a", "link")))
			}, none,
		},
		"behind a link to what is outside": {
			"/link", func(root, outside string) error { return os.Symlink(outside, filepath.Join(root, "link")) }, none,
		},
	} {
		t.Run(name, func(t *testing.T) {
			root, outside := t.TempDir(), t.TempDir()
			if err := os.Mkdir(filepath.Join(root, "metrics"), 0o755); err != nil {
				t.Fatal(err)
			}
			newWorker(t, filepath.Join(root, "metrics"), "counter_1.db").set(hitsKey(), 1)
			newWorker(t, outside, "counter_1.db").set(hitsKey(), 100)
			if tc.make != nil {
				if err := tc.make(root, outside); err != nil {
					t.Fatal(err)
				}
			}
			m := watch(t, Source{Path: tc.path, Root: rooted(root)})
			sameValues(t, m.samples(), tc.want)
			if got := m.Stats().Readable; got != (len(tc.want) > 0) {
				t.Errorf("readable = %t with %v", got, tc.want)
			}
		})
	}
}

func TestWhatProcHasOfProcessesIsNotFollowedBelowAnotherRoot(t *testing.T) {
	dir := t.TempDir()
	newWorker(t, dir, "counter_1.db").set(hitsKey(), 1)
	if err := os.Symlink(fmt.Sprintf("/proc/%d/root%s", os.Getpid(), dir), filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	m := watch(t, Source{Path: filepath.Join(dir, "link"), Root: rooted("/")})
	sameValues(t, m.samples(), map[string]float64{})
}

func TestAProcessThatComesBackGoesOnWithWhatItsFilesHadCounted(t *testing.T) {
	for name, tc := range map[string]struct {
		meanwhile func(m watched)
		state     bool // the exporter begins anew, too
	}{
		"with another root at once":        {func(watched) {}, false},
		"when there was no root meanwhile": {func(m watched) { m.SetSources([]Source{{Path: "/metrics", Root: gone}}) }, false},
		"after an exporter that ended":     {func(watched) {}, true},
	} {
		t.Run(name, func(t *testing.T) {
			root, stateDir := t.TempDir(), t.TempDir()
			dir := filepath.Join(root, "metrics")
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			a, b := newWorker(t, dir, "counter_1.db"), newWorker(t, dir, "counter_2.db")
			a.set(hitsKey(), 10)
			b.set(hitsKey(), 20)
			m := watched{t, New(Options{StateDir: stateDir})}
			ended := false
			m.SetSources([]Source{{Path: "/metrics", Root: func() (*os.File, error) {
				if ended {
					return gone()
				}
				return os.Open(root)
			}}})
			sameValues(t, m.samples(), map[string]float64{hits: 30})
			a.remove()
			sameValues(t, m.samples(), map[string]float64{hits: 30})
			ended = true
			tc.meanwhile(m)
			sameValues(t, m.samples(), map[string]float64{hits: 30})
			if tc.state {
				m.Close()
				m = watched{t, New(Options{StateDir: stateDir})}
			}
			defer m.Close()
			m.SetSources([]Source{{Path: "/metrics", Root: rooted(root + "/.")}})
			b.set(hitsKey(), 21)
			sameValues(t, m.samples(), map[string]float64{hits: 31})
			if !m.Stats().Readable {
				t.Error("not readable")
			}
		})
	}
}

// gone is the root of a process that has ended.
func gone() (*os.File, error) { return nil, fmt.Errorf("ended: %w", fs.ErrNotExist) }

func TestWithoutARootNothingIsKnown(t *testing.T) {
	m := watch(t, Source{Path: "/metrics", Root: gone})
	sameValues(t, m.samples(), map[string]float64{})
	if st := m.Stats(); st.Readable || st.Errors[ReasonList] == 0 {
		t.Errorf("stats = %+v, want a directory that cannot be listed", st)
	}
}

func TestRootsThatAreAnotherSource(t *testing.T) {
	s := newSource(Source{Path: "/a", Root: gone})
	for name, tc := range map[string]struct {
		o    Source
		want bool
	}{
		"another root":  {Source{Path: "/a", Root: rooted("/")}, true},
		"our own root":  {Source{Path: "/a"}, false},
		"another path":  {Source{Path: "/b", Root: gone}, false},
		"another label": {Source{Path: "/a", Root: gone, Labels: map[string]string{"x": "y"}}, false},
	} {
		if got := s.same(tc.o); got != tc.want {
			t.Errorf("%s: the same: %t, want %t", name, got, tc.want)
		}
	}
	if names := []string{Source{Path: "/a"}.canonical(), s.canonical()}; len(slices.Compact(names)) != 2 {
		t.Errorf("both have their state in %s", names[0])
	}
}
