package middleware_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/prefork-exporter/prefork_exporter/multiproc"
	"github.com/prefork-exporter/prefork_exporter/registry"
	"github.com/prefork-exporter/prefork_exporter/registry/middleware"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// open opens metrics of worker 0 in a new directory.
func open(t testing.TB) (*registry.Metrics, string) {
	t.Helper()
	dir := t.TempDir()
	m, err := registry.Open(registry.Options{Dir: dir, Worker: "0", OnError: func(err error) { t.Errorf("unexpected: %v", err) }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() })
	return m, dir
}

// merged returns what is counted, without buckets, the label worker_id and zeros.
func merged(t testing.TB, dir string) map[string]float64 {
	t.Helper()
	m := multiproc.New(multiproc.Options{})
	defer m.Close()
	m.SetSources([]multiproc.Source{{Path: dir}})
	s, err := m.Merge(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]float64{}
	for _, f := range s.Families {
		for i, sample := range f.Samples {
			if v := s.Values[f.First+i]; sample.Part != multiproc.PartBucket && v != 0 {
				name := strings.TrimPrefix(f.Name, "prefork_worker_") + sample.Part.Suffix()
				for _, l := range sample.Labels {
					if l.Name != "worker_id" {
						name += " " + l.Value
					}
				}
				out[name] = v
			}
		}
	}
	return out
}

// handlers are what the requests of the tests find.
func handlers() *http.ServeMux {
	mux := http.NewServeMux()
	handle := func(pattern string, h http.HandlerFunc) { mux.HandleFunc(pattern, h) }
	handle("GET /fast/{id}", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") })
	handle("HEAD /head", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "unsent") })
	handle("POST /read", func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) })
	handle("/status/{code}", func(w http.ResponseWriter, r *http.Request) {
		code, _ := strconv.Atoi(r.PathValue("code"))
		w.WriteHeader(http.StatusEarlyHints)
		w.WriteHeader(code)
		w.WriteHeader(http.StatusOK) // too late
	})
	handle("/late", func(w http.ResponseWriter, r *http.Request) {
		<-r.Context().Done()
		w.WriteHeader(http.StatusServiceUnavailable)
	})
	handle("/panic", func(http.ResponseWriter, *http.Request) { panic(errors.New("oh")) })
	handle("/abort", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	handle("/stream", func(w http.ResponseWriter, _ *http.Request) {
		for range 3 {
			_, _ = io.WriteString(w, "part ")
			w.(http.Flusher).Flush()
		}
	})
	handle("/file", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.Copy(w, strings.NewReader(strings.Repeat("x", 100_000)))
	})
	handle("/hijack", func(w http.ResponseWriter, _ *http.Request) {
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		_, _ = rw.WriteString("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nraw")
		_ = rw.Flush()
		_ = conn.Close()
	})
	return mux
}

// serve starts a server of counted handlers, with HTTP/2 on request.
func serve(t *testing.T, h http.Handler, http2 bool) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // panics
	s.EnableHTTP2 = http2
	if http2 {
		s.StartTLS()
	} else {
		s.Start()
	}
	t.Cleanup(s.Close)
	return s
}

