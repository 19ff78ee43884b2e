package writer_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/prefork-exporter/prefork_exporter/multiproc/fixture"
	"github.com/prefork-exporter/prefork_exporter/multiproc/writer"
)

// faults collects what a writer reports.
type faults struct {
	mu   sync.Mutex
	errs []error
}

func (f *faults) add(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.errs = append(f.errs, err)
}

// check returns an error unless one error with that text was reported; none, if it is empty.
func (f *faults) check(want string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if want == "" && len(f.errs) == 0 || want != "" && len(f.errs) == 1 && strings.Contains(f.errs[0].Error(), want) {
		return nil
	}
	return fmt.Errorf("errors %v, want one with %q", f.errs, want)
}

func (f *faults) want(t *testing.T, text string) {
	t.Helper()
	if err := f.check(text); err != nil {
		t.Error(err)
	}
}

func TestAFileThatAnotherProgramDamagesIsAnErrorAndCountingGoesOn(t *testing.T) {
	overwrite := func(b []byte, at int64) func(*testing.T, string) {
		return func(t *testing.T, path string) {
			f, err := os.OpenFile(path, os.O_WRONLY, 0)
			if err == nil {
				_, err = f.WriteAt(b, at)
			}
			if err != nil {
				t.Fatal(err)
			}
			_ = f.Close()
		}
	}
	cut := func(size int64) func(*testing.T, string) {
		return func(t *testing.T, path string) {
			if err := os.Truncate(path, size); err != nil {
				t.Fatal(err)
			}
		}
	}
	random := make([]byte, 64<<10)
	for i := range random {
		random[i] = byte(rand.Uint32())
	}
	for name, tc := range map[string]struct {
		damage func(t *testing.T, path string)
		want   string
	}{
		"cut to nothing":                  {cut(0), "another program has cut it"},
		"cut to the first page":           {cut(4096), "another program has cut it"},
		"cut, and made as long again":     {func(t *testing.T, p string) { cut(0)(t, p); cut(64<<10)(t, p) }, "another program has written it"},
		"zeroed":                          {overwrite(make([]byte, 64<<10), 0), "another program has written it"},
		"written all over":                {overwrite(random, 0), "another program has written it"},
		"a header that claims too much":   {overwrite([]byte{0xff, 0xff, 0xff, 0x7f}, 0), "another program has written it"},
		"a header that claims too little": {overwrite([]byte{8, 0, 0, 0}, 0), "another program has written it"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			var f faults
			w, err := writer.Open(writer.Options{Dir: dir, ID: "1", OnError: f.add})
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := w.Close(); err != nil {
					t.Error(err)
				}
			}()
			c := w.NewCounterVec(writer.Opts{Name: "a_total"}, []string{"i"})
			for i := range 200 { // more than a page
				c.WithLabelValues(fmt.Sprint(i)).Inc()
			}
			tc.damage(t, filepath.Join(dir, "counter_1.db"))
			var group sync.WaitGroup
			for range 4 {
				group.Go(func() {
					for i := range 250 { // 50 of them new
						c.WithLabelValues(fmt.Sprint(i)).Add(2)
					}
				})
			}
			group.Wait()
			f.want(t, tc.want)
			before := c.WithLabelValues("249").Value()
			c.WithLabelValues("249").Inc()
			if got := c.WithLabelValues("249").Value(); before != 8 || got != 9 {
				t.Errorf("a new series counted %v, and %v after one more; want 8 and 9", before, got)
			}
		})
	}
}

func TestEachWayToCountSurvivesACutFile(t *testing.T) {
	dir := t.TempDir()
	var f faults
	w, err := writer.Open(writer.Options{Dir: dir, ID: "1", OnError: f.add})
	if err != nil {
		t.Fatal(err)
	}
	c := w.NewCounter(writer.Opts{Name: "c_total"})
	g := w.NewGauge(writer.GaugeOpts{Opts: writer.Opts{Name: "g"}, Mode: writer.ModeMostRecent})
	h := w.NewHistogram(writer.HistogramOpts{Opts: writer.Opts{Name: "h"}})
	s := w.NewSummary(writer.Opts{Name: "s"})
	for name, do := range map[string]func(){
		"counter_1.db": c.Inc, "gauge_mostrecent_1.db": func() { g.Set(1) }, "histogram_1.db": func() { h.Observe(1) }, "summary_1.db": func() { s.Observe(1) },
	} {
		f.errs = nil
		if err := os.Truncate(filepath.Join(dir, name), 0); err != nil {
			t.Fatal(err)
		}
		do()
		do()
		f.want(t, "another program has cut it")
	}
	if c.Value() != 1 || g.Value() != 1 {
		t.Errorf("in memory: counter %v, gauge %v; want 1 each: the access that found the file cut is lost", c.Value(), g.Value())
	}
}

