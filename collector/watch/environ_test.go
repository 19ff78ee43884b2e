package watch

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestWhatIsTakenOfAnEnvironment(t *testing.T) {
	dir := Environment{MultiprocDir: "/m"}
	for name, tc := range map[string]struct {
		in   string
		want Environment
	}{
		"nothing":       {"", Environment{}},
		"no such thing": {"A=b\x00PATH=/bin\x00", Environment{}},
		"all that is wanted": {
			"GUNICORN_CMD_ARGS=-w 4\x00WEB_CONCURRENCY=4\x00XDG_RUNTIME_DIR=/run/user/1\x00HOME=/home/a\x00PROMETHEUS_MULTIPROC_DIR=/m\x00",
			Environment{"/m", "-w 4", "4", "/run/user/1", "/home/a"},
		},
		"the old name":                       {"prometheus_multiproc_dir=/m\x00", dir},
		"both names":                         {"prometheus_multiproc_dir=/o\x00PROMETHEUS_MULTIPROC_DIR=/m\x00", dir},
		"both names, the new one is empty":   {"prometheus_multiproc_dir=/m\x00PROMETHEUS_MULTIPROC_DIR=\x00", dir},
		"a name twice":                       {"PROMETHEUS_MULTIPROC_DIR=/m\x00PROMETHEUS_MULTIPROC_DIR=/o\x00", dir},
		"a name twice, at first empty":       {"PROMETHEUS_MULTIPROC_DIR=\x00PROMETHEUS_MULTIPROC_DIR=/o\x00", Environment{}},
		"another name that ends so":          {"MY_PROMETHEUS_MULTIPROC_DIR=/o\x00", Environment{}},
		"another name that begins so":        {"PROMETHEUS_MULTIPROC_DIRS=/o\x00", Environment{}},
		"a name without a value":             {"PROMETHEUS_MULTIPROC_DIR\x00HOME\x00", Environment{}},
		"a value with signs":                 {"PROMETHEUS_MULTIPROC_DIR=/a=b\n\xff\x00", Environment{MultiprocDir: "/a=b\n\xff"}},
		"a value that is cut off":            {"HOME=/home/a\x00PROMETHEUS_MULTIPROC_DIR=/m", Environment{Home: "/home/a"}},
		"a value of no path":                 {"PROMETHEUS_MULTIPROC_DIR=/" + strings.Repeat("x", 4096) + "\x00", Environment{}},
		"a title over it":                    {"gunicorn: master [app]" + strings.Repeat("\x00", 300), Environment{}},
		"a title over half of it":            {"gunicorn: master [app]\x00HEUS_MULTIPROC_DIR=/m\x00HOME=/home/a\x00", Environment{Home: "/home/a"}},
		"a title that looks like a variable": {"title\x00\x00\x00=\x00==\x00PROMETHEUS_MULTIPROC_DIR=/m\x00", dir},
	} {
		t.Run(name, func(t *testing.T) {
			if got := ParseEnvironment([]byte(tc.in)); got != tc.want {
				t.Errorf("ParseEnvironment(%q) = %#v, want %#v", tc.in, got, tc.want)
			}
		})
	}
}

func FuzzParseEnvironment(f *testing.F) {
	for _, seed := range []string{"", "HOME=/a\x00", "PROMETHEUS_MULTIPROC_DIR=/m\x00prometheus_multiproc_dir=/o\x00", "=\x00=", "HOME"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		e := ParseEnvironment(b)
		for _, value := range []string{e.MultiprocDir, e.GunicornArgs, e.WebConcurrency, e.RuntimeDir, e.Home} {
			if strings.ContainsRune(value, 0) || len(value) > longestValue || !strings.Contains(string(b), "="+value) && value != "" {
				t.Fatalf("%q has the value %q", b, value)
			}
		}
	})
}

func TestAnEnvironmentIsNotLogged(t *testing.T) {
	var out strings.Builder
	e := Environment{MultiprocDir: "secret", Home: "secret"}
	slog.New(slog.NewTextHandler(&out, nil)).Info("read", "environment", e)
	slog.New(slog.NewJSONHandler(&out, nil)).Info("read", "environment", e.String())
	_, _ = fmt.Fprintf(&out, "%v %+v %s", e, e, e)
	if strings.Contains(out.String(), "secret") {
		t.Errorf("logged as %s", out.String())
	}
}

func TestWhereAMetricDirectoryIs(t *testing.T) {
	for name, tc := range map[string]struct {
		dir, root, cwd string // as the process has them
		want, reason   string
	}{
		"a whole path":             {"/m", "/", "/srv", "/m", ""},
		"one below the root":       {"/m", "/jail", "/jail/srv", "/m", ""},
		"a relative one":           {"m/n", "/", "/srv", "/srv/m/n", ""},
		"one relative to a root":   {"m", "/", "/", "/m", ""},
		"one that leads up":        {"../m", "/", "/srv/a", "/srv/a/../m", ""},
		"a relative one in a jail": {"m", "/jail", "/jail/srv", "/srv/m", ""},
		"at the jail's root":       {"m", "/jail", "/jail", "/m", ""},
		"outside of the jail":      {"m", "/jail", "/jailed", "", "the master works outside of its root directory"},
		"none":                     {"", "/", "/", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			p := newFakeProc(t)
			p.put(fake{pid: 50, start: 100})
			at := func(name string) string { return filepath.Join(p.dir, "50", name) }
			must(t, os.Symlink(tc.root, at("root")))
			must(t, os.Symlink(tc.cwd, at("cwd")))
			must(t, os.WriteFile(at("environ"), []byte("PROMETHEUS_MULTIPROC_DIR="+tc.dir+"\x00"), 0o600))
			got, err := FindDirectory(p.dir, 50)
			reason := ""
			if err != nil {
				reason = err.Error()
			}
			if got.Path != tc.want || reason != tc.reason {
				t.Errorf("FindDirectory = %s, %v, want %s, %s", got.Path, err, tc.want, tc.reason)
			}
		})
	}
}

func TestADirectoryOfAMasterThatHasEnded(t *testing.T) {
	p := newFakeProc(t)
	if _, err := FindDirectory(p.dir, 50); err == nil || err.Error() != "the master has ended" {
		t.Errorf("FindDirectory = %v, want that it has ended", err)
	}
	p.put(fake{pid: 50, start: 100})
	must(t, os.Symlink("/", filepath.Join(p.dir, "50", "root")))
	must(t, os.WriteFile(filepath.Join(p.dir, "50", "environ"), []byte("PROMETHEUS_MULTIPROC_DIR=/m\x00"), 0o600))
	dir, err := FindDirectory(p.dir, 50)
	must(t, err)
	root, err := dir.Root()
	must(t, err)
	must(t, root.Close())
	p.put(fake{pid: 50, start: 200})
	if _, err := dir.Root(); err == nil || err.Error() != "the master has ended" {
		t.Errorf("the root of who has the id now: %v, want that the master has ended", err)
	}
	p.remove(50)
	if _, err := dir.Root(); err == nil || err.Error() != "the master has ended" {
		t.Errorf("the root of nobody: %v, want that the master has ended", err)
	}
}
