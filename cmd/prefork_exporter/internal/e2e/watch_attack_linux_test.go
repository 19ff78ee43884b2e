package e2e

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// memoryOf returns the resident bytes of a process, and filesOf how many descriptors it has.
func memoryOf(t *testing.T, pid int) float64 {
	t.Helper()
	p, err := readProcess(pid)
	must(t, err)
	return p.resident
}

func filesOf(t *testing.T, pid int) int {
	t.Helper()
	all, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	must(t, err)
	return len(all)
}

// However many workers have come and gone, each is counted once, and nothing is left of it.
func TestAttackBirthsAndDeathsLeaveNothing(t *testing.T) {
	need(t, peer{pythonPath, "python3"})
	const wave = 200
	waves := attacks(5)
	cmd := exec.Command(pythonPath, "-u", watchdata(t, "forker.py"))
	theirIn, in := openPipe(t)
	out, theirOut := openPipe(t)
	p := newProcess(t, cmd)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = theirIn, theirOut, create(t, p.stderr)
	create(t, p.stdout)
	p.launch(t, nil)
	_, _ = theirIn.Close(), theirOut.Close()
	answers := bufio.NewScanner(out)
	births := func(n int) {
		_, err := fmt.Fprintf(in, "start %d\n", n)
		must(t, err)
		if !answers.Scan() {
			t.Fatal("the master has ended")
		}
	}
	births(1)
	pidfile := filepath.Join(t.TempDir(), "pid")
	must(t, os.WriteFile(pidfile, []byte(strconv.Itoa(cmd.Process.Pid)), 0o600))
	e := beside(t, "--master.pidfile="+pidfile)
	e.says(t, theTarget, "1")
	keep := p.children(t)[0]

	var memory float64
	var files, all int
	for n := 1; n <= waves; n++ {
		births(wave)
		e.says(t, theWorkers, fmt.Sprintf("running %d", wave+1))
		for _, pid := range p.children(t) {
			if pid != keep {
				must(t, syscall.Kill(pid, syscall.SIGSEGV))
			}
		}
		e.says(t, theExits, fmt.Sprintf("SEGV %d", n*wave))
		e.says(t, theWorkers, "running 1")
		sidecar := e.cmd.Process.Pid
		if n == 2 { // by then it has what it needs for so many
			memory, files, all = memoryOf(t, sidecar), filesOf(t, sidecar), len(e.scrape(t).samples)
			continue
		}
		if n < 2 {
			continue
		}
		await(t, "as few descriptors as before", func() bool { return filesOf(t, sidecar) <= files })
		await(t, "as few series as before", func() bool { return len(e.scrape(t).samples) <= all })
		if now := memoryOf(t, sidecar); now > memory*1.5 {
			t.Errorf("%.0f bytes after %d births, %.0f after %d", now, n*wave, memory, 2*wave)
		}
	}
	t.Logf("%d births: %.1f MB, %.1f MB at first, %d descriptors, %d series", waves*wave,
		memoryOf(t, e.cmd.Process.Pid)/(1<<20), memory/(1<<20), files, all)
	if told := e.scrape(t).told(theRestarts); !strings.HasPrefix(told, "signal ") {
		t.Errorf("%s, want signals only", told)
	}
}
