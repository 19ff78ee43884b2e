package expo

import (
	"math"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/prefork-exporter/prefork_exporter/multiproc"
	"github.com/prefork-exporter/prefork_exporter/multiproc/fixture"
	"github.com/prefork-exporter/prefork_exporter/multiproc/fixture/exposition"
)

// TestRenderingsOfEveryFixtureAreTheSame renders what every client wrote: as
// text, as OpenMetrics where it survives that, and as client_golang renders the
// same families. Prometheus must read the same in all of them.
func TestRenderingsOfEveryFixtureAreTheSame(t *testing.T) {
	for _, path := range fixture.Scenarios(t) {
		dir := filepath.Dir(path)
		if testing.Short() && strings.HasSuffix(dir, "grown") {
			continue
		}
		t.Run(dir, func(t *testing.T) {
			s := merge(t, multiproc.Source{Path: unpack(t, path)})
			schemes := []model.EscapingScheme{model.UnderscoreEscaping}
			if strings.HasSuffix(dir, "utf8names") { // the others have nothing to escape
				schemes = append(schemes, model.NoEscaping)
			}
			for _, scheme := range schemes {
				sameAsClientGolang(t, s, Options{Escaping: scheme}, unlike{})
				if OpenMetrics(s.Layout) {
					sameAsClientGolang(t, s, Options{Escaping: scheme, OpenMetrics: true}, unlike{})
				}
				sameAsProtobuf(t, s, scheme)
			}
			sameAsTheClient(t, s, dir)
		})
	}
}

// unlike is where text and families differ by design, as one of them cannot
// hold what the other has.
type unlike struct {
	dropped int      // samples that families cannot hold
	text    []string // series and families that only text has
	family  []string // series that only families have: a sum that nobody wrote
}

// sameAsClientGolang compares Write with what client_golang makes of Families.
func sameAsClientGolang(t *testing.T, s *multiproc.Snapshot, o Options, u unlike) {
	t.Helper()
	text, dropped := render(t, s, o)
	families, lost := Families(s, Options{Escaping: model.NoEscaping})
	if dropped != 0 || lost != u.dropped {
		t.Errorf("text dropped %d samples, families %d, want 0 and %d", dropped, lost, u.dropped)
	}
	ours := mustScrape(t, text, contentType(o)).without(u.text)
	theirs := mustScrape(t, encode(t, families, contentType(o)), contentType(o)).without(u.family)
	same(t, ours, theirs)
}

// sameAsProtobuf compares what Prometheus reads in text and in protobuf.
func sameAsProtobuf(t *testing.T, s *multiproc.Snapshot, scheme model.EscapingScheme) {
	t.Helper()
	text, _ := render(t, s, Options{Escaping: scheme})
	families, _ := Families(s, Options{Escaping: scheme})
	ours := mustScrape(t, text, contentType(Options{Escaping: scheme}))
	same(t, ours, mustScrape(t, encode(t, families, expfmt.FmtProtoDelim.WithEscapingScheme(scheme)), expfmt.FmtProtoDelim))
}

// sameAsTheClient compares the OpenMetrics rendering with the client's own.
func sameAsTheClient(t *testing.T, s *multiproc.Snapshot, dir string) {
	t.Helper()
	path := filepath.Join(dir, "expected.om.txt")
	if at := filepath.Join(fixture.Root(t), path); !exists(at) && !exists(at+".gz") || !OpenMetrics(s.Layout) {
		return
	}
	text, _ := render(t, s, Options{OpenMetrics: true, Escaping: model.UnderscoreEscaping})
	got, err := exposition.Samples(text, exposition.OpenMetrics)
	if err != nil {
		t.Fatal(err)
	}
	want, err := exposition.Samples(fixture.Read(t, path), exposition.OpenMetrics)
	if err != nil {
		t.Fatal(err)
	}
	if want = byDesign(dir, want); !equalValues(got, want) {
		t.Errorf("samples differ from the client's own (-want +got):\n%s", cmp.Diff(want, got, cmpopts.EquateNaNs()))
	}
}

// byDesign changes what the client shows to what we show: an id stays whole,
// and so does the legal colon of a name.
func byDesign(dir string, want map[string]float64) map[string]float64 {
	change := strings.NewReplacer()
	switch {
	case strings.HasSuffix(dir, "pidnames"):
		change = strings.NewReplacer(`pid="wor"`, `pid="worker_1"`)
	case strings.HasPrefix(dir, "client_python-HEAD"):
		change = strings.NewReplacer(`__name__="ns_colon_name_total"`, `__name__="ns:colon:name_total"`)
	}
	out := map[string]float64{}
	for series, v := range want {
		out[change.Replace(series)] = v
	}
	return out
}

