package collector

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prefork-exporter/prefork_exporter/multiproc"
)

func TestMultiprocTellsOfItsFiles(t *testing.T) {
	python, ruby := unpack(t, "client_python-0.16.0/basic"), unpack(t, "ruby-prometheus-client-mmap-0.16.2/basic")
	for name, tc := range map[string]struct {
		dirs   []string
		state  string
		golden string
	}{
		"files of two clients":                    {[]string{python, ruby}, t.TempDir(), "multiproc.txt"},
		"a directory that is not there, no state": {[]string{filepath.Join(python, "nowhere"), ruby}, "", "multiproc_missing.txt"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { // where no time passes in a merge
				c := newMultiproc(t, multiproc.Options{StateDir: tc.state}, tc.dirs...)
				set := NewSet(quiet(), map[string]Collector{"multiproc": c}, time.Minute)
				s, err := set.Gather(t.Context(), set.Names())
				if err != nil {
					t.Fatal(err)
				}
				golden(t, tc.golden, textOf(t, s.Families()))
				if s.Merged == nil || len(s.Merged.Families) == 0 {
					t.Error("no merged families")
				}
			})
		})
	}
}

// gate is a log that stops a merge until the test lets it go on: the merger
// logs what is wrong with a file before it returns.
type gate struct {
	slog.Handler
	merges atomic.Int32
	open   chan struct{}
}

func newGate() *gate { return &gate{Handler: slog.DiscardHandler, open: make(chan struct{})} }

func (g *gate) Enabled(context.Context, slog.Level) bool { return true }

func (g *gate) Handle(context.Context, slog.Record) error {
	g.merges.Add(1)
	<-g.open
	return nil
}

// oneGoodOneBad returns a directory of a good file and one that is logged.
func oneGoodOneBad(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	b := metricFile([]string{`["good", "good_total", {}, "m"]`})
	for name, content := range map[string][]byte{"counter_1.db": b, "counter_2.db": {0xe8, 3, 0, 0, 0, 0, 0, 0}} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// merges returns how many merges c has made.
func merges(t *testing.T, c *Multiproc) uint64 {
	t.Helper()
	return c.durations().GetMetric()[0].GetHistogram().GetSampleCount()
}

func TestScrapesAtTheSameTimeShareAMerge(t *testing.T) {
	dir := oneGoodOneBad(t)
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		c := newMultiproc(t, multiproc.Options{Logger: slog.New(g)}, dir)
		outs := []*Output{{}, {}, {}}
		for _, out := range outs {
			go func() {
				if err := c.Update(t.Context(), out); err != nil {
					t.Error(err)
				}
			}()
		}
		synctest.Wait() // all of them wait
		close(g.open)
		synctest.Wait()
		for i, out := range outs {
			if out.merged == nil || out.merged != outs[0].merged {
				t.Errorf("scrape %d has the snapshot %p, want that of the first, %p", i, out.merged, outs[0].merged)
			}
		}
		if n := merges(t, c); n != 1 {
			t.Errorf("%d merges for three scrapes at the same time, want 1", n)
		}
		if err := c.Update(t.Context(), &Output{}); err != nil || merges(t, c) != 2 {
			t.Errorf("%d merges after a later scrape, %v; want 2", merges(t, c), err)
		}
	})
}

func TestAClientThatGoesAwayDoesNotCutTheOthersShort(t *testing.T) {
	dir := oneGoodOneBad(t)
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		c := newMultiproc(t, multiproc.Options{Logger: slog.New(g)}, dir)
		first, cancel := context.WithCancel(t.Context())
		errs := make(chan error)
		gone, stays := &Output{}, &Output{}
		go func() { errs <- c.Update(first, gone) }() // its merge it is
		synctest.Wait()
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			if err := c.Update(t.Context(), stays); err != nil {
				t.Error(err)
			}
		}()
		synctest.Wait()
		cancel()
		err := <-errs // while the merge goes on
		synctest.Wait()
		select {
		case <-ended:
			t.Error("the second scrape ended with the first one's client")
		default:
		}
		close(g.open)
		<-ended
		if err == nil || err.Error() != "wait for the merge of metric files: context canceled" {
			t.Errorf("Update = %v, want that its client is gone", err)
		}
		if gone.merged != nil || stays.merged == nil || stays.merged.Series != 1 {
			t.Errorf("snapshots %v and %v, want none and one with one series", gone.merged, stays.merged)
		}
		if n := merges(t, c); n != 1 {
			t.Errorf("%d merges, want 1", n)
		}
	})
}

