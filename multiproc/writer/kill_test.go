package writer_test

import (
	"bytes"
	"io"
	"math/rand/v2"
	"os"
	"testing"
)

// TestAttackAKilledWorkerLosesNothing kills a thousand workers with PREFORK_ATTACK=1.
func TestAttackAKilledWorkerLosesNothing(t *testing.T) {
	kills := 25
	if os.Getenv("PREFORK_ATTACK") == "1" {
		kills = 1000
	}
	dir, acknowledged := t.TempDir(), 0
	for range kills {
		cmd := play(t, "count", dir)
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
