package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// service answers requests without a network, and remembers them.
type service struct {
	answer func(*http.Request) (string, error)

	mu   sync.Mutex
	seen []string // method and path
}

// RoundTrip implements http.RoundTripper.
func (s *service) RoundTrip(r *http.Request) (*http.Response, error) {
	s.mu.Lock()
	s.seen = append(s.seen, r.Method+" "+r.URL.RequestURI())
	s.mu.Unlock()
	text, err := s.answer(r)
	if err != nil {
		return nil, err
	}
	return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(strings.NewReader(text)), Request: r}, nil
}

func (s *service) client() *http.Client { return &http.Client{Transport: s} }

func atOnce(*http.Request) (string, error) { return "", nil }

func never(r *http.Request) (string, error) {
	<-r.Context().Done()
	return "", r.Context().Err()
}

func refused(*http.Request) (string, error) { return "", errors.New("refused") }

func TestTrafficIsBounded(t *testing.T) {
	for name, tc := range map[string]struct {
		rate    int
		answer  func(*http.Request) (string, error)
		seen    int
		outcome Sent
	}{
		"all are answered":               {20, atOnce, 200, Sent{Answered: 200}},
		"none is answered":               {20, refused, 200, Sent{Lost: 200}},
		"all hang":                       {20, never, maxInFlight, Sent{}},
		"none is wanted":                 {0, atOnce, 0, Sent{}},
		"as many as there may be":        {MaxRate, atOnce, 10 * MaxRate, Sent{Answered: 10 * MaxRate}},
		"hang, and are few in that time": {1, never, 10, Sent{}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second+time.Microsecond)
				defer cancel()
				s := &service{answer: tc.answer}
				traffic := &Traffic{Client: s.client(), Workers: "http://workers", Rate: tc.rate}
				if got := traffic.Run(ctx); got != tc.outcome {
					t.Errorf("sent %+v, want %+v", got, tc.outcome)
				}
				if len(s.seen) != tc.seen {
					t.Errorf("%d requests, want %d", len(s.seen), tc.seen)
				}
			})
		})
	}
}

func TestARequestTellsItsStartAndSendsItsBody(t *testing.T) {
	s := &service{answer: func(r *http.Request) (string, error) {
		body, err := io.ReadAll(r.Body)
		if start := r.Header.Get("X-Request-Start"); !strings.HasPrefix(start, "t=") || len(body) != 3 {
			t.Errorf("start %q, body %q", start, body)
		}
		return "", err
	}}
	if err := send(t.Context(), s.client(), "http://workers", kind{method: http.MethodPost, path: "/echo", body: 3}); err != nil {
		t.Error(err)
	}
}

func TestEveryKindOfRequestHasItsTurn(t *testing.T) {
	left := kinds()
	for n := range 200 {
		is := nth(n + 1)
		left = slices.DeleteFunc(left, func(k kind) bool { return k == is })
	}
	if len(left) > 0 {
		t.Errorf("not among 200: %v", left)
	}
}

// day is what an operator has done, and when.
type day struct {
	start  time.Time
	mu     sync.Mutex
	events []string
}

func (d *day) note(what string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.events = append(d.events, fmt.Sprintf("%v: %s", time.Since(d.start).Round(time.Second), what))
}

// workersOfTests is a service with one worker, which comes back as soon as it is killed.
func workersOfTests(d *day) (*service, *Operator) {
	pid := 100
	s := &service{}
	s.answer = func(r *http.Request) (string, error) {
		if r.URL.Host == "metrics" {
			d.mu.Lock()
			defer d.mu.Unlock()
			return fmt.Sprintf("# TYPE prefork_worker_pid gauge\nprefork_worker_pid{worker_id=\"0\"} %d\n", pid), nil
		}
		if r.URL.Path != "/leak" {
			d.note(r.URL.RequestURI())
		}
		return "", errors.New("no answer")
	}
	return s, &Operator{
		Client: s.client(), Workers: "http://workers", Metrics: "http://metrics", Round: time.Minute,
		Signal: func(s os.Signal) { d.note(s.String()) },
		Kill: func(killed int) {
			d.note(fmt.Sprintf("kill %d", killed))
			d.mu.Lock()
			defer d.mu.Unlock()
			pid++
		},
		Tell: func(string) {},
	}
}

