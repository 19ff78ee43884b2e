package watch

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/prefork-exporter/prefork_exporter/multiproc"
)

// filesAt returns how many metric files a merge finds.
func filesAt(t *testing.T, s multiproc.Source) int {
	t.Helper()
	m := multiproc.New(multiproc.Options{})
	defer m.Close()
	m.SetSources([]multiproc.Source{s})
	if _, err := m.Merge(t.Context()); err != nil {
		t.Fatal(err)
	}
	return m.Stats().Files
}

// metricFiles makes a directory with so many files.
func metricFiles(t *testing.T, dir string, n int) {
	t.Helper()
	must(t, os.MkdirAll(dir, 0o755))
	for i := range n {
		must(t, os.WriteFile(filepath.Join(dir, fmt.Sprintf("counter_%d.db", i)), make([]byte, 64), 0o600))
	}
}

// startMaster starts a python program in an environment that names a metric directory, with
// what attr says, and returns when it has done what it does first.
func startMaster(t *testing.T, dir, does string, namespaces uintptr) int {
	t.Helper()
	python := need(t, "/usr/bin/python3", "python3")
	ready := filepath.Join(t.TempDir(), "ready")
	must(t, os.WriteFile(ready, nil, 0o600))
	held, err := os.OpenFile(ready, os.O_WRONLY, 0)
	must(t, err)
	defer func() { _ = held.Close() }()
	cmd := exec.Command(python, "-c", does+"\nos.write(3, b'x')\nsignal.pause()")
	cmd.Args[2] = "import ctypes, os, signal\n" + cmd.Args[2]
	cmd.Env, cmd.ExtraFiles = []string{"PROMETHEUS_MULTIPROC_DIR=" + dir}, []*os.File{held}
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: namespaces}
	pid := start(t, cmd)
	eventually(t, "the master", func() bool {
		info, err := os.Stat(ready)
		return err == nil && info.Size() > 0
	})
	return pid
}

func TestTheMetricDirectoryOfARealMaster(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("want root, for a root directory and mounts of another process")
	}
	const ours, theirs = 1, 2
	inside := func(t *testing.T) (jail, dir string) {
		jail = t.TempDir()
		return jail, filepath.Join(jail, "run", "metrics")
	}
	t.Run("in a change of its root directory", func(t *testing.T) {
		jail, dir := inside(t)
		metricFiles(t, dir, theirs)
		must(t, os.Symlink("/run/metrics", filepath.Join(jail, "link")))
		pid := startMaster(t, "/link", fmt.Sprintf("os.chroot(%q)\nos.chdir('/')", jail), 0)
		d, err := FindDirectory("", pid)
		must(t, err)
		if n := filesAt(t, multiproc.Source{Path: d.Path, Root: d.Root}); n != theirs {
			t.Errorf("%d files, want %d", n, theirs)
		}
	})
	t.Run("by a relative path in a change of its root directory", func(t *testing.T) {
		jail, dir := inside(t)
		metricFiles(t, dir, theirs)
		pid := startMaster(t, "metrics", fmt.Sprintf("os.chroot(%q)\nos.chdir('/run')", jail), 0)
		d, err := FindDirectory("", pid)
		must(t, err)
		if n := filesAt(t, multiproc.Source{Path: d.Path, Root: d.Root}); d.Path != "/run/metrics" || n != theirs {
			t.Errorf("%d files in %s, want %d in /run/metrics", n, d.Path, theirs)
		}
	})
	t.Run("behind a link that would lead out of it", func(t *testing.T) {
		jail, _ := inside(t)
		outside := t.TempDir()
		metricFiles(t, outside, ours)
		must(t, os.Symlink("../../../../../.."+outside, filepath.Join(jail, "link")))
		pid := startMaster(t, "/link", fmt.Sprintf("os.chroot(%q)\nos.chdir('/')", jail), 0)
		d, err := FindDirectory("", pid)
		must(t, err)
		if n := filesAt(t, multiproc.Source{Path: d.Path, Root: d.Root}); n != 0 {
			t.Errorf("%d files of what is outside, want none", n)
		}
	})
	t.Run("in a mount namespace of its own", func(t *testing.T) {
		_, dir := inside(t)
		metricFiles(t, dir, ours)
		pid := startMaster(t, dir, fmt.Sprintf(`libc = ctypes.CDLL(None, use_errno=True)
if libc.mount(b'none', %q.encode(), b'tmpfs', 0, None):
    raise OSError(ctypes.get_errno(), 'mount')
for i in range(%d):
    with open(%q + '/counter_%%d.db' %% i, 'wb') as f:
        f.write(bytes(64))`, dir, theirs, dir), syscall.CLONE_NEWNS)
		d, err := FindDirectory("", pid)
		must(t, err)
		if n := filesAt(t, multiproc.Source{Path: d.Path, Root: d.Root}); n != theirs {
			t.Errorf("%d files, want the %d that the master sees", n, theirs)
		}
		if n := filesAt(t, multiproc.Source{Path: dir}); n != ours {
			t.Errorf("%d files of ours, want %d", n, ours)
		}
		must(t, syscall.Kill(pid, syscall.SIGKILL))
		eventually(t, "the end of the master", func() bool {
			_, err := d.Root()
			return err != nil && err.Error() == "the master has ended"
		})
	})
}

func TestTheEnvironmentOfGunicorn(t *testing.T) {
	t.Setenv("GUNICORN_CMD_ARGS", "--timeout=31")
	pid, pidfile := startGunicorn(t)
	f := FindPIDFile("", pidfile)
	eventually(t, "the master", func() bool { return foundBy(f) == pid })
	e, err := ReadEnvironment("", pid)
	must(t, err)
	if e.GunicornArgs != "--timeout=31" || e.Home != os.Getenv("HOME") {
		t.Errorf("environment %#v, want the arguments and the home of this test", e)
	}
}

func TestWhatMayNotBeRead(t *testing.T) {
	for want, err := range map[string]error{
		"the root directory of the master may not be read": syscall.EACCES,
		"the root directory of the master cannot be read":  syscall.EMFILE,
		"the master has ended":                             syscall.ENOENT,
	} {
		if got := unreadable("the root directory of the master", 7, &os.PathError{Op: "open", Path: "/proc/7/root", Err: err}); got.Error() != want {
			t.Errorf("%v: %v, want %s", err, got, want)
		}
	}
}