func TestAPanicThatIsNotOursPassesOn(t *testing.T) {
	defer func() {
		if p := fmt.Sprint(recover()); !strings.Contains(p, "nil pointer") {
			t.Errorf("panic %q, want that of a nil pointer", p)
		}
	}()
	var c *writer.Counter
	c.Inc()
}

func TestWhoIsToldOfAnErrorMayCount(t *testing.T) {
	for name, damage := range map[string]func(t *testing.T, path string){
		"a file that was cut": func(t *testing.T, path string) {
			if err := os.Truncate(path, 0); err != nil {
				t.Fatal(err)
			}
		},
		"a file that was deleted": func(t *testing.T, path string) {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			var errors *writer.CounterVec
			w, err := writer.Open(writer.Options{Dir: dir, ID: "1", OnError: func(error) { errors.WithLabelValues("told").Inc() }})
			if err != nil {
				t.Fatal(err)
			}
			errors = w.NewCounterVec(writer.Opts{Name: "errors_total"}, []string{"kind"})
			errors.WithLabelValues("old").Inc()
			damage(t, filepath.Join(dir, "counter_1.db"))
			errors.WithLabelValues("old").Inc()
			errors.WithLabelValues("new").Inc()
			if got := errors.WithLabelValues("told").Value(); got != 1 {
				t.Errorf("%v errors counted, want 1", got)
			}
		})
	}
}

// Who is told of an error and takes long keeps nobody from counting.
func TestWhoIsToldOfAnErrorMayTakeLong(t *testing.T) {
	dir, told, goOn := t.TempDir(), make(chan bool), make(chan bool)
	w, err := writer.Open(writer.Options{Dir: dir, ID: "1", OnError: func(error) { told <- true; <-goOn }})
	if err != nil {
		t.Fatal(err)
	}
	c := w.NewCounterVec(writer.Opts{Name: "a_total"}, []string{"i"})
	c.WithLabelValues("old").Inc()
	if err := os.Remove(filepath.Join(dir, "counter_1.db")); err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	group.Go(func() { c.WithLabelValues("new").Inc() })
	<-told
	c.WithLabelValues("old").Inc()
	c.WithLabelValues("newer").Inc()
	close(goOn)
	group.Wait()
	for i, want := range map[string]float64{"old": 2, "new": 1, "newer": 1} {
		if got := c.WithLabelValues(i).Value(); got != want {
			t.Errorf("%s counted %v, want %v", i, got, want)
		}
	}
}

// Parts of a metric in the file and parts in memory would contradict each other.
func TestAMetricFindsRoomWholeOrNotAtAll(t *testing.T) {
	dir := t.TempDir()
	var f faults
	w, err := writer.Open(writer.Options{Dir: dir, ID: "1", OnError: f.add})
	if err != nil {
		t.Fatal(err)
	}
	bounds := []float64{1}
	h := w.NewHistogramVec(writer.HistogramOpts{Opts: writer.Opts{Name: "h"}, Buckets: bounds}, []string{"x"})
	h.WithLabelValues("small").Observe(1)
	long := strings.Repeat("x", 1<<20-len(`["h", "h_sum", {"x": ""}, ""]`)) // a sum has room, buckets have not
	h.WithLabelValues(long).Observe(1)
	h.WithLabelValues("after").Observe(1)
	f.want(t, "no reader takes more than")
	got := merged(t, dir)
	if len(got) != 8 || got["h_count{x=small}"] != 1 || got["h_count{x=after}"] != 1 {
		t.Errorf("merged %d series, want two histograms: %.300q", len(got), fmt.Sprint(got))
	}

	continued := "y" + long[1:]
	sum := w.Sample(writer.SampleOpts{Kind: "histogram", Family: "h", Name: "h_sum", Labels: writer.Labels{"x": continued}})
	h.WithLabelValues(continued).Observe(1)
	if sum.Value() != 0 {
		t.Errorf("the sum in the file is %v, its buckets are in memory", sum.Value())
	}
}

