package writer_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prefork-exporter/prefork_exporter/multiproc/fixture"
	"github.com/prefork-exporter/prefork_exporter/multiproc/internal/pyfile"
	"github.com/prefork-exporter/prefork_exporter/multiproc/writer"
)

// sampleOpts returns what a key of era D says.
func sampleOpts(t *testing.T, kind, key string) writer.SampleOpts {
	t.Helper()
	o := writer.SampleOpts{Kind: kind}
	if err := json.Unmarshal([]byte(key), &[]any{&o.Family, &o.Name, &o.Labels, &o.Help}); err != nil {
		t.Fatalf("key %s: %v", key, err)
	}
	return o
}

// Each file of client_python is written again, sample by sample: all bytes are
// the same, length included, but for the time stamps of the most recent modes.
func TestFilesAreThoseOfPython(t *testing.T) {
	files := 0
	for _, scenario := range []string{"basic", "hist", "utf8names", "grown"} {
		theirs := filepath.Join(fixture.Unpack(t, filepath.Join("client_python-HEAD", scenario, "db.tar.gz")), "db")
		paths, err := filepath.Glob(filepath.Join(theirs, "*.db"))
		if err != nil || len(paths) == 0 {
			t.Fatalf("no files of scenario %s: %v", scenario, err)
		}
		for _, path := range paths {
			kind, id, _ := strings.Cut(strings.TrimSuffix(filepath.Base(path), ".db"), "_")
			if kind == "gauge" {
				mode, rest, _ := strings.Cut(id, "_")
				kind, id = "gauge_"+mode, rest
			}
			if strings.HasSuffix(kind, "mostrecent") {
				continue
			}
			files++
			t.Run(scenario+"/"+filepath.Base(path), func(t *testing.T) {
				want := read(t, path)
				samples, err := pyfile.Decode(nil, want)
				if err != nil {
					t.Fatal(err)
				}
				dir := t.TempDir()
				w := open(t, writer.Options{Dir: dir, ID: id})
				for _, s := range samples {
					w.Sample(sampleOpts(t, kind, s.Raw)).Set(s.Value)
				}
				if got := read(t, filepath.Join(dir, filepath.Base(path))); !bytes.Equal(got, want) {
					t.Errorf("%d bytes, want %d; they differ from byte %d on", len(got), len(want), firstDifference(got, want))
				}
			})
		}
	}
	t.Logf("%d files", files)
}

func firstDifference(a, b []byte) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestAFileOfPythonIsContinued(t *testing.T) {
	dir := filepath.Join(fixture.Unpack(t, filepath.Join("client_python-HEAD", "basic", "db.tar.gz")), "db")
	before := merged(t, dir)
	w := open(t, writer.Options{Dir: dir, ID: "101"})
	requests := w.NewCounterVec(writer.Opts{Name: "http_requests_total", Help: "Total HTTP requests."}, []string{"method", "code"})
	requests.WithLabelValues("GET", "200").Add(5)
	requests.WithLabelValues("PUT", "201").Inc()
	w.NewCounter(writer.Opts{Name: "jobs_total", Help: "Jobs (name without _total)."}).Inc()
	after := merged(t, dir)
	for series, more := range map[string]float64{
		"http_requests_total{code=200,method=GET}": 5, "http_requests_total{code=201,method=PUT}": 1, "jobs_total{}": 1,
	} {
		if got := after[series] - before[series]; fmt.Sprintf("%.3f", got) != fmt.Sprintf("%.3f", more) {
			t.Errorf("%s rose by %v, want %v", series, got, more)
		}
	}
	if len(after) != len(before)+1 {
		t.Errorf("%d series, and %d before: want one more", len(after), len(before))
	}
}
