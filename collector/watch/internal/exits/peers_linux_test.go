package exits

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/prefork-exporter/prefork_exporter/collector/internal/procfs"
)

// Workers of real masters, of which some drop their user, end as their masters' logs say.
func TestWorkersOfRealMasters(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"app.py":   "def app(environ, start_response):\n    start_response('200 OK', [])\n    return [b'']\n",
		"fpm.conf": "[global]\nprocess_control_timeout = 10\nerror_log = " + dir + "/fpm.log\n[www]\nuser = nobody\ngroup = nogroup\nlisten = " + dir + "/fpm\npm = static\npm.max_children = 2\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for name, tc := range map[string]struct {
		pkg, log string
		words    []string
		killed   string // what the log says of a worker that was ended by a signal
	}{
		"gunicorn": {
			"gunicorn", "gunicorn.log",
			[]string{"/usr/bin/python3", "/usr/bin/gunicorn", "--workers=2", "--bind=unix:" + dir + "/gunicorn", "--chdir=" + dir,
				"--worker-tmp-dir=" + dir, "--log-file=" + dir + "/gunicorn.log", "app:app"},
			"Worker with pid $PID was terminated due to signal $SIGNAL",
		},
		"php-fpm": {
			"php-fpm", "fpm.log",
			[]string{"/usr/sbin/php-fpm8.2", "--nodaemonize", "--allow-to-run-as-root", "--fpm-config", dir + "/fpm.conf"},
			"child $PID exited on signal $SIGNAL",
		},
	} {
		t.Run(name, func(t *testing.T) {
			need(t, tc.pkg, tc.words...)
			cmd := exec.Command(tc.words[0], tc.words[1:]...)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() {
				_ = cmd.Process.Kill()
				_ = cmd.Wait()
			}()
			w := open(t, 0)
			for _, signal := range []syscall.Signal{unix.SIGSEGV, unix.SIGKILL, unix.SIGSEGV, unix.SIGBUS} {
				victim := workers(t, w, cmd.Process.Pid)[1]
				if err := unix.Kill(victim.PID, signal); err != nil {
					t.Fatal(err)
				}
				d := next(t, w)
				if d.Process != victim || !d.Known || !d.Status.Signaled() || d.Status.Signal() != signal {
					t.Errorf("told %+v, want signal %d", d, signal)
				}
				says := strings.NewReplacer("$PID", strconv.Itoa(victim.PID), "$SIGNAL", strconv.Itoa(int(signal))).Replace(tc.killed)
				await(t, "the log to say "+says, func() bool {
					b, err := os.ReadFile(filepath.Join(dir, tc.log))
					return err == nil && strings.Contains(string(b), says)
				})
			}
			last := workers(t, w, cmd.Process.Pid)
			if err := cmd.Process.Signal(unix.SIGQUIT); err != nil {
				t.Fatal(err)
			}
			for range last {
				// Who is not set up yet is ended by a signal.
				if d := next(t, w); !slices.Contains(last, d.Process) || !d.Known || d.Status != 0 && !d.Status.Signaled() {
					t.Errorf("told %+v, want one of %v", d, last)
				}
			}
		})
	}
}

func need(t *testing.T, pkg string, words ...string) {
	t.Helper()
	for _, word := range words[:2] {
		if _, err := os.Stat(word); err == nil || !filepath.IsAbs(word) {
			continue
		}
		if os.Getenv("PREFORK_REQUIRE_PEERS") != "" {
			t.Fatalf("no %s: it comes with Debian's package %s", word, pkg)
		}
		t.Skipf("needs %s, of Debian's package %s", word, pkg)
	}
}

// workers waits until a master has two that have set themselves up, and adds them.
func workers(t *testing.T, w *Watcher, master int) []Process {
	t.Helper()
	proc := procfs.New("/proc")
	var found []Process
	await(t, "two workers", func() bool {
		found = nil
		pids, _ := proc.Children(master)
		for _, pid := range pids {
			s, err := proc.Stat(pid)
			if err == nil && !s.Gone() && s.State == 'S' {
				found = append(found, Process{pid, s.Start})
			}
		}
		return len(found) == 2
	})
	for _, p := range found {
		add(t, w, p)
	}
	return found
}
