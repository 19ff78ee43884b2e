package e2e

import (
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// awaitApplication waits until a scrape says exactly want of the application.
func (e *exporter) awaitApplication(t *testing.T, want map[string]float64) {
	t.Helper()
	awaitNil(t, "a scrape of the application", func() error {
		if diff := cmp.Diff(want, e.scrape(t).application().samples); diff != "" {
			return fmt.Errorf("samples (-want +got):\n%s", diff)
		}
		return nil
	})
}

func TestExporterStartsBeforeItsDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "later", "metrics")
	e := startExporter(t, dir)
	got := e.scrape(t)
	if up := got.samples[series("prefork_up")]; up != 0 {
		t.Errorf("prefork_up = %v without a directory", up)
	}
	e.awaitPage(t, e.process, "/-/ready")
	must(t, os.MkdirAll(dir, 0o755))
	writeFile(t, dir, "counter_1.db", fileBytes(jobs("mail", 3)))
	e.awaitApplication(t, map[string]float64{jobsSeries("mail"): 3})
	if up := e.scrape(t).samples[series("prefork_up")]; up != 1 {
		t.Errorf("prefork_up = %v with a directory", up)
	}
}

// A generation of processes is gone with its directory: all of its counters
// begin anew together. Until then they stay.
func TestExporterFollowsADirectoryThatIsMadeAnew(t *testing.T) {
	before := map[string]float64{jobsSeries("mail"): 1100, jobsSeries("print"): 50}
	after := map[string]float64{jobsSeries("mail"): 7, jobsSeries("print"): 5}
	fill := func(t *testing.T, dir string) {
		writeFile(t, dir, "counter_3.db", fileBytes(jobs("mail", 3)))
		writeFile(t, dir, "counter_4.db", fileBytes(jobs("mail", 4), jobs("print", 5)))
	}
	for name, renew := range map[string]func(t *testing.T, dir string) error{
		"removed": func(t *testing.T, dir string) error {
			if err := os.RemoveAll(dir); err != nil {
				return err
			}
			err := os.Mkdir(dir, 0o755)
			fill(t, dir)
			return err
		},
		"emptied": func(t *testing.T, dir string) error {
			for _, name := range fileNames(t, dir) {
				if err := os.Remove(filepath.Join(dir, name)); err != nil {
					return err
				}
			}
			fill(t, dir)
			return nil
		},
		"replaced by another": func(t *testing.T, dir string) error {
			next := t.TempDir()
			fill(t, next)
			if err := os.Rename(dir, filepath.Join(t.TempDir(), "old")); err != nil {
				return err
			}
			return os.Rename(next, dir)
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "metrics")
			must(t, os.Mkdir(dir, 0o755))
			writeFile(t, dir, "counter_1.db", fileBytes(jobs("mail", 100), jobs("print", 50)))
			writeFile(t, dir, "counter_2.db", fileBytes(jobs("mail", 1000)))
			e := startExporter(t, dir)
			e.awaitApplication(t, before)
			stop := e.watch(t, 20, wholeRestart(before, after))
			must(t, renew(t, dir))
			e.awaitApplication(t, after)
			stop()
		})
	}
}

// wholeRestart returns a check of scrapes of a generation that counted before,
// until another that counts up to after takes its place: no scrape may have a
// part of both.
func wholeRestart(before, after map[string]float64) func(map[string]float64) error {
	old, counters := true, rising{}
	return func(samples map[string]float64) error {
		if old && maps.Equal(samples, before) {
			return nil
		}
		old = false
		for s, v := range samples {
			if v > after[s] {
				return fmt.Errorf("%s is %v: neither the old generation's whole nor the new one's; all: %v", s, v, samples)
			}
		}
		return counters.see(samples)
	}
}

// The live gauges of the last worker that has any go with it, and come again
// with the next worker, which lays them out in the same way.
func TestExporterFollowsAFamilyThatGoesAndComesAgain(t *testing.T) {
	dir := t.TempDir()
	busy := func(n float64) []byte { return fileBytes(metric{"busy", "busy", "{}", n}) }
	writeFile(t, dir, "counter_1.db", fileBytes(jobs("mail", 3)))
	writeFile(t, dir, "gauge_livesum_1.db", busy(5))
	e := startExporter(t, dir)
	e.awaitApplication(t, map[string]float64{jobsSeries("mail"): 3, series("busy"): 5})
	must(t, os.Remove(filepath.Join(dir, "gauge_livesum_1.db")))
	e.awaitApplication(t, map[string]float64{jobsSeries("mail"): 3})
	writeFile(t, dir, "gauge_livesum_2.db", busy(7))
	e.awaitApplication(t, map[string]float64{jobsSeries("mail"): 3, series("busy"): 7})
}

// A client that never ends its request does not hold up the end.
func TestExporterStopsOnSIGTERM(t *testing.T) {
	e := startExporter(t, t.TempDir())
	c, err := net.Dial("tcp", e.address)
	must(t, err)
	defer func() { _ = c.Close() }()
	if _, err := c.Write([]byte("GET /metrics HTTP/1.1\r\n")); err != nil {
		t.Fatal(err)
	}
	e.signal(syscall.SIGTERM)
	if status := e.status(t); status != 0 {
		t.Errorf("status %d, want 0", status)
	}
}

