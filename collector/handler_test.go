package collector

import (
	"bytes"
	"compress/gzip"
	"context"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/klauspost/compress/zstd"

	"github.com/prefork-exporter/prefork_exporter/multiproc"
	"github.com/prefork-exporter/prefork_exporter/multiproc/fixture"
	"github.com/prefork-exporter/prefork_exporter/multiproc/fixture/exposition"
)

const (
	text            = "text/plain; version=0.0.4; charset=utf-8; escaping="
	openMetrics     = "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping="
	openMetrics001  = "application/openmetrics-text; version=0.0.1; charset=utf-8; escaping="
	protobuf        = "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited; escaping="
	acceptProtobuf  = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"
	prometheus2     = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
	prometheus3     = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,text/plain;version=0.0.4;q=0.2,*/*;q=0.1"
	prometheusProto = acceptProtobuf + ";q=0.6,application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,text/plain;version=0.0.4;q=0.2,*/*;q=0.1"
	browser         = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"
)

func TestTheFormatIsNegotiated(t *testing.T) {
	python, ruby := merging(t, "client_python-0.16.0/basic"), merging(t, "ruby-prometheus-client-mmap-0.16.2/basic")
	for name, tc := range map[string]struct {
		accept           string
		want, wantOfRuby string // whose counters have no _total: they would lose their type in OpenMetrics
	}{
		"nothing is asked for":         {"", text + "underscores", text + "underscores"},
		"anything":                     {"*/*", text + "underscores", text + "underscores"},
		"text":                         {"text/plain", text + "underscores", text + "underscores"},
		"text of the version":          {"text/plain;version=0.0.4", text + "underscores", text + "underscores"},
		"text of a version to come":    {"text/plain;version=9.0.0", text + "underscores", text + "underscores"},
		"OpenMetrics 1.0.0":            {"application/openmetrics-text;version=1.0.0", openMetrics + "underscores", text + "underscores"},
		"OpenMetrics 0.0.1":            {"application/openmetrics-text;version=0.0.1", openMetrics001 + "underscores", text + "underscores"},
		"OpenMetrics":                  {"application/openmetrics-text", openMetrics001 + "underscores", text + "underscores"},
		"OpenMetrics to come":          {"application/openmetrics-text;version=9.0.0", text + "underscores", text + "underscores"},
		"protobuf":                     {acceptProtobuf, protobuf + "underscores", protobuf + "underscores"},
		"protobuf as text":             {"application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=text", text + "underscores", text + "underscores"},
		"another protobuf":             {"application/vnd.google.protobuf;proto=other;encoding=delimited", text + "underscores", text + "underscores"},
		"JSON":                         {"application/json", text + "underscores", text + "underscores"},
		"a browser":                    {browser, text + "underscores", text + "underscores"},
		"junk":                         {";;=,/,\x80 q=", text + "underscores", text + "underscores"},
		"more junk":                    {strings.Repeat("text/plain;q=", 500), text + "underscores", text + "underscores"},
		"Prometheus 2":                 {prometheus2, openMetrics + "underscores", text + "underscores"},
		"Prometheus 3":                 {prometheus3, openMetrics + "allow-utf-8", text + "allow-utf-8"},
		"Prometheus 3, protobuf first": {prometheusProto, protobuf + "underscores", protobuf + "underscores"},
		"OpenMetrics rather than text": {
			"text/plain;version=0.0.4;q=0.3,application/openmetrics-text;version=1.0.0;q=0.9", openMetrics + "underscores", text + "underscores",
		},
		"text rather than OpenMetrics": {
			"text/plain;version=0.0.4;q=0.9,application/openmetrics-text;version=1.0.0;q=0.3", text + "underscores", text + "underscores",
		},
		"UTF-8 names":            {"text/plain;version=0.0.4;escaping=allow-utf-8", text + "allow-utf-8", text + "allow-utf-8"},
		"dots":                   {"text/plain;version=0.0.4;escaping=dots", text + "dots", text + "dots"},
		"values, in OpenMetrics": {"application/openmetrics-text;version=1.0.0;escaping=values", openMetrics + "values", text + "values"},
		"UTF-8 names, protobuf":  {acceptProtobuf + ";escaping=allow-utf-8", protobuf + "allow-utf-8", protobuf + "allow-utf-8"},
		"an unknown escaping":    {"text/plain;version=0.0.4;escaping=rot13", text + "underscores", text + "underscores"},
	} {
		t.Run(name, func(t *testing.T) {
			for want, h := range map[string]http.Handler{"python " + tc.want: python, "ruby " + tc.wantOfRuby: ruby} {
				_, want, _ = strings.Cut(want, " ")
				a := ask(t, h, "GET", "/metrics", "Accept", tc.accept)
				if got := a.header.Get("Content-Type"); got != want {
					t.Errorf("Content-Type %q, want %q", got, want)
				}
				if !slices.Contains(a.header.Values("Vary"), "Accept") {
					t.Errorf("Vary %q, want Accept among them", a.header.Values("Vary"))
				}
				if samples := a.samples(t); samples[`{__name__="prefork_up"}`] != 1 || len(merged(samples)) < 50 {
					t.Errorf("%d merged samples, prefork_up %v; want all of them", len(merged(samples)), samples[`{__name__="prefork_up"}`])
				}
			}
		})
	}
}

