package writer_test

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/prefork-exporter/prefork_exporter/multiproc/writer"
)

// roles are what the test program does when the environment names one of them.
func roles() map[string]func(dir string) error {
	return map[string]func(string) error{"count": count, "limited": limited, "full": full, "read-only": readOnly, "quiet": quiet, "once": once}
}

const (
	roleVariable = "WRITER_TEST_ROLE"
	dirVariable  = "WRITER_TEST_DIR"
)

func TestMain(m *testing.M) {
	role, ok := roles()[os.Getenv(roleVariable)]
	if !ok {
		os.Exit(m.Run())
	}
	if err := role(os.Getenv(dirVariable)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// play returns the command that plays a role, as the last word behind others.
func play(t *testing.T, role, dir string, before ...string) *exec.Cmd {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	words := slices.Concat(before, []string{program})
	cmd := exec.CommandContext(t.Context(), words[0], words[1:]...)
	cmd.Env = append(os.Environ(), roleVariable+"="+role, dirVariable+"="+dir)
	return cmd
}

// count counts until it is killed. It writes a byte to its standard output for
// each count, in between it gains series.
func count(dir string) error {
	w, err := writer.Open(writer.Options{Dir: dir})
	if err != nil {
		return err
	}
	total := w.NewCounter(writer.Opts{Name: "counted_total"})
	others := w.NewCounterVec(writer.Opts{Name: "others_total"}, []string{"i"})
	for i := 0; ; i++ {
		total.Inc()
		if _, err := os.Stdout.Write([]byte{'.'}); err != nil {
			return err
		}
		others.WithLabelValues(fmt.Sprint(i)).Inc()
	}
}

// once counts once, and takes no error.
func once(dir string) error {
	var f faults
	w, err := writer.Open(writer.Options{Dir: dir, OnError: f.add})
	if err != nil {
		return err
	}
	w.NewCounter(writer.Opts{Name: "once_total"}).Inc()
	return f.check("")
}

// limited counts beyond RLIMIT_FSIZE, in a new file and in one that was longer before.
func limited(dir string) error {
	if err := grow(dir, "long", ""); err != nil {
		return err
	}
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: 100 << 10, Max: 100 << 10}); err != nil {
		return err
	}
	for _, id := range []string{"long", "new"} {
		if err := grow(dir, id, "file too large (RLIMIT_FSIZE is 102400)"); err != nil {
			return fmt.Errorf("file %q: %w", id, err)
		}
	}
	return nil
}

// full counts where there is room for little.
func full(dir string) error { return grow(dir, "1", "no space left on device") }

// readOnly counts in a directory that cannot be written any more.
func readOnly(dir string) error {
	var f faults
	w, err := writer.Open(writer.Options{Dir: dir, OnError: f.add})
	if err != nil {
		return err
	}
	if out, err := exec.Command("mount", "-o", "remount,ro", dir).CombinedOutput(); err != nil {
		return fmt.Errorf("mount: %w: %s", err, out)
	}
	c := w.NewCounter(writer.Opts{Name: "a_total"})
	if c.Inc(); c.Value() != 1 {
		return fmt.Errorf("counted %v, want 1", c.Value())
	}
	const want = "read-only file system"
	if _, err := writer.Open(writer.Options{Dir: dir}); err == nil || !strings.Contains(err.Error(), want) {
		return fmt.Errorf("opened anew: error %w, want %s", err, want)
	}
	return f.check(want)
}

// grow counts in more series than there is room for, and says what is not as it should be.
func grow(dir, id, want string) error {
	var f faults
	w, err := writer.Open(writer.Options{Dir: dir, ID: id, OnError: f.add})
	if err != nil {
		return err
	}
	defer func() { _ = w.Close() }()
	v := w.NewCounterVec(writer.Opts{Name: "a_total"}, []string{"i"})
	for i := range 5000 {
		c := v.WithLabelValues(fmt.Sprint(i))
		before := c.Value()
		if c.Inc(); c.Value() != before+1 {
			return fmt.Errorf("series %d counted %v, and %v after one more", i, before, c.Value())
		}
	}
	return f.check(want)
}

// quietCounts is how often quiet counts in each way.
const quietCounts = 100_000

// quiet counts in all ways, on one thread, between two marks.
func quiet(dir string) error {
	runtime.LockOSThread()
	w, err := writer.Open(writer.Options{Dir: dir})
	if err != nil {
		return err
	}
	c := w.NewCounterVec(writer.Opts{Name: "c_total"}, []string{"i"})
	g := w.NewGauge(writer.GaugeOpts{Opts: writer.Opts{Name: "g"}, Mode: writer.ModeMostRecent})
	h := w.NewHistogram(writer.HistogramOpts{Opts: writer.Opts{Name: "h"}})
	s := w.NewSummary(writer.Opts{Name: "s"})
	c.WithLabelValues("1").Inc()
	if _, err := os.Stdout.WriteString("begin"); err != nil {
		return err
	}
	for i := range quietCounts {
		c.WithLabelValues("1").Inc()
		c.WithLabelValues("1").Add(2)
		g.Set(float64(i))
		g.Inc()
		h.Observe(float64(i))
		s.Observe(float64(i))
	}
	_, err = os.Stdout.WriteString("end")
	return err
}