func same(t *testing.T, got, want scraped) {
	t.Helper()
	if !equalValues(got.Samples, want.Samples) || !cmp.Equal(got.Types, want.Types) || !cmp.Equal(got.Help, want.Help) {
		t.Errorf("what Prometheus reads differs (-want +got):\n%s", cmp.Diff(want, got, cmpopts.EquateNaNs()))
	}
}

// equalValues is cmp.Equal, which takes seconds for the largest fixtures.
func equalValues(a, b map[string]float64) bool {
	for series, v := range a {
		if w, ok := b[series]; !ok || v != w && !(math.IsNaN(v) && math.IsNaN(w)) {
			return false
		}
	}
	return len(a) == len(b)
}

// without leaves out series and families.
func (s scraped) without(names []string) scraped {
	for _, name := range names {
		delete(s.Samples, name)
		delete(s.Types, name)
		delete(s.Help, name)
	}
	return s
}

func TestRenderingsOfCorruptFilesAreTheSame(t *testing.T) {
	root := fixture.Unpack(t, "corrupt/cases.tar.gz")
	differ := map[string]unlike{
		"hist_no_le": { // buckets without a bound, and no count
			dropped: 2, text: []string{`{__name__="h_bucket", x="1"}`, `{__name__="h_sum", x="1"}`, "h"},
		},
		"hist_le_variants": {family: []string{`{__name__="h_sum"}`}}, // no sum is written, client_golang says 0
	}
	dirs, err := filepath.Glob(filepath.Join(root, "*", "db*"))
	if err != nil || len(dirs) == 0 {
		t.Fatalf("no cases in %s: %v", root, err)
	}
	for _, dir := range dirs {
		name := filepath.Base(filepath.Dir(dir))
		t.Run(name+" "+filepath.Base(dir), func(t *testing.T) {
			s := merge(t, multiproc.Source{Path: dir})
			sameAsClientGolang(t, s, Options{}, differ[name])
			if OpenMetrics(s.Layout) {
				sameAsClientGolang(t, s, Options{OpenMetrics: true}, differ[name])
			}
		})
	}
}

func TestOpenMetricsIsOfferedWhereEveryFamilySurvivesIt(t *testing.T) {
	for dir, want := range map[string]bool{
		"client_python-0.0.16/basic":                   false, // counters without _total
		"client_python-0.16.0/basic":                   true,
		"client_python-HEAD/weird":                     true,
		"client_python-HEAD/conflict":                  false, // x_conf is a counter, and x_conf_total
		"ruby-prometheus-client-mmap-0.16.2/basic":     false,
		"ruby-prometheus-client-mmap-0.16.2/weird":     true,
		"client_python-0.16.0/gunicorn-preload":        true,
		"client_python-0.16.0/gunicorn-nopreload":      true,
		"ruby-prometheus-client-mmap-0.16.2/grown":     true,
		"client_ruby-4.2.5/basic":                      true,
		"ruby-prometheus-client-mmap-0.16.2/workerids": false,
	} {
		t.Run(dir, func(t *testing.T) {
			s := merge(t, multiproc.Source{Path: unpack(t, filepath.Join(dir, "db.tar.gz"))})
			if got := OpenMetrics(s.Layout); got != want {
				t.Errorf("OpenMetrics = %v, want %v", got, want)
			}
		})
	}
}

func TestOpenMetricsOfMadeUpFamilies(t *testing.T) {
	for name, tc := range map[string]struct {
		families []multiproc.Family
		want     bool
	}{
		"no families":                   {nil, true},
		"a counter with _total":         {[]multiproc.Family{{Name: "a_total", Type: multiproc.Counter}}, true},
		"a counter without _total":      {[]multiproc.Family{{Name: "a", Type: multiproc.Counter}}, false},
		"a gauge that is called _total": {[]multiproc.Family{{Name: "a_total", Type: multiproc.Gauge}}, true},
		"a counter and a gauge of its stem": {[]multiproc.Family{
			{Name: "a", Type: multiproc.Gauge}, {Name: "a_total", Type: multiproc.Counter},
		}, false},
		"a counter whose stem an escaped gauge gets": {[]multiproc.Family{
			{Name: "a.b", Type: multiproc.Gauge}, {Name: "a_b_total", Type: multiproc.Counter},
		}, false},
		"two stems that escape alike": {[]multiproc.Family{
			{Name: "a-b_total", Type: multiproc.Counter}, {Name: "a.b", Type: multiproc.Gauge},
		}, false},
		"a gauge that escapes to a name of its own": {[]multiproc.Family{
			{Name: "a.c", Type: multiproc.Gauge}, {Name: "a_b_total", Type: multiproc.Counter},
		}, true},
		"a counter and a gauge beside it": {[]multiproc.Family{
			{Name: "a", Type: multiproc.Gauge}, {Name: "b_total", Type: multiproc.Counter},
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			if got := OpenMetrics(&multiproc.Layout{Families: tc.families}); got != tc.want {
				t.Errorf("OpenMetrics = %v, want %v", got, tc.want)
			}
		})
	}
}
