package e2e

import (
	"fmt"
	"maps"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/prefork-exporter/prefork_exporter/multiproc/fixture/exposition"
)

// scraped is what a text exposition says: values by series, and the lines
// that tell types and helps.
type scraped struct {
	samples  map[string]float64
	comments []string // sorted
}

func parse(text []byte, contentType string) (scraped, error) {
	samples, err := exposition.Samples(text, contentType)
	if err != nil {
		return scraped{}, err
	}
	e := scraped{samples: samples}
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "# ") {
			e.comments = append(e.comments, strings.TrimSuffix(line, "\n"))
		}
	}
	slices.Sort(e.comments)
	return e, nil
}

// ownPrefix is what the names of the exporter's own families begin with.
const ownPrefix = "prefork_"

// application returns what e says of the application, without the exporter's own families.
func (e scraped) application() scraped {
	out := scraped{samples: maps.Clone(e.samples), comments: slices.Clone(e.comments)}
	maps.DeleteFunc(out.samples, func(s string, _ float64) bool { return isOf(s, ownPrefix) })
	out.comments = slices.DeleteFunc(out.comments, func(c string) bool {
		return strings.HasPrefix(c, "# HELP "+ownPrefix) || strings.HasPrefix(c, "# TYPE "+ownPrefix)
	})
	return out
}

// isOf says whether the name of a series begins with prefix.
func isOf(series, prefix string) bool {
	return strings.HasPrefix(series, `{__name__="`+prefix)
}

// series returns the series of that name and labels, as keys of samples have it.
func series(name string, nameValues ...string) string {
	return exposition.Series(labels.FromStrings(append(nameValues, model.MetricNameLabel, name)...))
}

// same fails the test when two expositions differ.
func same(t *testing.T, what string, got, want scraped) {
	t.Helper()
	if diff := cmp.Diff(want.samples, got.samples, cmpopts.EquateNaNs()); diff != "" {
		t.Errorf("%s: samples (-want +got):\n%s", what, diff)
	}
	if diff := cmp.Diff(want.comments, got.comments); diff != "" {
		t.Errorf("%s: types and helps (-want +got):\n%s", what, diff)
	}
}

// exporter is the program under test as a server.
type exporter struct {
	*process
	*client
	address string
}

// command returns the program with arguments, not started.
func command(args ...string) *exec.Cmd { return exec.Command(program, args...) }

// startExporter starts the program over a metric directory and waits until it serves.
func startExporter(t *testing.T, dir string) *exporter {
	t.Helper()
	address := freeAddress(t)
	return startExporterCommand(t, address, command("--multiproc.dir", dir, "--web.listen-address", address))
}

// startExporterCommand starts the program, which is to listen on address, and
// waits until it serves.
func startExporterCommand(t *testing.T, address string, cmd *exec.Cmd) *exporter {
	t.Helper()
	e := &exporter{process: start(t, cmd), client: newClient(t, "tcp", address), address: address}
	t.Cleanup(func() { e.stopsClean(t) })
	e.awaitPage(t, e.process, "/-/healthy")
	return e
}

// stopsClean fails the test when the exporter does not end well on SIGTERM. One
// that a test has ended before is its own affair.
func (e *exporter) stopsClean(t *testing.T) {
	t.Helper()
	if !e.running() {
		return
	}
	e.signal(syscall.SIGTERM)
	if status := e.status(t); status != 0 {
		t.Errorf("the exporter ended with status %d on SIGTERM", status)
	}
}

// tryScrape returns what /metrics says.
func (e *exporter) tryScrape(query string) (scraped, error) {
	r, err := e.get("/metrics" + query)
	if err != nil {
		return scraped{}, err
	}
	return parse(r.body, r.contentType)
}

// scrape returns what /metrics says.
func (e *exporter) scrape(t *testing.T) scraped {
	t.Helper()
	got, err := e.tryScrape("")
	must(t, err)
	return got
}

// merged returns what `prefork_exporter merge` prints of directories.
func merged(t *testing.T, dirs ...string) scraped {
	t.Helper()
	return output(t, command(append([]string{"merge"}, dirs...)...))
}

// output runs a command that prints an exposition.
func output(t *testing.T, cmd *exec.Cmd) scraped {
	t.Helper()
	var stderr strings.Builder
	cmd.Stderr = &stderr
	cmd.Env = environment(t.TempDir(), cmd.Env)
	text, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", cmd.Args, err, stderr.String())
	}
	got, err := parse(text, exposition.Text)
	if err != nil {
		t.Fatalf("%s: %v", cmd.Args, err)
	}
	return got
}

// rising remembers counters from scrape to scrape.
type rising map[string]float64

// see takes in a scrape, and returns an error that names the counters that have
// fallen or are lost.
func (r rising) see(samples map[string]float64) error {
	var faults []string
	for s, before := range r {
		now, ok := samples[s]
		switch {
		case !ok:
			faults = append(faults, fmt.Sprintf("%s was %v, is lost", s, before))
		case now < before:
			faults = append(faults, fmt.Sprintf("%s was %v, is %v", s, before, now))
		}
	}
	for s, v := range samples {
		if rises(s) {
			r[s] = v
		}
	}
	if faults == nil {
		return nil
	}
	slices.Sort(faults)
	return fmt.Errorf("%d counters fell: %s", len(faults), tail(strings.Join(faults, "; ")))
}

// rises says whether a series of the test applications is a counter, by its name.
func rises(series string) bool {
	name, _, _ := strings.Cut(strings.TrimPrefix(series, `{__name__="`), `"`)
	return slices.ContainsFunc([]string{"_total", "_bucket", "_count", "_sum"}, func(suffix string) bool {
		return strings.HasSuffix(name, suffix)
	})
}

// watch scrapes over and over until the function that it returns is called, at
// least so many times. It fails the test when a scrape fails, or see returns an
// error for what a scrape says of the application.
func (e *exporter) watch(t *testing.T, least int, see func(samples map[string]float64) error) (stop func()) {
	t.Helper()
	var stopping atomic.Bool
	var group sync.WaitGroup
	group.Go(func() {
		for n := 0; n < least || !stopping.Load(); n++ {
			got, err := e.tryScrape("")
			if err == nil {
				err = see(got.application().samples)
			}
			if err != nil {
				t.Errorf("scrape %d: %v", n, err)
				return
			}
		}
	})
	stop = func() {
		stopping.Store(true)
		group.Wait()
	}
	t.Cleanup(stop)
	return stop
}
