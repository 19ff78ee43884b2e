package multiproc

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-exporter/prefork_exporter/multiproc/fixture"
)

// none stands for a file that is used whole.
const none = reasons

func TestCorruptFilesCostTheirOwnPartOnly(t *testing.T) {
	a, b, c := `{__name__="a_total"}`, `{__name__="b_total"}`, `{__name__="c_total"}`
	root := fixture.Unpack(t, "corrupt/cases.tar.gz")
	cases := map[string]struct {
		want   map[string]float64 // beside the good file's sample
		reason Reason
	}{
		"all_zero":            {nil, none},
		"bad_metric_name":     {map[string]float64{a: 1, c: 3}, ReasonName},
		"big_endian":          {nil, ReasonForeign},
		"empty_0_bytes":       {nil, ReasonEmpty},
		"era_a_file":          {map[string]float64{`{__name__="a", x="1"}`: 1}, none},
		"era_b_file":          {map[string]float64{`{__name__="a_total", x="1"}`: 1}, none},
		"gauge_unknown_mode":  {map[string]float64{`{__name__="g", pid="101"}`: 1}, ReasonUnknownMode},
		"hist_le_variants":    {map[string]float64{`{__name__="h_bucket", le="1"}`: 7, `{__name__="h_bucket", le="+Inf"}`: 31, `{__name__="h_count"}`: 31}, none},
		"hist_no_le":          {map[string]float64{`{__name__="h_bucket", x="1"}`: 3, `{__name__="h_sum", x="1"}`: 3}, none},
		"key_bad_json":        {map[string]float64{a: 1, c: 3}, ReasonKey},
		"key_bad_utf8":        {map[string]float64{a: 1, c: 3}, ReasonKey},
		"key_dup":             {map[string]float64{a: 6, c: 3}, none},
		"key_label_nonstring": {map[string]float64{a: 1, `{__name__="b_total", x="1", z="true"}`: 2, c: 3}, none},
		"key_wrong_arity":     {map[string]float64{a: 1, c: 3}, ReasonKey},
		"len_huge":            {map[string]float64{a: 1}, ReasonCorrupt},
		"pad_garbage":         {map[string]float64{a: 1, b: 2}, none},
		"truncated_file":      {map[string]float64{a: 1, b: 2}, ReasonTruncated},
		"unknown_type":        {nil, ReasonUnknownType},
		"used_4_bytes_only":   {nil, none},
		"used_7":              {nil, none},
		"used_8":              {nil, none},
		"used_gt_size":        {map[string]float64{a: 1, b: 2}, ReasonTruncated},
		"used_stale_small":    {map[string]float64{a: 1}, none},
		"wsl_shifted":         {nil, none},
	}
	for name := range wants(t) {
		if _, ok := cases[name]; !ok {
			t.Errorf("case %s of cases.json is not in the table", name)
		}
	}
	for name, tc := range cases {
		for _, db := range []string{"db", "db_ruby"} {
			t.Run(name+" "+db, func(t *testing.T) {
				want := map[string]float64{`{__name__="good_total"}`: 2}
				for series, v := range tc.want {
					want[series] = v
				}
				checkFaults(t, filepath.Join(corruptRoot(root), name, db), want, tc.reason)
			})
		}
	}
}

// corruptRoot returns where the cases are in the unpacked archive.
func corruptRoot(root string) string {
	if exists(filepath.Join(root, "corrupt")) {
		return filepath.Join(root, "corrupt")
	}
	return root
}