func TestNamesAreEscapedAsTheClientDoes(t *testing.T) {
	h := merging(t, "client_python-HEAD/utf8names")
	for scheme, file := range map[string]string{
		"allow-utf-8": "expected.allow-utf-8", "underscores": "expected", "dots": "expected.dots", "values": "expected.values", "": "expected",
	} {
		for format, suffix := range map[string]string{
			"text/plain;version=0.0.4": ".txt", "application/openmetrics-text;version=1.0.0": ".om.txt",
		} {
			t.Run(file+suffix+" for "+scheme, func(t *testing.T) {
				accept, contentType := format, exposition.Text
				if scheme != "" {
					accept += ";escaping=" + scheme
				}
				if suffix == ".om.txt" {
					contentType = exposition.OpenMetrics
				}
				want, err := exposition.Samples(fixture.Read(t, "client_python-HEAD/utf8names/"+file+suffix), contentType)
				if err != nil {
					t.Fatal(err)
				}
				got := merged(ask(t, h, "GET", "/metrics", "Accept", accept).samples(t))
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("samples differ from the client's own (-want +got):\n%s", diff)
				}
			})
		}
	}
}

// merged returns the samples that are not the exporter's own.
func merged(samples map[string]float64) map[string]float64 {
	out := maps.Clone(samples)
	maps.DeleteFunc(out, func(series string, _ float64) bool { return strings.Contains(series, `"prefork_`) })
	return out
}

func TestEveryFormatHasTheSameMergedSamples(t *testing.T) {
	for _, dir := range []string{"client_python-HEAD/basic", "client_python-HEAD/weird", "ruby-prometheus-client-mmap-0.16.2/basic"} {
		t.Run(dir, func(t *testing.T) {
			h := merging(t, dir)
			var want map[string]float64
			for _, accept := range []string{"text/plain", "application/openmetrics-text;version=1.0.0", acceptProtobuf} {
				got := merged(ask(t, h, "GET", "/metrics", "Accept", accept).samples(t))
				got = wholeBounds(got)
				if want == nil {
					want = got
				}
				if diff := cmp.Diff(want, got, cmpopts.EquateNaNs()); diff != "" {
					t.Errorf("%s: samples differ from text's (-text +got):\n%s", accept, diff)
				}
			}
		})
	}
}

// wholeBounds writes whole bounds as Python and Prometheus do: files of Ruby's
// have them without a point, and text keeps that.
func wholeBounds(samples map[string]float64) map[string]float64 {
	out := map[string]float64{}
	for series, v := range samples {
		before, bound, ok := strings.Cut(series, `le="`)
		if bound, after, _ := strings.Cut(bound, `"`); ok && !strings.ContainsAny(bound, ".eI") {
			series = before + `le="` + bound + `.0"` + after
		}
		out[series] = v
	}
	return out
}

