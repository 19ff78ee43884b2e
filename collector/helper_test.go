package collector

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"go.uber.org/goleak"

	"github.com/prefork-exporter/prefork_exporter/multiproc"
	"github.com/prefork-exporter/prefork_exporter/multiproc/fixture"
	"github.com/prefork-exporter/prefork_exporter/multiproc/fixture/exposition"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestMain(m *testing.M) {
	if task := os.Getenv(asChild); task != "" {
		if err := beChild(task); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

// asChild has this program be a process that tests measure, or another one that measures,
// instead of its tests.
const asChild = "COLLECTOR_TEST_CHILD"

// golden compares got with a file of testdata, or writes it there.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s differs, -update would rewrite it (-want +got):\n%s", path, diff)
	}
}

// quiet is a log that nobody reads.
func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// fake is a collector that does what a test wants.
type fake func(ctx context.Context, out *Output) error

func (fake) Describe(chan<- *prometheus.Desc) {}

func (f fake) Update(ctx context.Context, out *Output) error { return f(ctx, out) }

// testMetric returns a gauge that is not in the catalogue.
func testMetric(name string) prometheus.Metric {
	return prometheus.MustNewConstMetric(prometheus.NewDesc("test_"+name, "A test.", nil, nil), prometheus.GaugeValue, 1)
}

// gives returns a collector of one metric.
func gives(name string) fake {
	return func(_ context.Context, out *Output) error {
		out.Add(testMetric(name))
		return nil
	}
}

// textOf renders families.
func textOf(t *testing.T, families []*dto.MetricFamily) string {
	t.Helper()
	var b bytes.Buffer
	for _, f := range families {
		if _, err := expfmt.MetricFamilyToText(&b, f); err != nil {
			t.Fatal(err)
		}
	}
	return b.String()
}

// unpack returns the directory of metric files of a fixture.
func unpack(tb testing.TB, name string) string {
	tb.Helper()
	dir := fixture.Unpack(tb, filepath.Join(name, "db.tar.gz"))
	if sub := filepath.Join(dir, "db"); isDir(sub) {
		return sub
	}
	return dir
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// newMultiproc returns a collector of directories.
func newMultiproc(tb testing.TB, o multiproc.Options, dirs ...string) *Multiproc {
	tb.Helper()
	m := multiproc.New(o)
	tb.Cleanup(m.Close)
	var sources []multiproc.Source
	for _, dir := range dirs {
		sources = append(sources, multiproc.Source{Path: dir})
	}
	m.SetSources(sources)
	return NewMultiproc(m, 10*time.Second)
}

// newHandler returns a handler of those collectors.
func newHandler(tb testing.TB, o HandlerOptions, collectors map[string]Collector) http.Handler {
	tb.Helper()
	h, err := NewHandler(quiet(), NewSet(quiet(), collectors, 10*time.Second), o)
	if err != nil {
		tb.Fatal(err)
	}
	return h
}

// merging returns a handler of the merged files of fixtures.
func merging(tb testing.TB, fixtures ...string) http.Handler {
	tb.Helper()
	var dirs []string
	for _, name := range fixtures {
		dirs = append(dirs, unpack(tb, name))
	}
	return newHandler(tb, HandlerOptions{}, map[string]Collector{"multiproc": newMultiproc(tb, multiproc.Options{}, dirs...)})
}

// answer is a response that was read to its end.
type answer struct {
	code   int
	header http.Header
	body   []byte
}

// ask sends a request to h. headers are names and values in turn.
func ask(tb testing.TB, h http.Handler, method, target string, headers ...string) answer {
	tb.Helper()
	r := httptest.NewRequestWithContext(tb.Context(), method, target, nil)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	resp := w.Result()
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		tb.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, body}
}

// samples reads the answer as Prometheus does.
func (a answer) samples(tb testing.TB) map[string]float64 {
	tb.Helper()
	samples, err := exposition.Samples(a.body, a.header.Get("Content-Type"))
	if a.code != http.StatusOK || err != nil {
		tb.Fatalf("status %d, %v:\n%.1000s", a.code, err, a.body)
	}
	return samples
}