// What stands where a file should be costs that file, once, and no memory.
func TestWhatIsInTheWay(t *testing.T) {
	must := func(t *testing.T, err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, tc := range map[string]struct {
		make func(t *testing.T, path string)
		want string // empty: it is set aside
	}{
		"a directory": {func(t *testing.T, p string) { must(t, os.Mkdir(p, 0o755)) }, "is a directory"},
		"a link": {func(t *testing.T, p string) {
			must(t, os.WriteFile(p+".target", nil, 0o600))
			must(t, os.Symlink(p+".target", p))
		}, "too many levels of symbolic links"},
		"a pipe":      {func(t *testing.T, p string) { must(t, unix.Mkfifo(p, 0o600)) }, ""},
		"a huge hole": {func(t *testing.T, p string) { must(t, os.WriteFile(p, nil, 0o600)); must(t, os.Truncate(p, 8e12)) }, ""},
		"three bytes": {func(t *testing.T, p string) { must(t, os.WriteFile(p, []byte{1, 2, 3}, 0o600)) }, "continued"},
		"an odd length": {func(t *testing.T, p string) {
			must(t, os.WriteFile(p, append([]byte{8, 0, 0, 0}, make([]byte, 70_000)...), 0o600))
		}, "continued"},
		"an empty file": {func(t *testing.T, p string) { must(t, os.WriteFile(p, nil, 0o600)) }, "continued"},
		"a false header": {func(t *testing.T, p string) {
			must(t, os.WriteFile(p, []byte{0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0}, 0o600))
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "counter_1.db")
			tc.make(t, path)
			var f faults
			w, err := writer.Open(writer.Options{Dir: dir, ID: "1", OnError: f.add})
			must(t, err)
			c := w.NewCounterVec(writer.Opts{Name: "a_total"}, []string{"i"})
			for i := range 2000 {
				c.WithLabelValues(fmt.Sprint(i)).Inc()
			}
			must(t, w.Close())
			_, err = os.Lstat(filepath.Join(dir, "counter_1-1.db"))
			if aside := err == nil; aside != (tc.want == "") {
				t.Errorf("set aside: %v", aside)
			}
			if tc.want == "" || tc.want == "continued" {
				f.want(t, "")
				if b, err := os.ReadFile(path); err != nil || !bytes.Contains(b, []byte(`{"i": "1999"}`)) {
					t.Errorf("the file lacks a series: %v", err)
				}
				return
			}
			f.want(t, tc.want)
		})
	}
}

// Workers that start together where an earlier one left a file, each the first
// process of its container, lose nothing of each other.
func TestManyWithOneProcessIDStartTogether(t *testing.T) {
	need(t, "unshare")
	const workers = 8
	for range 3 {
		dir := t.TempDir()
		b, err := os.ReadFile(filepath.Join(fixture.Unpack(t, filepath.Join("client_python-HEAD", "basic", "db.tar.gz")), "db", "counter_101.db"))
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, "counter_1.db"), b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		before := merged(t, dir)["jobs_total{}"]
		var group sync.WaitGroup
		for range workers {
			cmd := play(t, "once", dir, "unshare", "--map-root-user", "--pid", "--fork")
			group.Go(func() {
				if out, err := cmd.CombinedOutput(); err != nil {
					t.Errorf("%v: %s", err, out)
				}
			})
		}
		group.Wait()
		got := merged(t, dir)
		if got["once_total{}"] != workers || got["jobs_total{}"] != before || before == 0 {
			t.Errorf("%v counted by %d workers, and %v of %v left of what was there", got["once_total{}"], workers, got["jobs_total{}"], before)
		}
	}
}