func TestAClientThatGoesAwayLeavesItsMergeToTheOthers(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // one reader: files are read one after another
	dir := t.TempDir()
	for name, key := range map[string]string{"counter_1.db": `["a", "a_total", {}, "m"]`, "counter_2.db": `["b", "b_total", {}, "m"]`} {
		if err := os.WriteFile(filepath.Join(dir, name), metricFile([]string{key}), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		open := make(chan struct{})
		c := newMultiproc(t, multiproc.Options{Refuse: func(string) bool { // asked while the first file is read
			<-open
			return false
		}}, dir)
		first, cancel := context.WithCancel(t.Context())
		go func() {
			if err := c.Update(first, &Output{}); err == nil {
				t.Error("a scrape without a client got its merge")
			}
		}()
		synctest.Wait()
		cancel()
		out := &Output{}
		go func() {
			if err := c.Update(t.Context(), out); err != nil {
				t.Error(err)
			}
		}()
		synctest.Wait()
		close(open)
		synctest.Wait()
		if out.merged == nil || out.merged.Series != 2 || merges(t, c) != 1 {
			t.Errorf("snapshot %v of %d merges, want two series of one", out.merged, merges(t, c))
		}
	})
}

// panics is a log that cannot take it.
type panics struct{ slog.Handler }

func (panics) Enabled(context.Context, slog.Level) bool { return true }

func (panics) Handle(context.Context, slog.Record) error { panic("no room to write") }

func TestAPanicInAMergeIsAnErrorOfItsScrape(t *testing.T) {
	c := newMultiproc(t, multiproc.Options{Logger: slog.New(panics{slog.DiscardHandler})}, oneGoodOneBad(t))
	out := &Output{}
	err := c.Update(t.Context(), out)
	if err == nil || !strings.HasPrefix(err.Error(), "merge metric files: panic: no room to write\n") || !strings.Contains(err.Error(), "multiproc_test.go") {
		t.Errorf("Update = %v, want the panic and where it came from", err)
	}
	if out.merged != nil || len(out.metrics) == 0 {
		t.Errorf("snapshot %v and %d metrics, want no snapshot, and what is known of the files", out.merged, len(out.metrics))
	}
	if err := c.Update(t.Context(), out); err != nil || out.merged == nil { // all is logged
		t.Errorf("Update = %v with the snapshot %v after a panic, want one", err, out.merged)
	}
}

func TestAMergeHasItsOwnDeadline(t *testing.T) {
	m := multiproc.New(multiproc.Options{})
	defer m.Close()
	m.SetSources([]multiproc.Source{{Path: oneGoodOneBad(t)}})
	out := &Output{}
	err := NewMultiproc(m, 0).Update(t.Context(), out)
	if err == nil || !strings.HasPrefix(err.Error(), "merge metric files: context deadline exceeded") || out.merged != nil {
		t.Errorf("Update = %v with the snapshot %v, want that its time is over", err, out.merged)
	}
	if err := NewMultiproc(m, time.Hour).Update(t.Context(), out); err != nil || out.merged == nil {
		t.Errorf("Update = %v with the snapshot %v, want one when there is time", err, out.merged)
	}
}

