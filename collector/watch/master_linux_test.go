package watch

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-exporter/prefork_exporter/collector/internal/procfs"
)

// need skips a test whose peer is missing.
func need(t *testing.T, program, pkg string) string {
	t.Helper()
	found, err := exec.LookPath(program)
	switch {
	case err == nil:
	case os.Getenv("PREFORK_REQUIRE_PEERS") != "":
		t.Fatalf("want %s: %v", pkg, err)
	default:
		t.Skipf("want %s: %v", pkg, err)
	}
	return found
}

// eventually waits until a condition holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	timeout := time.After(time.Minute)
	for !holds() {
		select {
		case <-tick.C:
		case <-timeout:
			t.Fatal("not within a minute: " + what)
		}
	}
}

// start starts a process that ends with the test. What it leaves behind is in its process
// group, and ends, too.
func start(t *testing.T, cmd *exec.Cmd) int {
	t.Helper()
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	must(t, err)
	cmd.Stdout, cmd.Stderr = log, log
	must(t, cmd.Start())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		<-ended
		_ = log.Close()
		if text, err := os.ReadFile(log.Name()); t.Failed() && err == nil {
			t.Logf("%s:\n%s", cmd.Path, text)
		}
	})
	return cmd.Process.Pid
}

// startGunicorn starts one with two workers, whose pidfile is returned.
func startGunicorn(t *testing.T, words ...string) (pid int, pidfile string) {
	t.Helper()
	python, script := need(t, "/usr/bin/python3", "python3"), need(t, "/usr/bin/gunicorn", "gunicorn")
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "app.py"), []byte("def app(environ, start):\n    start('200 OK', [])\n    return []\n"), 0o600))
	pidfile = filepath.Join(dir, "pid")
	args := append([]string{script, "--bind=127.0.0.1:0", "--workers=2", "--chdir=" + dir, "--pid=" + pidfile}, words...)
	cmd := exec.Command(python, append(args, "app:app")...)
	cmd.Env = append(os.Environ(), "PYTHONDONTWRITEBYTECODE=1")
	return start(t, cmd), pidfile
}

// workersOf returns how many children a process has.
func workersOf(pid int) int {
	children, _ := procfs.New("/proc").Children(pid)
	return len(children)
}

func foundBy(f Finder) int {
	pid, _ := f.Find()
	return pid
}

func TestGunicornsMasterIsFoundWhateverTakesItsPlace(t *testing.T) {
	first, pidfile := startGunicorn(t)
	user := os.Geteuid()
	pattern, err := FindProcess("", Pattern{Command: regexp.MustCompile(regexp.QuoteMeta("--pid=" + pidfile)), User: &user})
	must(t, err)
	for name, f := range map[string]Finder{"pidfile": FindPIDFile("", pidfile), "pattern": pattern} {
		eventually(t, "the master by its "+name, func() bool { return foundBy(f) == first })
	}
	byFile := FindPIDFile("", pidfile)
	eventually(t, "the workers", func() bool { return workersOf(first) == 2 })

	must(t, syscall.Kill(first, syscall.SIGHUP))
	finds(t, byFile, first, "")

	must(t, syscall.Kill(first, syscall.SIGUSR2))
	var second int
	eventually(t, "the second pidfile", func() bool {
		text, _ := os.ReadFile(pidfile + ".2")
		second, _ = strconv.Atoi(strings.TrimSpace(string(text)))
		return second > 0
	})
	t.Cleanup(func() { _ = syscall.Kill(second, syscall.SIGKILL) })
	finds(t, byFile, first, "")
	finds(t, pattern, first, "")
	eventually(t, "the workers of both", func() bool { return workersOf(first) == 3 && workersOf(second) == 2 })

	must(t, syscall.Kill(first, syscall.SIGTERM))
	eventually(t, "the end of the first", func() bool { return !newView("").is(processOf(t, first)) })
	finds(t, byFile, second, "")
	finds(t, pattern, second, "")
	eventually(t, "the first pidfile to be the second's", func() bool {
		text, _ := os.ReadFile(pidfile)
		return strings.TrimSpace(string(text)) == fmt.Sprint(second)
	})
	finds(t, byFile, second, "")
}

// processOf returns the process that has an id, which may have ended.
func processOf(t *testing.T, pid int) identity {
	t.Helper()
	s, _ := newView("").Stat(pid)
	return identity{pid, s.Start}
}