// What cannot be continued is kept for readers, and a new file begun.
func TestAFileThatCannotBeContinuedIsSetAside(t *testing.T) {
	for name, content := range map[string][]byte{
		"noise": bytes.Repeat([]byte("noise!?\n"), 9),
		"era C": append([]byte{48, 0, 0, 0, 0, 0, 0, 0, 23, 0, 0, 0}, "[\"a\", \"a_total\", {}, \"\"]     \x00\x00\x00\x00\x00\x00\xf0\x3f"...),
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "counter_1.db"), content, 0o600); err != nil {
				t.Fatal(err)
			}
			c := open(t, writer.Options{Dir: dir, ID: "1"}).NewCounter(writer.Opts{Name: "b_total"})
			c.Inc()
			aside, err := os.ReadFile(filepath.Join(dir, "counter_1-1.db"))
			if err != nil || !bytes.Equal(aside, content) {
				t.Errorf("set aside: %d bytes, %.80q, %v; want what there was", len(aside), aside, err)
			}
			now, err := os.ReadFile(filepath.Join(dir, "counter_1.db"))
			if err != nil || !bytes.Contains(now, []byte(`["b", "b_total", {}, ""]`)) || c.Value() != 1 {
				t.Errorf("the new file has %.80q, %v, the counter %v", now, err, c.Value())
			}
		})
	}
}

// need skips the test where a program is missing, or fails it where none may be.
func need(t *testing.T, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err == nil {
		return
	}
	fault := "no " + program + ": it comes with a package of Debian, which `make test` installs"
	if os.Getenv("PREFORK_REQUIRE_PEERS") != "" {
		t.Fatal(fault)
	}
	t.Skip(fault)
}

func TestNoRoomIsAnErrorAndCountingGoesOn(t *testing.T) {
	need(t, "unshare")
	const mount = `mount -t tmpfs -o size=160k none "$` + dirVariable + `" && exec "$0"`
	for name, cmd := range map[string]*exec.Cmd{
		"a limit on the sizes of files": play(t, "limited", t.TempDir()),
		"a full file system":            play(t, "full", t.TempDir(), "unshare", "--map-root-user", "--mount", "sh", "-c", mount),
		"a read-only file system":       play(t, "read-only", t.TempDir(), "unshare", "--map-root-user", "--mount", "sh", "-c", mount),
	} {
		t.Run(name, func(t *testing.T) {
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
}

// A descriptor that a child inherits would keep the lock, and the space of a
// file that is deleted.
func TestProgramsThatAWorkerStartsDoNotHoldItsFiles(t *testing.T) {
	dir := t.TempDir()
	w := open(t, writer.Options{Dir: dir, ID: "1"})
	w.NewCounter(writer.Opts{Name: "a_total"}).Inc()
	child := exec.CommandContext(t.Context(), "sh", "-c", "ls -l /proc/self/fd; cat /proc/self/maps; read line")
	in, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	child.Stdout = &out
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	again := open(t, writer.Options{Dir: dir, ID: "1"}) // it has the lock, though the child lives
	again.NewCounter(writer.Opts{Name: "a_total"}).Inc()
	_ = in.Close()
	_ = child.Wait() // read ends with an error
	if text := out.String(); strings.Contains(text, dir) || !strings.Contains(text, "/") {
		t.Errorf("the child has:\n%s", text)
	}
	if got := merged(t, dir)["a_total{}"]; got != 2 {
		t.Errorf("counted %v, want 2", got)
	}
}

// Between two marks strace sees nothing of the thread that counts but futex, by
// which the scheduler, every ten milliseconds, wakes others.
func TestCountingMakesNoSystemCall(t *testing.T) {
	need(t, "strace")
	log := filepath.Join(t.TempDir(), "strace")
	cmd := play(t, "quiet", t.TempDir(), "strace", "-f", "-o", log)
	cmd.Env = append(cmd.Env, "GODEBUG=asyncpreemptoff=1", "GOGC=off") // the runtime's own signals and calls
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	text, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	thread, futexes := "", 0
	for line := range strings.Lines(string(text)) {
		pid, call, _ := strings.Cut(line, " ")
		switch call = strings.TrimSpace(call); {
		case strings.HasPrefix(call, `write(1, "begin"`):
			thread = pid
		case thread == "" || pid != thread || strings.HasPrefix(call, "<..."):
		case strings.HasPrefix(call, `write(1, "end"`):
			if futexes > quietCounts/100 {
				t.Errorf("%d futexes in %d counts", futexes, quietCounts)
			}
			return
		case strings.HasPrefix(call, "futex("):
			futexes++
		default:
			t.Errorf("a system call while counting: %s", call)
		}
	}
	t.Errorf("no marks in what strace saw:\n%s", text)
}
