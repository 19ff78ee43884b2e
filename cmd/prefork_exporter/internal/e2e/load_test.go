package e2e

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// request is one request to a test application, which counts it by method and
// path, and observes its seconds.
type request struct {
	method, path string
	seconds      float64
}

// plan returns n requests that differ in all that is counted. Their seconds are
// sums of powers of two, so that every order of adding them gives the same.
func plan(n int) []request {
	requests := make([]request, n)
	for i := range requests {
		requests[i] = request{
			method:  []string{http.MethodGet, http.MethodPost, http.MethodGet}[i%3],
			path:    []string{"/", "/a", "/b/c", "/d"}[i%4],
			seconds: []float64{0.125, 0.25, 0.5, 2, 8}[i%5],
		}
	}
	return requests
}

// connections is how many requests are on their way at once.
const connections = 6

// send sends the requests over several connections. All must be answered.
func (c *client) send(t *testing.T, requests []request) {
	t.Helper()
	todo := make(chan request)
	var group sync.WaitGroup
	for range connections {
		group.Go(func() {
			for r := range todo {
				answer, err := c.do(r.method, fmt.Sprintf("%s?seconds=%v", r.path, r.seconds))
				if err != nil || answer.status != http.StatusOK {
					t.Errorf("%s %s: status %d, %v", r.method, r.path, answer.status, err)
				}
			}
		})
	}
	for _, r := range requests {
		todo <- r
	}
	close(todo)
	group.Wait()
}

// language is how a client writes what the test applications count.
type language struct {
	family string   // what the applications' families begin with
	bounds []string // of the histogram's buckets, as le has them
}

func python(family string) language { return language{family, []string{"0.25", "1.0", "4.0", "+Inf"}} }
func ruby(family string) language   { return language{family, []string{"0.25", "1", "4", "+Inf"}} }

// answerBytes is the size of the applications' answers.
const answerBytes = 5

// counted returns the counters, histograms and summaries that must be there
// when the requests have been answered.
func (l language) counted(requests []request) map[string]float64 {
	want := map[string]float64{}
	for _, r := range requests {
		want[series(l.family+"_requests_total", "method", r.method, "path", r.path)]++
		want[series(l.family+"_request_seconds_sum", "path", r.path)] += r.seconds
		want[series(l.family+"_request_seconds_count", "path", r.path)]++
		for i, bound := range []float64{0.25, 1, 4, 1e9} {
			bucket := series(l.family+"_request_seconds_bucket", "path", r.path, "le", l.bounds[i])
			if want[bucket] += 0; r.seconds <= bound {
				want[bucket]++
			}
		}
		want[series(l.family+"_response_bytes_sum")] += answerBytes
		want[series(l.family+"_response_bytes_count")]++
	}
	return want
}

// hasCounted fails the test when the application's counters, histograms and
// summaries are not exactly want.
func (l language) hasCounted(t *testing.T, what string, got scraped, want map[string]float64) {
	t.Helper()
	counters := maps.Clone(got.samples)
	maps.DeleteFunc(counters, func(s string, _ float64) bool { return !isOf(s, l.family+"_") || !rises(s) })
	if diff := cmp.Diff(want, counters); diff != "" {
		t.Errorf("%s: counters (-want +got):\n%s", what, diff)
	}
}

// only returns a copy of a directory with the files that a client wrote alone.
// Ruby's names end in a number of their own.
func only(t *testing.T, dir string, ruby bool) string {
	t.Helper()
	to := t.TempDir()
	for _, name := range fileNames(t, dir) {
		if isRuby := strings.Contains(name, "worker_id_"); isRuby == ruby {
			copyFile(t, dir, name, to)
		}
	}
	return to
}

// and returns both expositions, which have nothing in common.
func (e scraped) and(o scraped) scraped {
	out := scraped{samples: maps.Clone(e.samples), comments: slices.Concat(e.comments, o.comments)}
	maps.Copy(out.samples, o.samples)
	slices.Sort(out.comments)
	return out
}