func TestABodyIsTheSameInEveryEncoding(t *testing.T) {
	h := merging(t, "client_python-0.16.0/basic")
	const target = "/metrics?name[]=request_latency_seconds&name[]=g_all&name[]=gl_all" // what stays as it is
	plain := ask(t, h, "GET", target)
	if plain.header.Get("Content-Encoding") != "" || len(plain.body) < 512 {
		t.Fatalf("%d bytes, encoded %q; want 512, as they are", len(plain.body), plain.header.Get("Content-Encoding"))
	}
	for name, tc := range map[string]struct{ accept, want string }{
		"gzip":                         {"gzip", "gzip"},
		"zstd":                         {"zstd", "zstd"},
		"either":                       {"gzip, zstd", "zstd"},
		"neither":                      {"identity", ""},
		"one that nobody has":          {"br", ""},
		"gzip is refused":              {"gzip;q=0", ""},
		"anything, as Prometheus asks": {"gzip", "gzip"},
	} {
		t.Run(name, func(t *testing.T) {
			a := ask(t, h, "GET", target, "Accept-Encoding", tc.accept)
			if got := a.header.Get("Content-Encoding"); got != tc.want {
				t.Fatalf("Content-Encoding %q, want %q", got, tc.want)
			}
			if tc.want != "" && len(a.body) >= len(plain.body) {
				t.Errorf("%d bytes, want fewer than the %d as they are", len(a.body), len(plain.body))
			}
			if got := decode(t, a); !bytes.Equal(got, plain.body) {
				t.Errorf("decoded differs (-plain +decoded):\n%s", cmp.Diff(string(plain.body), string(got)))
			}
			if !slices.Contains(a.header.Values("Vary"), "Accept-Encoding") {
				t.Errorf("Vary %q, want Accept-Encoding among them", a.header.Values("Vary"))
			}
			if got := a.header.Get("Content-Type"); got != plain.header.Get("Content-Type") {
				t.Errorf("Content-Type %q, want %q", got, plain.header.Get("Content-Type"))
			}
		})
	}
}

// decode returns the body of a as it was before it was encoded.
func decode(t *testing.T, a answer) []byte {
	t.Helper()
	r := io.Reader(bytes.NewReader(a.body))
	switch a.header.Get("Content-Encoding") {
	case "gzip":
		z, err := gzip.NewReader(r)
		if err != nil {
			t.Fatal(err)
		}
		r = z
	case "zstd":
		z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1))
		if err != nil {
			t.Fatal(err)
		}
		defer z.Close()
		r = z
	}
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestCompressionCanBeSwitchedOff(t *testing.T) {
	h := newHandler(t, HandlerOptions{DisableCompression: true}, map[string]Collector{"exporter": newExporter(t)})
	if a := ask(t, h, "GET", "/metrics", "Accept-Encoding", "gzip, zstd"); a.header.Get("Content-Encoding") != "" || len(a.samples(t)) == 0 {
		t.Errorf("Content-Encoding %q, want none", a.header.Get("Content-Encoding"))
	}
}

func TestMethods(t *testing.T) {
	s := httptest.NewServer(merging(t, "client_python-0.16.0/basic"))
	defer s.Close()
	for method, want := range map[string]int{
		"GET": 200, "HEAD": 200, "POST": 405, "PUT": 405, "DELETE": 405, "OPTIONS": 405, "PATCH": 405, "BREW": 405,
	} {
		t.Run(method, func(t *testing.T) {
			r, err := http.NewRequestWithContext(t.Context(), method, s.URL, nil)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := s.Client().Do(r)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = resp.Body.Close() }()
			body, err := io.ReadAll(resp.Body)
			if resp.StatusCode != want || err != nil {
				t.Fatalf("status %d, %v; want %d", resp.StatusCode, err, want)
			}
			switch {
			case want == 405 && (resp.Header.Get("Allow") != "GET, HEAD" || string(body) != "method not allowed: want GET or HEAD\n"):
				t.Errorf("Allow %q, %q; want GET and HEAD", resp.Header.Get("Allow"), body)
			case method == "HEAD" && (len(body) != 0 || resp.Header.Get("Content-Type") != text+"underscores"):
				t.Errorf("%d bytes of %q, want the header alone", len(body), resp.Header.Get("Content-Type"))
			case method == "GET" && len(body) == 0:
				t.Error("no body")
			}
		})
	}
}