func TestWhatARequestCounts(t *testing.T) {
	type counts map[string]float64
	for name, tc := range map[string]struct {
		method, path string
		body         func() io.Reader
		header       string // X-Request-Start
		want         counts // besides one request and its duration
		http1        bool   // HTTP/2 cannot
	}{
		"an answer":                {method: "GET", path: "/fast/7", want: counts{"response_size_bytes_sum": 5}},
		"no body of HEAD":          {method: "HEAD", path: "/head", want: counts{}},
		"a body of known length":   {method: "POST", path: "/read", body: func() io.Reader { return strings.NewReader("12345") }, want: counts{"request_size_bytes_sum": 5}},
		"a body of unknown length": {method: "POST", path: "/read", body: func() io.Reader { return io.MultiReader(strings.NewReader("1234567")) }, want: counts{"request_size_bytes_sum": 7}},
		"what is not found":        {method: "GET", path: "/a", want: counts{"response_size_bytes_sum": 19}},
		"an answer in parts":       {method: "GET", path: "/stream", want: counts{"response_size_bytes_sum": 15}},
		"what is copied":           {method: "GET", path: "/file", want: counts{"response_size_bytes_sum": 100_000}},
		"a client's error":         {method: "GET", path: "/status/404", want: counts{}},
		"a server's error":         {method: "GET", path: "/status/500", want: counts{"failed_requests_total /status/{code} RequestError GET": 1}},
		"a gateway's timeout":      {method: "PUT", path: "/status/504", want: counts{"failed_requests_total /status/{code} TimeoutError PUT": 1}},
		"a deadline that is over":  {method: "GET", path: "/late", want: counts{"failed_requests_total /late TimeoutError GET": 1}},
		"a method nobody knows":    {method: "BREW", path: "/status/500", want: counts{"failed_requests_total /status/{code} RequestError OTHER": 1}},
		"a length that is a lie": {method: "POST", path: "/nowhere", body: func() io.Reader { return strings.NewReader("123") },
			want: counts{"response_size_bytes_sum": 19}},
		"another protocol":           {method: "GET", path: "/status/101", http1: true, want: counts{}},
		"a panic":                    {method: "GET", path: "/panic", want: counts{"failed_requests_total /panic Panic GET": 1}},
		"an answer that was aborted": {method: "GET", path: "/abort", want: counts{}},
		"a connection that was taken over": {method: "GET", path: "/hijack", http1: true,
			want: counts{"request_size_bytes_count": 0, "response_size_bytes_count": 0}},
		"a proxy's clock that is ahead": {method: "GET", path: "/fast/1", header: "t=" + strconv.FormatInt(time.Now().Add(time.Hour).UnixMilli(), 10),
			want: counts{"request_queue_seconds_count": 1, "response_size_bytes_sum": 5}},
	} {
		for _, http2 := range []bool{false, true} {
			if http2 && tc.http1 {
				continue
			}
			t.Run(fmt.Sprintf("%s/HTTP2=%v", name, http2), func(t *testing.T) {
				m, dir := open(t)
				count := middleware.New(m, middleware.Options{})
				done := make(chan bool, 1)
				deadline := func(next http.Handler) http.Handler {
					return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						ctx, cancel := context.WithTimeout(r.Context(), 50*time.Millisecond)
						defer cancel()
						defer func() { done <- true }()
						next.ServeHTTP(w, r.WithContext(ctx))
					})
				}
				var body io.Reader
				if tc.body != nil {
					body = tc.body()
				}
				s := serve(t, deadline(count(handlers())), http2)
				request(t, s, tc.method, tc.path, body, tc.header)
				<-done
				want := counts{"requests_total": 1, "request_duration_seconds_count": 1, "request_size_bytes_count": 1, "response_size_bytes_count": 1}
				for series, v := range tc.want {
					if want[series] = v; v == 0 {
						delete(want, series)
					}
				}
				got := counts(merged(t, dir))
				if got["request_duration_seconds_sum"] <= 0 {
					t.Errorf("a request took %v seconds", got["request_duration_seconds_sum"])
				}
				if got["memory_bytes"] < 1<<20 || got["uptime_seconds"] <= 0 {
					t.Errorf("memory %v, uptime %v", got["memory_bytes"], got["uptime_seconds"])
				}
				for _, series := range []string{"request_duration_seconds_sum", "memory_bytes", "uptime_seconds"} {
					delete(got, series)
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("counted (-want +got):\n%s", diff)
				}
			})
		}
	}
}

// request sends a request and reads the answer, if there is one.
func request(t *testing.T, s *httptest.Server, method, path string, body io.Reader, start string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, s.URL+path, body)
	if err != nil {
		t.Fatal(err)
	}
	if start != "" {
		r.Header.Set("X-Request-Start", start)
	}
	answer, err := s.Client().Do(r)
	if err != nil {
		return // a panic
	}
	_, _ = io.Copy(io.Discard, answer.Body)
	_ = answer.Body.Close()
	s.Client().CloseIdleConnections()
}