func TestErrorsOfFilesAreCountedByReason(t *testing.T) {
	c := newMultiproc(t, multiproc.Options{}, oneGoodOneBad(t))
	for _, want := range []string{"1", "2"} {
		out := &Output{}
		if err := c.Update(t.Context(), out); err != nil {
			t.Fatal(err)
		}
		s, err := scrape(out)
		if err != nil {
			t.Fatal(err)
		}
		text := textOf(t, s.Families())
		for _, line := range []string{
			`prefork_multiproc_file_errors_total{reason="truncated"} ` + want + "\n",
			`prefork_multiproc_file_errors_total{reason="corrupt"} 0` + "\n", // known from the start
		} {
			if !strings.Contains(text, line) {
				t.Errorf("no %q in\n%s", line, text)
			}
		}
		if n := strings.Count(text, "prefork_multiproc_file_errors_total{"); n != len(multiproc.Reasons()) {
			t.Errorf("%d reasons, want all %d", n, len(multiproc.Reasons()))
		}
	}
}

func TestNamesThatFilesMayNotUse(t *testing.T) {
	refused := Refused()
	for name, want := range map[string]bool{
		"prefork_up": true, "prefork_": true, "prefork_anything_else": true, "prefork_multiproc_merge_seconds_bucket": true,
		"prefork_worker_threads": true, "prefork_worker_requests_in": true, // planned, and none
		"prefork_worker_requests_total": false, "prefork_worker_requests": false, "prefork_worker_request_size_bytes_bucket": false,
		"prefork_worker_memory_bytes": false, "prefork_master_worker_restart": false,
		"prefork": false, "up": false, "": false, "http_requests_total": false, "Prefork_up": false,
	} {
		if refused(name) != want {
			t.Errorf("refused(%q) = %v, want %v", name, refused(name), want)
		}
	}
}

func TestTheMergeThatIsPrintedIsTheMergeThatIsServed(t *testing.T) {
	h := merging(t, "client_python-HEAD/utf8names")
	c := newMultiproc(t, multiproc.Options{}, unpack(t, "client_python-HEAD/utf8names"))
	out := &Output{}
	if err := c.Update(t.Context(), out); err != nil {
		t.Fatal(err)
	}
	var text, openMetrics bytes.Buffer
	if err := WriteText(&text, out.merged, false); err != nil {
		t.Fatal(err)
	}
	if err := WriteText(&openMetrics, out.merged, true); err != nil {
		t.Fatal(err)
	}
	merged, _, _ := strings.Cut(string(ask(t, h, "GET", "/metrics").body), "# HELP prefork_")
	if text.String() != merged {
		t.Errorf("WriteText wrote\n%s\nserved is\n%s", text.String(), merged)
	}
	served, _, _ := strings.Cut(string(ask(t, h, "GET", "/metrics", "Accept", "application/openmetrics-text; version=1.0.0").body), "# HELP prefork_")
	if openMetrics.String() != served+"# EOF\n" {
		t.Errorf("WriteText wrote\n%s\nserved as OpenMetrics is\n%s", openMetrics.String(), served)
	}
}

func TestWithoutADirectoryAFeatureSaysWhy(t *testing.T) {
	why, there := "the master is not there", false
	c := newMultiproc(t, multiproc.Options{})
	c.NoDirectory, c.MastersThere = func() string { return why }, func() bool { return there }
	for _, tc := range []struct {
		why   string
		there bool
		want  string
	}{
		{"the master is not there", false, `{feature="multiproc",reason="the master is not there"} 0, prefork_up 0`},
		{"no directory is named", true, `{feature="multiproc",reason="no directory is named"} 0, prefork_up 1`},
	} {
		why, there = tc.why, tc.there
		got := collect(t, c, "")
		feature := regexp.MustCompile(`\{feature="multiproc".*`).FindString(got)
		up := regexp.MustCompile(`(?m)^prefork_up .*`).FindString(got)
		if feature+", "+up != tc.want {
			t.Errorf("%s, %s: want %s", feature, up, tc.want)
		}
	}
}