func TestAScrapeEndsBeforePrometheusGivesItUp(t *testing.T) {
	const set, offset = 10 * time.Second, 500 * time.Millisecond // newHandler's and the options'
	for name, tc := range map[string]struct {
		header string
		want   time.Duration
	}{
		"no header":                     {"", set},
		"three seconds":                 {"3", 2500 * time.Millisecond},
		"a fraction":                    {"1.25", 750 * time.Millisecond},
		"as long as the set has":        {"10.5", set},
		"longer than the set has":       {"60", set},
		"just more than the offset":     {"0.6", 100 * time.Millisecond},
		"no more than the offset":       {"0.5", 500 * time.Millisecond},
		"less than the offset":          {"0.1", 100 * time.Millisecond},
		"nothing":                       {"0", set},
		"less than nothing":             {"-1", set},
		"a word":                        {"soon", set},
		"a duration with its unit":      {"3s", set},
		"no number":                     {"NaN", set},
		"infinity":                      {"Inf", set},
		"infinity below zero":           {"-Inf", set},
		"more than a duration can hold": {"1e300", set},
		"more than a float can hold":    {"1e999", set},
		"a thousand years":              {"31536000000", set},
		"less than a nanosecond":        {"1e-12", set},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var got time.Duration
				h := newHandler(t, HandlerOptions{TimeoutOffset: offset, DisableCompression: true}, map[string]Collector{
					"sees": fake(func(ctx context.Context, _ *Output) error {
						end, _ := ctx.Deadline()
						got = time.Until(end)
						return nil
					}),
				})
				a := ask(t, h, "GET", "/metrics", scrapeTimeoutHeader, tc.header)
				if got.Round(time.Microsecond) != tc.want || a.code != 200 {
					t.Errorf("status %d, the collectors have %v, want %v", a.code, got, tc.want)
				}
			})
		})
	}
}

func TestAHungCollectorDoesNotHangTheAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		h := newHandler(t, HandlerOptions{DisableCompression: true}, map[string]Collector{
			"works": gives("works"),
			"hangs": fake(func(context.Context, *Output) error {
				<-release
				return nil
			}),
		})
		start := time.Now()
		got := ask(t, h, "GET", "/metrics", scrapeTimeoutHeader, "2").samples(t)
		if passed := time.Since(start); passed != 2*time.Second {
			t.Errorf("answered after %v, want 2s", passed)
		}
		want := map[string]float64{
			`{__name__="test_works"}`: 1,
			`{__name__="prefork_scrape_collector_success", collector="works"}`:          1,
			`{__name__="prefork_scrape_collector_success", collector="hangs"}`:          0,
			`{__name__="prefork_scrape_collector_duration_seconds", collector="works"}`: 0,
			`{__name__="prefork_scrape_collector_duration_seconds", collector="hangs"}`: 2,
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("samples differ (-want +got):\n%s", diff)
		}
		close(release)
	})
}

func TestTooManyScrapesAtTheSameTimeAreTurnedAway(t *testing.T) {
	inside, release := make(chan struct{}), make(chan struct{})
	h := newHandler(t, HandlerOptions{MaxRequests: 2}, map[string]Collector{"slow": fake(func(context.Context, *Output) error {
		inside <- struct{}{}
		<-release
		return nil
	})})
	answers := make(chan answer, 2)
	for range 2 {
		go func() { answers <- ask(t, h, "GET", "/metrics") }()
		<-inside
	}
	a := ask(t, h, "GET", "/metrics")
	const want = "2 scrapes are being answered: try again later, or raise --web.max-requests\n"
	if a.code != 503 || a.header.Get("Retry-After") != "1" || string(a.body) != want {
		t.Errorf("status %d, Retry-After %q, %q; want 503, 1 and why", a.code, a.header.Get("Retry-After"), a.body)
	}
	close(release)
	for range 2 {
		if a := <-answers; a.code != 200 {
			t.Errorf("status %d of a scrape that was let in, want 200", a.code)
		}
	}
	go func() { <-inside }()
	if a := ask(t, h, "GET", "/metrics"); a.code != 200 {
		t.Errorf("status %d when there is room again, want 200", a.code)
	}
}

