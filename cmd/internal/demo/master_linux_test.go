package demo

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// startShell starts a shell as a master, and waits until it has written ready.
func startShell(t *testing.T, script string) *Master {
	t.Helper()
	log := filepath.Join(t.TempDir(), "log")
	m, err := Start([]string{"/bin/sh", "-c", script}, os.Environ(), log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		m.Signal(syscall.SIGKILL)
		<-m.Ended()
	})
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !strings.Contains(m.LastWords(), "ready\n") {
		select {
		case <-tick.C:
		case <-t.Context().Done():
			t.Fatal(t.Context().Err())
		}
	}
	return m
}

// linger is a script's end that goes on without children, until a signal.
const linger = "echo ready; while read -r line <&3; do :; done 3<>\"$FIFO\""

func lingering(t *testing.T, script string) string {
	t.Helper()
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	return "FIFO='" + fifo + "'; " + script + linger
}

func TestHowAMasterEnds(t *testing.T) {
	for script, want := range map[string]int{
		"echo ready": 0, "echo ready; exit 3": 3, "echo ready; kill -KILL $$": 128 + 9, "echo ready >&2; kill -TERM $$": 128 + 15,
	} {
		m := startShell(t, script)
		if got := m.Status(); got != want {
			t.Errorf("%s: status %d, want %d", script, got, want)
		}
		if err := m.Stop(time.Minute, nil); err != nil {
			t.Errorf("%s: stopped again: %v", script, err)
		}
	}
}

func TestAMasterIsStopped(t *testing.T) {
	hurry := make(chan os.Signal, 1)
	hurry <- os.Interrupt
	for name, tc := range map[string]struct {
		script string
		within time.Duration
		hurry  chan os.Signal
		status int
		want   string
	}{
		"by a TERM":                      {`trap "exit 7" TERM; `, time.Minute, nil, 7, ""},
		"by a KILL in the end":           {`trap "" TERM; `, time.Millisecond, nil, 137, "stop the master: it did not end within 1ms, and was killed"},
		"by a KILL, for who is in hurry": {`trap "" TERM; `, time.Minute, hurry, 137, "stop the master: another signal came, and it was killed"},
	} {
		t.Run(name, func(t *testing.T) {
			m := startShell(t, lingering(t, tc.script))
			err := m.Stop(tc.within, tc.hurry)
			if tc.want == "" && err != nil || tc.want != "" && (err == nil || err.Error() != tc.want) {
				t.Errorf("Stop = %v, want %q", err, tc.want)
			}
			if got := m.Status(); got != tc.status {
				t.Errorf("status %d, want %d", got, tc.status)
			}
		})
	}
}

func TestOnlyChildrenOfAMasterAreKilled(t *testing.T) {
	stranger := exec.Command("sleep", "1000")
	if err := stranger.Start(); err != nil {
		t.Fatal(err)
	}
	m := startShell(t, "sleep 1000 & echo child $!; echo ready; wait $!; echo \"child ended $?\"")
	var child int
	if _, err := fmt.Sscanf(m.LastWords(), "child %d", &child); err != nil {
		t.Fatal(err)
	}
	m.KillWorker(stranger.Process.Pid)
	m.KillWorker(m.PID())
	m.KillWorker(deadProcess(t))
	m.KillWorker(child)
	if status := m.Status(); status != 0 || !strings.Contains(m.LastWords(), "child ended 137\n") {
		t.Errorf("status %d, and it wrote %q", status, m.LastWords())
	}
	_ = stranger.Process.Signal(syscall.SIGTERM)
	if err := stranger.Wait(); err == nil || err.Error() != "signal: terminated" {
		t.Errorf("the stranger ended with %v, want our TERM", err)
	}
}

func TestTheLastWordsAreWholeLines(t *testing.T) {
	for name, tc := range map[string]struct{ script, want string }{
		"few":  {"echo one; echo ready", "one\nready\n"},
		"many": {"for i in $(seq 1000 1999); do echo \"this is line $i\"; done; echo ready", "\nthis is line 1999\nready\n"},
	} {
		t.Run(name, func(t *testing.T) {
			m := startShell(t, tc.script)
			got := m.LastWords()
			if !strings.HasSuffix(got, tc.want) || len(got) > 2000 {
				t.Errorf("%q, want the end %q", got, tc.want)
			}
			for line := range strings.Lines(got) {
				if name == "many" && line != "ready\n" && !strings.HasPrefix(line, "this is line ") {
					t.Errorf("a part of a line: %q", line)
				}
			}
		})
	}
}

func TestAMasterThatCannotBeStarted(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log")
	if _, err := Start([]string{"/no/such/program"}, nil, log); err == nil || !strings.Contains(err.Error(), "start the master: ") {
		t.Errorf("Start = %v", err)
	}
	if _, err := Start([]string{"/bin/true"}, nil, log); err == nil || !strings.Contains(err.Error(), "make the master's log: ") {
		t.Errorf("Start with a log that is there = %v", err)
	}
}
