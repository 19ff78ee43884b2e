package writer_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"testing"
	"time"

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
		var out, stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(20+rand.IntN(30)) * time.Millisecond) // it may be anywhere by then
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // it was killed
		if stderr.Len() > 0 {
			t.Fatalf("the worker said %s", stderr.Bytes())
		}
		acknowledged += out.Len()
	}
	if acknowledged == 0 {
		t.Fatal("no worker got as far as to count")
	}
	total := merged(t, dir)["counted_total{}"]
	if total < float64(acknowledged) || total > float64(acknowledged+kills) {
		t.Errorf("%v counted, %d acknowledged by %d workers: want as many, or one more for each", total, acknowledged, kills)
	}
	t.Logf("%v counted, %d acknowledged by %d workers", total, acknowledged, kills)
}