func TestTheQueryChoosesCollectors(t *testing.T) {
	h := newHandler(t, HandlerOptions{}, map[string]Collector{"a": gives("a"), "b": gives("b"), "c": gives("c")})
	for name, tc := range map[string]struct {
		query string
		want  string // the collectors that ran, or the error
	}{
		"none is named":          {"", "a b c"},
		"one is asked for":       {"collect[]=b", "b"},
		"two are asked for":      {"collect[]=c&collect[]=a", "a c"},
		"one is asked for twice": {"collect[]=b&collect[]=b", "b"},
		"one is left out":        {"exclude[]=b", "a c"},
		"all are left out":       {"exclude[]=a&exclude[]=b&exclude[]=c", ""},
		"another parameter":      {"collect=b", "a b c"},
		"both":                   {"collect[]=a&exclude[]=b", "collect[] and exclude[] in one query: want one of them"},
		"an unknown one":         {"collect[]=x", `unknown collector "x": want some of a, b, c`},
		"an unknown one to omit": {"exclude[]=x", `unknown collector "x": want some of a, b, c`},
		"an empty one":           {"collect[]=", `unknown collector "": want some of a, b, c`},
		"a hostile one":          {"collect[]=%3Cscript%3E%0A%1b", `unknown collector "<script>\n\x1b": want some of a, b, c`},
	} {
		t.Run(name, func(t *testing.T) {
			r := ask(t, h, "GET", "/metrics?"+tc.query)
			if strings.Contains(tc.want, ": ") {
				if r.code != 400 || string(r.body) != tc.want+"\n" || r.header.Get("Content-Type") != "text/plain; charset=utf-8" {
					t.Errorf("status %d, %q; want 400, %q", r.code, r.body, tc.want)
				}
				return
			}
			var ran []string
			for series := range r.samples(t) {
				if rest, ok := strings.CutPrefix(series, `{__name__="test_`); ok {
					ran = append(ran, strings.TrimSuffix(rest, `"}`))
				}
			}
			slices.Sort(ran)
			if got := strings.Join(ran, " "); got != tc.want {
				t.Errorf("collectors %q ran, want %q", got, tc.want)
			}
		})
	}
}

func TestACollectorThatIsAskedForTwiceRunsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var runs atomic.Int32
		h := newHandler(t, HandlerOptions{DisableCompression: true}, map[string]Collector{"a": fake(func(context.Context, *Output) error {
			runs.Add(1)
			return nil
		})})
		ask(t, h, "GET", "/metrics?collect[]=a&collect[]=a")
		synctest.Wait()
		if n := runs.Load(); n != 1 {
			t.Errorf("it ran %d times, want once", n)
		}
	})
}

func TestEscapingCannotMakeAFileSpeakForTheExporter(t *testing.T) {
	dir := t.TempDir()
	file := metricFile([]string{`["prefork.up", "prefork.up", {}, "m"]`, `["a.b", "a.b", {}, "m"]`})
	if err := os.WriteFile(filepath.Join(dir, "gauge_max_1.db"), file, 0o600); err != nil {
		t.Fatal(err)
	}
	h := newHandler(t, HandlerOptions{}, map[string]Collector{"multiproc": newMultiproc(t, multiproc.Options{Refuse: Refused()}, dir)})
	for scheme, want := range map[string]string{
		"underscores": `{__name__="a_b"}`, "allow-utf-8": `{__name__="a.b"} {__name__="prefork.up"}`,
	} {
		for _, accept := range []string{"text/plain;version=0.0.4", "application/openmetrics-text;version=1.0.0", acceptProtobuf} {
			got := ask(t, h, "GET", "/metrics", "Accept", accept+";escaping="+scheme).samples(t) // no series twice
			if series := strings.Join(slices.Sorted(maps.Keys(merged(got))), " "); series != want || got[`{__name__="prefork_up"}`] != 1 {
				t.Errorf("%s, %s: merged %q, prefork_up %v; want %q and 1", accept, scheme, series, got[`{__name__="prefork_up"}`], want)
			}
		}
	}
}