// wants returns what cases.json wants of each case.
func wants(t *testing.T) map[string]struct{ Want string } {
	t.Helper()
	var out map[string]struct{ Want string }
	if err := json.Unmarshal(fixture.Read(t, "corrupt/cases.json"), &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// checkFaults merges dir three times: the samples must be as wanted, the reason
// counted each time, alone, and logged once.
func checkFaults(t *testing.T, dir string, want map[string]float64, reason Reason) {
	t.Helper()
	var log bytes.Buffer
	m := New(Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	defer m.Close()
	for _, r := range m.readers {
		r.grace = 0 // the files are not new
	}
	m.SetSources([]Source{{Path: dir}})
	for range 3 {
		s, err := m.Merge(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		sameValues(t, flat(t, s), want)
	}
	for _, r := range Reasons() {
		wantCount := uint64(0)
		if r == reason {
			wantCount = 3
		}
		if got := m.Stats().Errors[r]; got != wantCount {
			t.Errorf("%d errors with reason %s, want %d", got, r, wantCount)
		}
	}
	lines := strings.Count(log.String(), "\n")
	if reason == none && lines != 0 || reason != none && (lines != 1 || !strings.Contains(log.String(), "reason="+reason.String())) {
		t.Errorf("logged %d lines, want one with the reason:\n%s", lines, log.String())
	}
}

func TestWhatIsNoRegularFileIsLeftAlone(t *testing.T) {
	for name, tc := range map[string]struct {
		make   func(path string) error
		reason Reason
	}{
		"a pipe":             {func(p string) error { return syscall.Mkfifo(p, 0o644) }, ReasonNotRegular},
		"a directory":        {func(p string) error { return os.Mkdir(p, 0o755) }, ReasonNotRegular},
		"a link to a secret": {func(p string) error { return os.Symlink("/etc/passwd", p) }, ReasonNotRegular},
		"a link to nowhere":  {func(p string) error { return os.Symlink("/nowhere", p) }, ReasonNotRegular},
		"a link to a good file": {func(p string) error {
			return os.Symlink(filepath.Join(filepath.Dir(p), "counter_2.db"), p)
		}, ReasonNotRegular},
		"a socket": {func(p string) error {
			fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
			if err != nil {
				return err
			}
			defer func() { _ = syscall.Close(fd) }()
			return syscall.Bind(fd, &syscall.SockaddrUnix{Name: p})
		}, ReasonNotRegular},
		"an editor's copy":   {func(p string) error { return os.WriteFile(p+"~", []byte("x"), 0o644) }, none},
		"a hidden file":      {func(p string) error { return os.WriteFile(filepath.Dir(p)+"/.counter_1.db", nil, 0o644) }, none},
		"a foreign database": {func(p string) error { return os.WriteFile(filepath.Dir(p)+"/app.db", []byte("SQLite"), 0o644) }, ReasonUnknownType},
		"text": {func(p string) error {
			return os.WriteFile(p, []byte("# not a metric file, only named like one\n"), 0o644)
		}, ReasonTruncated},
	} {
		t.Run(name, func(t *testing.T) {
			dir, err := os.MkdirTemp("", "m") // a socket's path must be short
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = os.RemoveAll(dir) })
			newWorker(t, dir, "counter_2.db").set(jsonKey("good", "good_total", nil), 2)
			if err := tc.make(filepath.Join(dir, "counter_1.db")); err != nil {
				t.Fatal(err)
			}
			checkFaults(t, dir, map[string]float64{`{__name__="good_total"}`: 2}, tc.reason)
		})
	}
}

func TestAFileThatIsAboutToBeWrittenIsNoError(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "counter_1.db"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	m := watch(t, Source{Path: dir})
	for _, r := range m.readers {
		r.grace = time.Hour
	}
	for i, want := range []uint64{0, 1, 2} {
		m.samples()
		if got := m.Stats().Errors[ReasonEmpty]; got != want {
			t.Errorf("merge %d: %d errors, want %d", i, got, want)
		}
	}
}

func TestLimits(t *testing.T) {
	const good = `{__name__="good_total"}`
	for name, tc := range map[string]struct {
		limits Limits
		bad    func(w *worker)
		keep   int // series of the bad file that stay
		reason Reason
	}{
		"entries of one file":    {Limits{FileSeries: 10}, func(w *worker) { many(w, 50) }, 10, ReasonMaxFileSeries},
		"bytes of one file":      {Limits{FileBytes: 1000}, func(w *worker) { many(w, 50) }, 15, ReasonMaxFileBytes},
		"series of all families": {Limits{Series: 6}, func(w *worker) { many(w, 50) }, 5, ReasonMaxSeries},
		"bytes of labels": {Limits{LabelBytes: 100}, func(w *worker) {
			many(w, 1)
			w.set(jsonKey("bad", "bad_total", map[string]string{"l": strings.Repeat("x", 200)}), 1)
		}, 1, ReasonMaxLabelBytes},
		"a label of megabytes": {Limits{}, func(w *worker) {
			many(w, 1)
			if err := w.f.Truncate(8 << 20); err != nil {
				w.t.Fatal(err)
			}
			w.set(jsonKey("bad", "bad_total", map[string]string{"l": strings.Repeat("x", 5<<20)}), 1)
		}, 1, ReasonMaxLabelBytes},
		"reserved metric names": {Limits{}, func(w *worker) {
			many(w, 1)
			w.set(jsonKey("__bad", "__bad_total", nil), 1)
			w.set(jsonKey("prefork_up", "prefork_up", nil), 1)
		}, 1, ReasonReserved},
		"reserved label names": {Limits{}, func(w *worker) {
			many(w, 1)
			w.set(jsonKey("bad", "bad_total", map[string]string{"__name__": "x"}), 1)
		}, 1, ReasonReserved},
		"a sample that is not its family's": {Limits{}, func(w *worker) {
			many(w, 1)
			w.set(jsonKey("bad", "good_total", nil), 1)
		}, 1, ReasonName},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			newWorker(t, dir, "counter_0.db").set(jsonKey("good", "good_total", nil), 2)
			tc.bad(newWorker(t, dir, "counter_1.db"))
			m := New(Options{Limits: fill(tc.limits), Refuse: func(name string) bool { return strings.HasPrefix(name, "prefork_") }})
			defer m.Close()
			m.SetSources([]Source{{Path: dir}})
			w := watched{t, m}
			for range 2 {
				got := w.samples()
				if got[good] != 2 || len(got) != tc.keep+1 {
					t.Errorf("%d series and good_total %v, want %d and 2", len(got), got[good], tc.keep+1)
				}
			}
			if m.Stats().Errors[tc.reason] == 0 {
				t.Errorf("no error with reason %s", tc.reason)
			}
		})
	}
}

