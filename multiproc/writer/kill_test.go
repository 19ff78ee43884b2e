package writer_test

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"testing"

	"github.com/prefork-exporter/prefork_exporter/multiproc/writer"
)

// countsIn makes the test program a worker that counts into a directory.
const countsIn = "WRITER_TEST_COUNTS_IN"

func TestMain(m *testing.M) {
	if dir := os.Getenv(countsIn); dir != "" {
		count(dir)
	}
	os.Exit(m.Run())
}

// count counts until it is killed. It writes a byte to its standard output for
// each count, in between it gains series.
func count(dir string) {
	w, err := writer.Open(writer.Options{Dir: dir})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	total := w.NewCounter(writer.Opts{Name: "counted_total"})
	others := w.NewCounterVec(writer.Opts{Name: "others_total"}, []string{"i"})
	for i := 0; ; i++ {
		total.Inc()
		if _, err := os.Stdout.Write([]byte{'.'}); err != nil {
			os.Exit(1)
		}
		others.WithLabelValues(fmt.Sprint(i)).Inc()
	}
}

// TestAttackAKilledWorkerLosesNothing kills a thousand workers with PREFORK_ATTACK=1.
func TestAttackAKilledWorkerLosesNothing(t *testing.T) {
	kills := 25
	if os.Getenv("PREFORK_ATTACK") == "1" {
		kills = 1000
	}
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir, acknowledged := t.TempDir(), 0
	for range kills {
		cmd := exec.CommandContext(t.Context(), program)
		cmd.Env = append(os.Environ(), countsIn+"="+dir)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		n, err := io.CopyN(io.Discard, out, 1+rand.Int64N(20_000)) // so far it may come
		if err != nil {
			t.Fatalf("the worker acknowledged %d and said %q: %v", n, stderr.String(), err)
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		rest, err := io.Copy(io.Discard, out)
		if err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // it was killed
		acknowledged += int(n + rest)
	}
	total := merged(t, dir)["counted_total{}"]
	if total < float64(acknowledged) || total > float64(acknowledged+kills) {
		t.Errorf("%v counted, %d acknowledged by %d workers: want as many, or one more for each", total, acknowledged, kills)
	}
	t.Logf("%v counted, %d acknowledged by %d workers", total, acknowledged, kills)
}