func TestRequestsAreInProgressUntilTheirHandlerIsDone(t *testing.T) {
	m, dir := open(t)
	begun, end := make(chan bool), make(chan bool)
	h := middleware.New(m, middleware.Options{})(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		begun <- true
		<-end
	}))
	done := make(chan bool)
	for range 2 {
		go func() {
			h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
			done <- true
		}()
		<-begun
	}
	if got := merged(t, dir)["requests_in_progress"]; got != 2 {
		t.Errorf("%v in progress, want 2", got)
	}
	end <- true
	<-done
	if got := merged(t, dir); got["requests_in_progress"] != 1 || got["requests_total"] != 1 {
		t.Errorf("%v in progress and %v done, want 1 and 1", got["requests_in_progress"], got["requests_total"])
	}
	end <- true
	<-done
}

func TestRoutesComeFromWhoeverKnowsThem(t *testing.T) {
	m, dir := open(t)
	count := middleware.New(m, middleware.Options{Route: func(r *http.Request) string { return r.Header.Get("Route") }})
	h := count(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) }))
	for _, route := range []string{"/users/:id", ""} {
		r := httptest.NewRequest("GET", "/users/7", nil)
		r.Header.Set("Route", route)
		h.ServeHTTP(httptest.NewRecorder(), r)
	}
	got := merged(t, dir)
	for _, series := range []string{"failed_requests_total /users/:id RequestError GET", "failed_requests_total unmatched RequestError GET"} {
		if got[series] != 1 {
			t.Errorf("%s is %v, want 1", series, got[series])
		}
	}
}

func TestAPanicPassesOn(t *testing.T) {
	m, _ := open(t)
	h := middleware.New(m, middleware.Options{})(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("oh") }))
	defer func() {
		if p := recover(); p != "oh" {
			t.Errorf("panic %v, want oh", p)
		}
	}()
	h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
}

// plain is a writer without any of the optional interfaces.
type plain struct{ http.ResponseWriter }

// flushing is one that only flushes.
type flushing struct {
	http.ResponseWriter
	http.Flusher
}

func TestAHandlerSeesTheOptionalInterfacesThatTheServerHas(t *testing.T) {
	m, _ := open(t)
	recorder := httptest.NewRecorder()
	for name, tc := range map[string]struct {
		w              http.ResponseWriter
		flush, hijacks bool
	}{
		"none":   {plain{recorder}, false, false},
		"a few":  {flushing{recorder, recorder}, true, false},
		"HTTP/1": {nil, true, true}, // the server's own
	} {
		t.Run(name, func(t *testing.T) {
			h := middleware.New(m, middleware.Options{})(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				_, flush := w.(http.Flusher)
				_, hijacks := w.(http.Hijacker)
				_, reads := w.(io.ReaderFrom)
				if flush != tc.flush || hijacks != tc.hijacks || reads != tc.hijacks {
					t.Errorf("flushes %v, hijacks %v, reads %v; want %v, %v, %v", flush, hijacks, reads, tc.flush, tc.hijacks, tc.hijacks)
				}
			}))
			if tc.w != nil {
				h.ServeHTTP(tc.w, httptest.NewRequest("GET", "/", nil))
				return
			}
			request(t, serve(t, h, false), "GET", "/", nil, "")
		})
	}
}

