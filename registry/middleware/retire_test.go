package middleware_test

import (
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prefork-exporter/prefork_exporter/registry/middleware"
)

func TestAWorkerRetiresOnceAndSaysWhy(t *testing.T) {
	for name, tc := range map[string]struct {
		limits   middleware.Limits
		requests int // until it retires
		want     string
	}{
		"after so many requests":        {middleware.Limits{Requests: 3}, 3, "max_requests"},
		"with so much memory":           {middleware.Limits{Memory: 1, Requests: 100}, 1, "max_memory"},
		"after so long":                 {middleware.Limits{Lifetime: time.Millisecond}, 0, "max_lifetime"},
		"the limit that is there first": {middleware.Limits{Lifetime: time.Hour, Requests: 2}, 2, "max_requests"},
	} {
		t.Run(name, func(t *testing.T) {
			socket := filepath.Join(t.TempDir(), "notify")
			conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close() }()
			t.Setenv("NOTIFY_SOCKET", socket)
			m, _ := open(t)
			reasons := make(chan string, 10)
			tc.limits.Drain = time.Millisecond
			tc.limits.Retire = func(reason string) { reasons <- reason }
			h := middleware.New(m, middleware.Options{Limits: tc.limits})(http.NotFoundHandler())
			for i := range tc.requests {
				answer := httptest.NewRecorder()
				h.ServeHTTP(answer, httptest.NewRequest("GET", "/", nil))
				if len(reasons) > 0 && i < tc.requests-1 || answer.Header().Get("Connection") != "" {
					t.Errorf("it retired after %d requests: %v", i+1, answer.Header())
				}
			}
			if got := <-reasons; got != tc.want {
				t.Errorf("reason %s, want %s", got, tc.want)
			}
			b := make([]byte, 100)
			n, err := conn.Read(b)
			if want := "STOPPING=1\nX_PREFORK_REASON=" + tc.want; err != nil || string(b[:n]) != want {
				t.Errorf("the parent heard %q, %v; want %q", b[:n], err, want)
			}
			answer := httptest.NewRecorder()
			h.ServeHTTP(answer, httptest.NewRequest("GET", "/", nil))
			if len(reasons) > 0 {
				t.Errorf("it retired again: %s", <-reasons)
			}
			if got := answer.Header().Get("Connection"); got != "close" {
				t.Errorf("the client is told %q, want close", got)
			}
		})
	}
}

func TestWorkersThatBeganTogetherRetireApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, _ := open(t)
		began := time.Now()
		times, after := map[time.Duration]bool{}, make(chan time.Duration, 100)
		for range 20 {
			middleware.New(m, middleware.Options{Limits: middleware.Limits{
				Lifetime: time.Hour, LifetimeJitter: time.Hour,
				Retire: func(string) { after <- time.Since(began) },
			}})
		}
		for range 20 {
			d := <-after
			times[d] = true
			if d < time.Hour+time.Second || d > 2*time.Hour+time.Second {
				t.Errorf("a worker retired after %v, want one to two hours", d)
			}
		}
		if len(times) < 15 {
			t.Errorf("20 workers retired at %d times", len(times))
		}
	})
}

func TestJittersWithoutEnd(t *testing.T) {
	m, _ := open(t)
	h := middleware.New(m, middleware.Options{Limits: middleware.Limits{
		Requests: math.MaxInt, RequestsJitter: math.MaxInt, Lifetime: math.MaxInt64, LifetimeJitter: math.MaxInt64,
		Retire: func(reason string) { t.Errorf("it retired: %s", reason) },
	}})(http.NotFoundHandler())
	h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
}

func TestAWorkerThatIsNotToldHowToRetireGetsASignal(t *testing.T) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM)
	defer signal.Stop(signals)
	m, _ := open(t)
	h := middleware.New(m, middleware.Options{Limits: middleware.Limits{Requests: 1, Drain: time.Millisecond}})(http.NotFoundHandler())
	h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
	if got := <-signals; got != syscall.SIGTERM {
		t.Errorf("signal %v, want SIGTERM", got)
	}
}
