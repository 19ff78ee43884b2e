package gunicorn

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// realSettings is what gunicorn itself makes of a command line.
func realSettings(t *testing.T, c commandLine) (settings values, options, withValue []string) {
	t.Helper()
	need(t, gunicornPath, "gunicorn")
	need(t, pythonPath, "python3")
	dir := t.TempDir()
	if c.file != "" {
		must(t, os.WriteFile(dir+"/gunicorn.conf.py", []byte(c.file), 0o644))
	}
	must(t, os.WriteFile(dir+"/other.py", nil, 0o644))
	must(t, os.Mkdir(dir+"/sub", 0o755))
	script, err := filepath.Abs("testdata/settings.py")
	must(t, err)
	cmd := exec.Command(pythonPath, append([]string{script}, c.words()...)...)
	cmd.Dir, cmd.Stderr = dir, os.Stderr
	cmd.Env = []string{"PYTHONDONTWRITEBYTECODE=1", "GUNICORN_CMD_ARGS=" + c.cmdArgs, "PYTHONPATH=" + os.Getenv("PREFORK_GUNICORN"), "HOME=/home"}
	if c.web != "" {
		cmd.Env = append(cmd.Env, "WEB_CONCURRENCY="+c.web)
	}
	out, err := cmd.Output()
	must(t, err)
	all := map[string]any{}
	must(t, json.Unmarshal(out, &all))
	settings = values{}
	for name, value := range all {
		if text, ok := value.(string); ok {
			settings[name] = text
		}
	}
	return settings, texts(all["options"]), texts(all["values"])
}

func texts(list any) (all []string) {
	for _, v := range list.([]any) {
		all = append(all, v.(string))
	}
	return all
}

func isYoung(t *testing.T) bool {
	t.Helper()
	settings, _, _ := realSettings(t, commandLine{args: "app"})
	return settings["control_socket"] != ""
}

// Whatever is known is what gunicorn itself goes by.
func TestSettingsAreGunicorns(t *testing.T) {
	young := isYoung(t)
	for name, c := range commandLines() {
		t.Run(name, func(t *testing.T) {
			if c.young && !young {
				return // this gunicorn would not start
			}
			settings, _, _ := realSettings(t, c)
			settings["worker_class"] = shortClass(settings["worker_class"])
			if settings["worker_class"] == "threads" {
				settings["worker_class"] = "gthread"
			}
			for name, value := range c.want {
				if name == "control_socket" && value == "" {
					continue // its default is what the environment makes it
				}
				if settings[name] != value {
					t.Errorf("%s is %q, want %q", name, settings[name], value)
				}
			}
		})
	}
}

func TestOptionsAreGunicorns(t *testing.T) {
	_, options, withValue := realSettings(t, commandLine{args: "app"})
	for _, name := range options {
		takes := slices.Contains(withValue, name)
		if !strings.HasPrefix(name, "--") {
			if _, ok := short[name[1]]; !ok || isSwitch(name[1]) == takes {
				t.Errorf("%s: known %v, without value %v; gunicorn gives it one: %v", name, ok, isSwitch(name[1]), takes)
			}
			continue
		}
		if !slices.Contains(longOptions(), option(name)) {
			t.Errorf("%s is not known", name)
		}
		if value, ok := wanted[option(name)]; ok && value != takes {
			t.Errorf("%s: takes a value: %v; gunicorn gives it one: %v", name, value, takes)
		}
	}
}

// The settings of a server that runs, by what the kernel tells of its start.
func TestSettingsOfARealServer(t *testing.T) {
	for name, tc := range map[string]struct {
		how  launch
		file string // what is written to gunicorn.conf.py before it is looked at
		want values
	}{
		"by default":                           {launch{bare: true}, "", defaults(nil)},
		"by its command line":                  {launch{bare: true, args: []string{"-t7", "--threads=2"}}, "", defaults(values{"timeout": "7", "threads": "2", "worker_class": "gthread"})},
		"by its environment":                   {launch{bare: true, env: []string{"GUNICORN_CMD_ARGS=-t 8", "WEB_CONCURRENCY=2"}}, "", defaults(values{"timeout": "8", "workers": "2"})},
		"by a file":                            {launch{args: []string{"-t7"}}, "", values{"timeout": "7"}},
		"perhaps by a file in its directory":   {launch{bare: true, args: []string{"-t7"}}, "timeout = 9", values{"timeout": "7"}},
		"perhaps by a file in another":         {launch{bare: true, args: []string{"-t7"}, env: []string{"PWD=/"}}, "", values{"timeout": "7"}},
		"perhaps by a file in one that is not": {launch{bare: true, args: []string{"-t7"}, env: []string{"PWD=/no/such"}}, "", values{"timeout": "7"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t, tc.how)
			await(t, "the server", func() bool { return s.logged("Listening at") })
			if tc.file != "" {
				must(t, os.WriteFile(s.dir+"/gunicorn.conf.py", []byte(tc.file), 0o644))
			}
			how, err := StartOf(proc, s.pid)
			must(t, err)
			same(t, SettingsOf(how), tc.want)
			if how.HomeDir != s.dir || how.XDGRuntimeDir != s.dir {
				t.Errorf("StartOf = %+v, want the directories %s", how, s.dir)
			}
		})
	}
}

func TestStartOfNobody(t *testing.T) {
	if s, err := StartOf(proc, 1<<30); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("StartOf = %+v, %v; want that there is no such process", s, err)
	}
}