func TestProtobufIsCompressedToo(t *testing.T) {
	h := merging(t, "client_python-0.16.0/basic")
	for _, encoding := range []string{"gzip", "zstd"} {
		if a := ask(t, h, "GET", "/metrics", "Accept", acceptProtobuf, "Accept-Encoding", encoding); a.header.Get("Content-Encoding") != encoding {
			t.Errorf("Content-Encoding %q, want %q", a.header.Get("Content-Encoding"), encoding)
		}
	}
}

func TestTheQueryChoosesFamilies(t *testing.T) {
	h := newHandler(t, HandlerOptions{}, map[string]Collector{
		"multiproc": newMultiproc(t, multiproc.Options{}, unpack(t, "client_python-0.16.0/basic")), "exporter": newExporter(t),
	})
	for name, tc := range map[string]struct {
		names []string
		want  string // the families, as text has them
	}{
		"a gauge":                          {[]string{"g_max"}, "g_max"},
		"a counter":                        {[]string{"jobs_total"}, "jobs_total"},
		"a counter without its _total":     {[]string{"jobs"}, "jobs_total"},
		"a gauge with _total":              {[]string{"g_max_total"}, ""},
		"a histogram":                      {[]string{"batch_size"}, "batch_size"},
		"a histogram's bucket":             {[]string{"batch_size_bucket"}, "batch_size"},
		"a histogram's sum":                {[]string{"batch_size_sum"}, "batch_size"},
		"a histogram's count":              {[]string{"batch_size_count"}, "batch_size"},
		"a histogram's total":              {[]string{"batch_size_total"}, ""},
		"a summary":                        {[]string{"size_bytes"}, "size_bytes"},
		"a summary's sum":                  {[]string{"size_bytes_sum"}, "size_bytes"},
		"a summary's count":                {[]string{"size_bytes_count"}, "size_bytes"},
		"a summary's bucket":               {[]string{"size_bytes_bucket"}, ""},
		"one of ours":                      {[]string{"prefork_up"}, "prefork_up"},
		"a histogram of ours":              {[]string{"prefork_multiproc_merge_seconds"}, "prefork_multiproc_merge_seconds"},
		"a bucket of ours":                 {[]string{"prefork_multiproc_merge_seconds_bucket"}, "prefork_multiproc_merge_seconds"},
		"a counter of ours":                {[]string{"prefork_multiproc_dropped_samples_total"}, "prefork_multiproc_dropped_samples_total"},
		"a counter of ours without _total": {[]string{"prefork_multiproc_dropped_samples"}, "prefork_multiproc_dropped_samples_total"},
		"a gauge of ours with _total":      {[]string{"prefork_up_total"}, ""},
		"several":                          {[]string{"g_max", "jobs", "prefork_up", "g_max"}, "g_max jobs_total prefork_up"},
		"none there is":                    {[]string{"nothing"}, ""},
		"the beginning of a name":          {[]string{"g_ma"}, ""},
		"no name":                          {[]string{""}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			target := "/metrics?" + url.Values{"name[]": tc.names}.Encode()
			for _, accept := range []string{"", "application/openmetrics-text;version=1.0.0", acceptProtobuf} {
				a := ask(t, h, "GET", target, "Accept", accept)
				if got := families(a.samples(t)); got != tc.want {
					t.Errorf("%q: families %q, want %q", accept, got, tc.want)
				}
			}
		})
	}
}