func TestAnOperatorDoesTheSameInEachRound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &day{start: time.Now()}
		s, o := workersOfTests(d)
		told := 0
		o.Dir, o.Tell = t.TempDir(), func(string) { told++ }
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute-time.Second)
		defer cancel()
		o.Run(ctx)
		want := []string{
			"2s: /crash?code=1", "6s: kill 100", "9s: hangup", "18s: /hang", "24s: stopped (tty input)", "33s: stopped (tty output)",
			"42s: kill 101", "42s: kill 102", "42s: kill 103", "42s: kill 104", "42s: kill 105", "42s: kill 106", "47s: /hang", "52s: /crash?code=0",
			"1m0s: user defined signal 2", "1m2s: /crash?code=1", "1m6s: kill 107", "1m9s: hangup",
		}
		if got := d.events[:min(len(d.events), len(want))]; !slices.Equal(got, want) {
			t.Errorf("it did %q, want %q", got, want)
		}
		if told != 11 {
			t.Errorf("%d lines were told in two rounds, want 11 in the first", told)
		}
		leaks := 0
		for _, request := range s.seen {
			if strings.Contains(request, leakPath) {
				leaks++
			}
		}
		if leaks != 23 {
			t.Errorf("%d leaks in two minutes, want 23", leaks)
		}
	})
}

func TestAnOperatorTellsWhatCannotBeDone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &service{answer: refused}
		var mu sync.Mutex
		var told []string
		o := &Operator{
			Client: s.client(), Workers: "http://workers", Metrics: "http://metrics", Dir: t.TempDir(), Round: time.Minute,
			Signal: func(os.Signal) {}, Kill: func(pid int) { t.Errorf("process %d was killed", pid) },
			Tell: func(line string) {
				mu.Lock()
				defer mu.Unlock()
				told = append(told, line)
			},
		}
		ctx, cancel := context.WithTimeout(t.Context(), 70*time.Second)
		defer cancel()
		o.Run(ctx)
		all := strings.Join(told, "\n")
		for _, want := range []string{"look for the workers: ", "kill worker 0 again and again: ", "there is no worker 0", "have the metric files read: "} {
			if !strings.Contains(all, want) {
				t.Errorf("it told %q, want %q", all, want)
			}
		}
	})
}

func TestAnOperatorDeletesTheFilesOfTheDeadAlone(t *testing.T) {
	dir := t.TempDir()
	dead, self := deadProcess(t), os.Getpid()
	kept := []string{fmt.Sprintf("counter_%d.db", self), fmt.Sprintf("gauge_livesum_%d.db", self), "counter_shop.db", "counter_0.db", "counter_-1.db", "worker_0.lock"}
	for _, name := range append(slices.Clone(kept), fmt.Sprintf("counter_%d.db", dead), fmt.Sprintf("gauge_livesum_%d.db", dead)) {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s := &service{answer: atOnce}
	o := &Operator{Client: s.client(), Metrics: "http://metrics/metrics", Dir: dir}
	if err := o.sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var left []string
	for _, e := range entries {
		left = append(left, e.Name())
	}
	slices.Sort(kept)
	if !slices.Equal(left, kept) {
		t.Errorf("left are %q, want %q", left, kept)
	}
	if !slices.Equal(s.seen, []string{"GET /metrics"}) {
		t.Errorf("requests %q, want a scrape", s.seen)
	}
}

// deadProcess returns the id of a process that has ended.
func deadProcess(t *testing.T) int {
	t.Helper()
	p, err := os.StartProcess("/bin/true", []string{"true"}, &os.ProcAttr{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Wait(); err != nil {
		t.Fatal(err)
	}
	return p.Pid
}

func TestWhoWaitsForAnAnswer(t *testing.T) {
	for name, tc := range map[string]struct {
		refuse int // requests
		want   string
	}{
		"gets it at once":    {0, ""},
		"gets it after some": {7, ""},
		"gets none in time":  {1000, "wait for an answer: "},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				left := tc.refuse
				s := &service{answer: func(*http.Request) (string, error) {
					if left--; left >= 0 {
						return "", syscall.ECONNREFUSED
					}
					return "", nil
				}}
				ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
				defer cancel()
				err := Await(ctx, s.client(), "http://a", "http://b")
				if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.HasPrefix(err.Error(), tc.want)) {
					t.Errorf("Await = %v, want %q", err, tc.want)
				}
			})
		})
	}
}