func TestExporterServesOnAfterSIGHUP(t *testing.T) {
	home, first, second := t.TempDir(), t.TempDir(), t.TempDir()
	writeFile(t, first, "counter_1.db", fileBytes(jobs("mail", 3)))
	writeFile(t, second, "counter_1.db", fileBytes(jobs("mail", 4)))
	config := func(dirs string) {
		writeFile(t, home, "config.yml", []byte("targets: [{name: app, multiproc: {dirs: ["+dirs+"]}}]\n"))
	}
	config(first)
	address := freeAddress(t)
	cmd := command("--config.file", filepath.Join(home, "config.yml"), "--web.listen-address", address)
	e := startExporterCommand(t, address, cmd)
	e.awaitApplication(t, map[string]float64{jobsSeries("mail"): 3})

	config(first + ", " + second)
	e.signal(syscall.SIGHUP)
	e.awaitApplication(t, map[string]float64{jobsSeries("mail"): 7})

	writeFile(t, home, "config.yml", []byte("tarets: []\n"))
	e.signal(syscall.SIGHUP)
	await(t, "a reload that is refused", func() bool {
		got := e.scrape(t)
		if diff := cmp.Diff(map[string]float64{jobsSeries("mail"): 7}, got.application().samples); diff != "" {
			t.Fatalf("while a reload is refused (-want +got):\n%s", diff)
		}
		return got.samples[series("prefork_exporter_config_last_reload_successful")] == 0
	})
}

func TestExporterServesOnAUnixSocket(t *testing.T) {
	dir := openDir(t)
	socket := filepath.Join(dir, "exporter.sock")
	writeFile(t, dir, "counter_1.db", fileBytes(jobs("mail", 3)))
	e := &exporter{
		process: start(t, command("--multiproc.dir", dir, "--web.listen-address", "unix:"+socket)),
		client:  newClient(t, "unix", socket),
	}
	e.awaitPage(t, e.process, "/-/healthy")
	e.awaitApplication(t, map[string]float64{jobsSeries("mail"): 3})
	e.stopsClean(t)
	if _, err := os.Lstat(socket); !os.IsNotExist(err) {
		t.Errorf("the socket is left behind: %v", err)
	}
}

// What the files have is there again, and so is what a deleted file had counted.
// Fractions are added in another order then: they may rise by that, and not fall.
func TestExporterServesTheSameAfterItWasKilled(t *testing.T) {
	dir, state := t.TempDir(), t.TempDir()
	want := map[string]float64{jobsSeries("mail"): 210, jobsSeries("print"): 21}
	for id := 1; id <= 20; id++ {
		n := float64(id)
		writeFile(t, dir, fmt.Sprintf("counter_%d.db", id), fileBytes(jobs("mail", n), jobs("print", 0.1*n)))
	}
	run := func() *exporter {
		address := freeAddress(t)
		return startExporterCommand(t, address,
			command("--multiproc.dir", dir, "--state.dir", state, "--web.listen-address", address))
	}
	counters := rising{}
	scrape := func(e *exporter, when string) {
		got := e.scrape(t).application().samples
		if err := counters.see(got); err != nil {
			t.Errorf("%s: %v", when, err)
		}
		if diff := cmp.Diff(want, got, cmpopts.EquateApprox(0, 1e-9)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", when, diff)
		}
	}
	first := run()
	scrape(first, "first scrape")
	must(t, os.Remove(filepath.Join(dir, "counter_7.db")))
	scrape(first, "scrape after a file was deleted")
	await(t, "the state of the deleted file", func() bool {
		saved, err := filepath.Glob(filepath.Join(state, "*.json"))
		return err == nil && len(saved) > 0
	})
	first.signal(syscall.SIGKILL)
	first.status(t)
	scrape(run(), "scrape after the kill")
}

func TestExporterThatCannotStartSaysWhyInOneLine(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer func() { _ = taken.Close() }()
	dir := t.TempDir()
	writeFile(t, dir, "config.yml", []byte("targets:\n  - nam: app\n"))
	for name, tc := range map[string]struct {
		args   []string
		status int
		want   string // a part of the line
	}{
		"a port in use": {
			[]string{"--multiproc.dir", dir, "--web.listen-address", taken.Addr().String()}, 1, taken.Addr().String(),
		},
		"a flag that nobody knows":     {[]string{"--multiproc.dri", dir}, 2, "--multiproc.dri"},
		"a value that cannot be":       {[]string{"--multiproc.dir", dir, "--web.max-requests", "many"}, 2, "--web.max-requests"},
		"an argument too many":         {[]string{"--multiproc.dir", dir, "more"}, 2, "more"},
		"no directory":                 {nil, 2, "--multiproc.dir"},
		"a config key that is unknown": {[]string{"--config.file", filepath.Join(dir, "config.yml")}, 1, "config.yml:2"},
	} {
		t.Run(name, func(t *testing.T) {
			p := start(t, command(tc.args...))
			if status := p.status(t); status != tc.status {
				t.Errorf("status %d, want %d", status, tc.status)
			}
			if out := p.output(t, p.stdout); out != "" {
				t.Errorf("stdout: %q, want none", out)
			}
			line := p.output(t, p.stderr)
			if strings.Count(line, "\n") != 1 || !strings.Contains(line, tc.want) {
				t.Errorf("stderr: %q, want one line that names %q", line, tc.want)
			}
		})
	}
}