// families returns the names of the families that samples are of.
func families(samples map[string]float64) string {
	all := map[string]bool{}
	for series := range samples {
		_, name, _ := strings.Cut(series, `__name__="`)
		name, _, _ = strings.Cut(name, `"`)
		for _, suffix := range []string{"_bucket", "_sum", "_count"} {
			if name != "g_sum" && name != "g_unset_sum" {
				name = strings.TrimSuffix(name, suffix)
			}
		}
		all[name] = true
	}
	return strings.Join(slices.Sorted(maps.Keys(all)), " ")
}

func TestWhatAFormatCannotHoldIsCounted(t *testing.T) {
	dir := fixture.Unpack(t, "corrupt/cases.tar.gz") + "/hist_no_le/db"
	m := newMultiproc(t, multiproc.Options{}, dir)
	h := newHandler(t, HandlerOptions{}, map[string]Collector{"multiproc": m})
	dropped := func() map[string]float64 {
		out := map[string]float64{}
		for series, v := range ask(t, h, "GET", "/metrics?name[]=prefork_multiproc_dropped_samples_total").samples(t) {
			_, format, _ := strings.Cut(series, `format="`)
			out[strings.TrimSuffix(format, `"}`)] = v
		}
		return out
	}
	want := map[string]float64{"text": 0, "openmetrics": 0, "protobuf": 0}
	if diff := cmp.Diff(want, dropped()); diff != "" {
		t.Errorf("before (-want +got):\n%s", diff)
	}
	for i := 1; i <= 2; i++ {
		got := ask(t, h, "GET", "/metrics", "Accept", acceptProtobuf).samples(t)
		if _, ok := got[`{__name__="good_total"}`]; !ok || len(merged(got)) != 1 {
			t.Errorf("merged samples %v, want good_total alone", merged(got))
		}
		want["protobuf"] = float64(2 * i) // a bucket without a bound, and its sum
		if diff := cmp.Diff(want, dropped()); diff != "" {
			t.Errorf("after scrape %d (-want +got):\n%s", i, diff)
		}
	}
}

func TestWithoutAMergeThereIsTheRest(t *testing.T) {
	h := newHandler(t, HandlerOptions{}, map[string]Collector{"exporter": newExporter(t)})
	for accept, want := range map[string]string{
		"": text, "application/openmetrics-text;version=1.0.0": openMetrics, acceptProtobuf: protobuf,
	} {
		a := ask(t, h, "GET", "/metrics", "Accept", accept)
		if got := a.header.Get("Content-Type"); got != want+"underscores" {
			t.Errorf("Content-Type %q, want %q", got, want+"underscores")
		}
		if got := a.samples(t); got[`{__name__="prefork_scrape_collector_success", collector="exporter"}`] != 1 {
			t.Errorf("%q: no success of the exporter's collector in %v", accept, got)
		}
	}
}

func TestAClientThatGoesAwayEndsItsAnswer(t *testing.T) {
	h := merging(t, "client_python-0.16.0/basic")
	for _, accept := range []string{"", "application/openmetrics-text;version=1.0.0", acceptProtobuf} {
		r := httptest.NewRequestWithContext(t.Context(), "GET", "/metrics", nil)
		r.Header.Set("Accept", accept)
		h.ServeHTTP(&deaf{header: http.Header{}}, r)
	}
	if len(ask(t, h, "GET", "/metrics").samples(t)) == 0 {
		t.Error("no samples for the next client")
	}
}

// deaf is a connection that is gone.
type deaf struct{ header http.Header }

func (d *deaf) Header() http.Header       { return d.header }
func (d *deaf) WriteHeader(int)           {}
func (d *deaf) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

func TestAnAnswerInOnePieceSaysItsLength(t *testing.T) {
	s := httptest.NewServer(merging(t, "client_python-0.16.0/basic"))
	defer s.Close()
	client := &http.Client{Transport: &http.Transport{DisableCompression: true}}
	defer client.CloseIdleConnections()
	resp, err := client.Get(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if body, err := io.ReadAll(resp.Body); err != nil || resp.ContentLength != int64(len(body)) {
		t.Errorf("Content-Length %d of %d bytes, %v", resp.ContentLength, len(body), err)
	}
}