func TestAFileGrowsThoughNothingOfAFamilyCouldBeUsed(t *testing.T) {
	dir := t.TempDir()
	const family, stranger = "g", "s"
	a, b := newWorker(t, dir, "gauge_all_1.db"), newWorker(t, dir, "gauge_all_2.db")
	m := watch(t, Source{Path: dir})
	want := map[string]float64{}
	for i, w := range []*worker{a, b, a, b} {
		w.set(jsonKey(stranger, family+"_other", nil), 1)
		name := fmt.Sprintf("g_%d", i)
		w.set(jsonKey(name, name, nil), 1)
		want[fmt.Sprintf(`{__name__=%q, pid="%d"}`, name, i%2+1)] = 1
		sameValues(t, m.samples(), want)
	}
	newWorker(t, dir, "gauge_all_3.db").set(jsonKey(stranger, family+"_other", nil), 1)
	sameValues(t, m.samples(), want)
}

func TestAHistogramHasNoMoreBucketsThanAnyoneNeeds(t *testing.T) {
	dir := t.TempDir()
	w := newWorker(t, dir, "histogram_1.db")
	if err := w.f.Truncate(1 << 20); err != nil {
		t.Fatal(err)
	}
	for i := range maxBuckets + 500 {
		w.set(jsonKey("h", "h_bucket", map[string]string{"le": fmt.Sprint(i)}), 1)
	}
	m := watch(t, Source{Path: dir})
	if got := len(m.samples()); got != maxBuckets+1 { // and the count
		t.Errorf("%d samples, want %d", got, maxBuckets+1)
	}
	if m.Stats().Errors[ReasonMaxSeries] == 0 {
		t.Error("no error says so")
	}
}

// fill completes limits with the defaults.
func fill(l Limits) Limits {
	d := DefaultLimits()
	for _, p := range []struct{ have, def *int }{
		{&l.Files, &d.Files}, {&l.FileBytes, &d.FileBytes}, {&l.FileSeries, &d.FileSeries}, {&l.Series, &d.Series}, {&l.LabelBytes, &d.LabelBytes},
	} {
		if *p.have == 0 {
			*p.have = *p.def
		}
	}
	return l
}

// many adds n series.
func many(w *worker, n int) {
	for i := range n {
		w.set(jsonKey("many", "many_total", map[string]string{"i": fmt.Sprintf("%03d", i)}), 1)
	}
}

func TestFilesBeyondTheLimitAreLeftOutAndThoseTakenInStay(t *testing.T) {
	dir := t.TempDir()
	m := New(Options{Limits: fill(Limits{Files: 3})})
	defer m.Close()
	m.SetSources([]Source{{Path: dir}})
	w := watched{t, m}
	for i := range 3 {
		newWorker(t, dir, fmt.Sprintf("counter_%d.db", 5+i)).set(hitsKey(), 1)
	}
	sameValues(t, w.samples(), map[string]float64{hits: 3})
	newWorker(t, dir, "counter_1.db").set(hitsKey(), 100) // sorts before the others
	sameValues(t, w.samples(), map[string]float64{hits: 3})
	if m.Stats().Errors[ReasonMaxFiles] != 1 {
		t.Errorf("%d files beyond the limit counted, want 1", m.Stats().Errors[ReasonMaxFiles])
	}
}

func TestASparseFileOfAGigabyteCostsWhatItHolds(t *testing.T) {
	dir := t.TempDir()
	w := newWorker(t, dir, "counter_1.db")
	w.set(hitsKey(), 1)
	if err := w.f.Truncate(1 << 30); err != nil {
		t.Fatal(err)
	}
	hole := newWorker(t, dir, "counter_2.db") // claims to be full
	if err := hole.f.Truncate(1 << 30); err != nil {
		t.Fatal(err)
	}
	hole.set(hitsKey(), 2)
	hole.header(1 << 30)
	m := watch(t, Source{Path: dir})
	sameValues(t, m.samples(), map[string]float64{hits: 3})
	if size := len(m.readers[0].buf); size > maxBuffer {
		t.Errorf("a buffer of %d bytes", size)
	}
}
