package bridge_test

import (
	"bytes"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/prefork-exporter/prefork_exporter/multiproc/writer"
	"github.com/prefork-exporter/prefork_exporter/multiproc/writer/bridge"
)

// count counts and writes until it is killed. It writes a byte to its standard output
// for each write that is done.
func count(dir string) error {
	w, err := writer.Open(writer.Options{Dir: dir})
	if err != nil {
		return err
	}
	r := prometheus.NewRegistry()
	c := prometheus.NewCounter(prometheus.CounterOpts{Name: "counted_total"})
	if err := r.Register(c); err != nil {
		return err
	}
	b := bridge.New(w, r, bridge.Options{Interval: time.Hour, OnLoss: func(bridge.Loss) {}})
	for {
		c.Inc()
		if err := b.Write(); err != nil {
			return err
		}
		if _, err := os.Stdout.Write([]byte{'.'}); err != nil {
			return err
		}
	}
}

// TestAttackAKilledProcessKeepsWhatWasWritten kills a thousand processes with PREFORK_ATTACK=1.
func TestAttackAKilledProcessKeepsWhatWasWritten(t *testing.T) {
	kills := 10
	if os.Getenv("PREFORK_ATTACK") == "1" {
		kills = 1000
	}
	dir, acknowledged := t.TempDir(), 0
	for range kills {
		acknowledged += killed(t, dir)
	}
	total := merged(t, dir)["counter counted_total{}"]
	if total < float64(acknowledged) || total > float64(acknowledged+kills) {
		t.Errorf("%v counted, %d acknowledged by %d processes: want as many, or one more for each", total, acknowledged, kills)
	}
}

// killed starts a process, kills it some time later, and returns how many writes it had acknowledged.
func killed(t *testing.T, dir string) int {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), program)
	cmd.Env = append(os.Environ(), dirVariable+"="+dir)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	n, err := io.CopyN(io.Discard, out, 1+rand.Int64N(2000)) // so far it may come
	if err != nil {
		t.Fatalf("the process acknowledged %d and said %q: %v", n, stderr.String(), err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	rest, err := io.Copy(io.Discard, out)
	if err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	return int(n + rest)
}