func TestWhatIsHijackedAndStreamedReachesTheClient(t *testing.T) {
	m, _ := open(t)
	s := serve(t, middleware.New(m, middleware.Options{})(handlers()), false)
	for path, want := range map[string]string{"/hijack": "raw", "/stream": "part part part "} {
		answer, err := s.Client().Get(s.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(bufio.NewReader(answer.Body))
		if err != nil || string(b) != want {
			t.Errorf("%s: %q, %v; want %q", path, b, err, want)
		}
		_ = answer.Body.Close()
	}
}

// A server deletes the files of a form when its request is done, and finds trailers:
// both in the request that it made.
func TestTheServerFindsItsRequestAgain(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	m, _ := open(t)
	var trailer string
	h := middleware.New(m, middleware.Options{})(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if err := r.ParseMultipartForm(0); err != nil {
			t.Error(err)
		}
		_, _ = io.Copy(io.Discard, r.Body)
		trailer = r.Trailer.Get("X-Sum")
	}))
	for _, http2 := range []bool{false, true} {
		s := serve(t, h, http2)
		var form bytes.Buffer
		parts := multipart.NewWriter(&form)
		file, err := parts.CreateFormFile("f", "name")
		if err == nil {
			_, err = file.Write(bytes.Repeat([]byte("x"), 1<<20))
		}
		if err := errors.Join(err, parts.Close()); err != nil {
			t.Fatal(err)
		}
		r, err := http.NewRequestWithContext(t.Context(), "POST", s.URL, io.MultiReader(&form)) // of unknown length
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", parts.FormDataContentType())
		r.Trailer = http.Header{"X-Sum": {"7"}}
		answer, err := s.Client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = answer.Body.Close()
		s.Close() // the request is done
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 || trailer != "7" {
			t.Errorf("HTTP/2 %v: files left %v, %v; trailer %q, want 7", http2, left, err, trailer)
		}
	}
}

// broken is a writer whose client is gone.
type broken struct{ http.ResponseWriter }

func (broken) Flush()                      {}
func (broken) FlushError() error           { return errors.New("broken pipe") }
func (broken) Unwrap() http.ResponseWriter { return nil }

func TestAHandlerHearsThatItsClientIsGone(t *testing.T) {
	m, _ := open(t)
	var err error
	h := middleware.New(m, middleware.Options{})(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		err = http.NewResponseController(w).Flush()
	}))
	h.ServeHTTP(broken{httptest.NewRecorder()}, httptest.NewRequest("GET", "/", nil))
	if err == nil || err.Error() != "broken pipe" {
		t.Errorf("error %v, want that of the server", err)
	}
}

func TestAHandlerReachesTheServerThroughItsController(t *testing.T) {
	m, _ := open(t)
	h := middleware.New(m, middleware.Options{})(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if err := http.NewResponseController(w).SetWriteDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Error(err)
		}
	}))
	request(t, serve(t, h, false), "GET", "/", nil, "")
}

func BenchmarkRequest(b *testing.B) {
	m, _ := open(b)
	handler := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	mux := http.NewServeMux()
	mux.Handle("GET /{id}", handler)
	for name, h := range map[string]http.Handler{"plain": mux, "counted": middleware.New(m, middleware.Options{})(mux)} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			w, r := &silent{http.Header{}}, httptest.NewRequest("GET", "/7", nil)
			r.Header.Set("X-Request-Start", fmt.Sprintf("t=%d", time.Now().UnixMilli()))
			for b.Loop() {
				h.ServeHTTP(w, r)
			}
		})
	}
}

// silent is a writer that does nothing.
type silent struct{ header http.Header }

func (s *silent) Header() http.Header         { return s.header }
func (s *silent) WriteHeader(int)             {}
func (s *silent) Write(b []byte) (int, error) { return len(b), nil }

func ExampleNew() {
	dir := filepath.Join(os.TempDir(), "metrics-of-middleware")
	defer func() { _ = os.RemoveAll(dir) }()
	metrics, err := registry.Shared(dir)
	if err != nil {
		fmt.Println(err)
		return
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /users/{id}", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.PathValue("id")) })
	count := middleware.New(metrics, middleware.Options{
		Limits: middleware.Limits{Requests: 10_000, RequestsJitter: 1000}, // then SIGTERM to itself
	})
	count(mux).ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/users/7", nil))
	fmt.Println(metrics.WorkerRequests.WithLabelValues(metrics.Worker()).Value(), metrics.Close())
	// Output: 1 <nil>
}
