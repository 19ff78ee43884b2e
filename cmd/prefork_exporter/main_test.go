package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

// asProgram makes the test binary the program itself, for tests that need a
// process of its own.
const asProgram = "PREFORK_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
	}
	goleak.VerifyTestMain(m)
}

// try runs the program in an environment that has nothing else in it.
func try(t *testing.T, env environment, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	clearEnvironment(t)
	for name, value := range env {
		t.Setenv(name, value)
	}
	var out, err bytes.Buffer
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // what would go on ends at once
	code = run(ctx, args, &out, &err)
	return code, out.String(), err.String()
}

// clearEnvironment hides what configures the program where the tests run.
func clearEnvironment(t *testing.T) {
	t.Helper()
	for _, pair := range os.Environ() {
		name, _, _ := strings.Cut(pair, "=")
		upper := strings.ToUpper(name)
		if strings.HasPrefix(upper, "PREFORK_EXPORTER_") || strings.HasPrefix(upper, "PROMETHEUS_") || name == "HOME" {
			t.Setenv(name, "")
		}
	}
}

func TestUsageErrorsAreOneLineAndExitCode2(t *testing.T) {
	for name, tc := range map[string]struct {
		env  environment
		args []string
		want string
	}{
		"an unknown flag": {
			nil, []string{"--foo"}, "unknown flag: --foo: see prefork_exporter --help",
		},
		"an unknown short flag": {
			nil, []string{"-x"}, "unknown shorthand flag: 'x' in -x: see prefork_exporter --help",
		},
		"a flag without its value": {
			nil,
			[]string{"--config.file"},
			"flag needs an argument: --config.file: see prefork_exporter --help",
		},
		"an unknown command": {
			nil, []string{"srve"}, `unknown command "srve": want ` + commandNames() + `, or flags only`,
		},
		"an argument too many": {
			nil, []string{"version", "x"}, `unknown command "x" for "prefork_exporter version"`,
		},
		"a word for a number": {
			nil, []string{"--web.max-requests=many"}, `--web.max-requests: "many": want a whole number`,
		},
		"a number for a duration": {
			nil,
			[]string{"--collector.timeout=10"},
			`--collector.timeout: "10": want a duration such as 250ms or 10s`,
		},
		"a word for a switch": {
			nil, []string{"--web.enable-pprof=maybe"}, `--web.enable-pprof: "maybe": want true or false`,
		},
		"a word for a hidden switch": {
			nil,
			[]string{"--no-collector.multiproc=maybe"},
			`--no-collector.multiproc: "maybe": want true or false`,
		},
		"a level that is none": {
			nil, []string{"--log.level=loud"}, `--log.level: "loud": want debug, info, warn, error`,
		},
		"a format that is none": {
			nil, []string{"--log.format=xml"}, `--log.format: "xml": want logfmt, json`,
		},
		"a label that cannot be": {
			nil,
			[]string{"--multiproc.dir=/a=le=1"},
			`--multiproc.dir: label "le": the series have that label themselves`,
		},
		"a value that app refuses": {
			nil,
			[]string{"--multiproc.dir=/a", "--multiproc.liveness=on"},
			`--multiproc.liveness: "on": want auto or off`,
		},
		"a variable that is no value": {
			environment{"PREFORK_EXPORTER_WEB_MAX_REQUESTS": "many"},
			nil,
			`PREFORK_EXPORTER_WEB_MAX_REQUESTS: "many": want a whole number`,
		},
		"a variable that app refuses": {
			environment{"PREFORK_EXPORTER_WEB_LISTEN_ADDRESS": ":1,:x"},
			[]string{"--multiproc.dir=/a"},
			`PREFORK_EXPORTER_WEB_LISTEN_ADDRESS: ":x": port "x": want a number from 0 to 65535`,
		},
		"a variable's directory": {
			environment{"PREFORK_EXPORTER_MULTIPROC_DIR": "/a,,"},
			nil,
			`PREFORK_EXPORTER_MULTIPROC_DIR: no directory: want its path`,
		},
		"an earlier port that is none": {
			environment{"PROMETHEUS_METRICS_PORT": "tcp://10.0.0.1:9090"},
			[]string{"--multiproc.dir=/a"},
			`PROMETHEUS_METRICS_PORT: "tcp://10.0.0.1:9090": want a port from 1 to 65535`,
		},
		"an earlier port that is zero": {
			environment{"PROMETHEUS_METRICS_PORT": "0"},
			[]string{"--multiproc.dir=/a"},
			`PROMETHEUS_METRICS_PORT: "0": want a port from 1 to 65535`,
		},
		"no directory": {
			nil,
			nil,
			"--multiproc.dir: no metric directory is known: give the flag, set PROMETHEUS_MULTIPROC_DIR, name a master (--master.pidfile), or list targets in --config.file",
		},
		"a bad flag, only checked": {
			nil,
			[]string{"--config.check", "--web.max-requests=-1"},
			"--web.max-requests: -1: want 0, which is any number, or more",
		},
	} {
		t.Run(name, func(t *testing.T) {
			code, stdout, stderr := try(t, tc.env, tc.args...)
			if want := "prefork_exporter: " + tc.want + "\n"; code != exitUsage || stderr != want || stdout != "" {
				t.Errorf("exit code %d, stdout %q, stderr %q, want 2, nothing, %q", code, stdout, stderr, want)
			}
		})
	}
}

func commandNames() string {
	var names []string
	for _, c := range newRoot(nil).Commands() {
		names = append(names, c.Name())
	}
	return strings.Join(append([]string{"completion"}, names...), ", ")
}

func TestRuntimeErrorsAreOneLineAndExitCode1(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	badKey, badWeb := file("c.yml", "targts: []\n"), file("web.yml", "tls: {}\n")
	for name, tc := range map[string]struct {
		args []string
		want string
	}{
		"a config file that is missing": {
			[]string{"--config.file=/nowhere/c.yml"},
			"read the config file: open /nowhere/c.yml: no such file or directory",
		},
		"a bad key": {
			[]string{"--config.file=" + badKey}, badKey + `:1: unknown key "targts": want multiproc or targets`,
		},
		"a bad key, only checked": {
			[]string{"--config.check", "--config.file=" + badKey},
			badKey + `:1: unknown key "targts": want multiproc or targets`,
		},
		"several lines of an error": {
			[]string{"--web.config.file=" + badWeb},
			"--web.config.file " + badWeb + ": yaml: unmarshal errors:;   line 1: field tls not found in type web.Config",
		},
	} {
		t.Run(name, func(t *testing.T) {
			code, stdout, stderr := try(t, nil, append(tc.args, "--multiproc.dir=/a")...)
			if want := "prefork_exporter: " + tc.want + "\n"; code != exitRuntime || stderr != want || stdout != "" {
				t.Errorf("exit code %d, stdout %q, stderr %q, want 1, nothing, %q", code, stdout, stderr, want)
			}
		})
	}
}

func TestPortInUse(t *testing.T) {
	clearEnvironment(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	var stdout, stderr bytes.Buffer
	code := run(t.Context(), []string{"--multiproc.dir=" + t.TempDir(), "--web.listen-address=" + l.Addr().String()}, &stdout, &stderr)
	want := "prefork_exporter: listen on " + l.Addr().String() +
		": address already in use: stop the other program or choose another --web.listen-address\n"
	if code != exitRuntime || stderr.String() != want {
		t.Errorf("exit code %d, stderr %q, want 1, %q", code, stderr.String(), want)
	}
}

func TestWhatIsPrinted(t *testing.T) {
	good := filepath.Join(t.TempDir(), "c.yml")
	if err := os.WriteFile(good, []byte("targets: [{multiproc: {dirs: [/a, /b]}}]"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		args []string
		want string // somewhere in it
	}{
		"the version":             {[]string{"version"}, "prefork_exporter, version"},
		"the version, as a flag":  {[]string{"--version"}, "prefork_exporter unknown\n"},
		"a completion":            {[]string{"completion", "bash"}, "bash completion"},
		"values of a flag":        {[]string{"__complete", "--multiproc.liveness", ""}, "auto\noff\n:4\n"},
		"directories of a flag":   {[]string{"__complete", "--multiproc.dir", ""}, ":16\n"},
		"a directory of a flag":   {[]string{"__complete", "--path.cgroupfs", ""}, ":16\n"},
		"help of another command": {[]string{"version", "--help"}, "Usage:\n  prefork_exporter version"},
		"a good file": {
			[]string{"--config.check", "--config.file=" + good}, good + ": valid: targets: 1, directories: 2\n",
		},
		"nothing to check": {
			[]string{"--config.check"}, "no config file: valid: targets: 0, directories: 0\n",
		},
	} {
		t.Run(name, func(t *testing.T) {
			code, stdout, stderr := try(t, nil, tc.args...)
			if code != exitOK || !strings.Contains(stdout, tc.want) {
				t.Errorf("exit code %d, stdout %.200q, stderr %q, want 0 and %q", code, stdout, stderr, tc.want)
			}
		})
	}
}

func TestErrorsBecomeExitCodes(t *testing.T) {
	for name, tc := range map[string]struct {
		err  error
		code int
		want string
	}{
		"none":              {nil, exitOK, ""},
		"one that happened": {errors.New("torn"), exitRuntime, "prefork_exporter: torn\n"},
		"two of them": {
			errors.Join(errors.New("torn"), errors.New("lost")), exitRuntime, "prefork_exporter: torn; lost\n",
		},
		"one that was told already": {fmt.Errorf("dump: %w", errReported), exitRuntime, ""},
		"the user's": {
			usageError{errors.New("bad flag")}, exitUsage, "prefork_exporter: bad flag\n",
		},
		"the user's, with more clauses": {
			fmt.Errorf("start: %w", usageError{errors.New("bad flag")}),
			exitUsage,
			"prefork_exporter: start: bad flag\n",
		},
	} {
		t.Run(name, func(t *testing.T) {
			var stderr bytes.Buffer
			if code := report(tc.err, &stderr); code != tc.code || stderr.String() != tc.want {
				t.Errorf("exit code %d, stderr %q, want %d, %q", code, stderr.String(), tc.code, tc.want)
			}
		})
	}
}

func TestHelpHasEveryFlagOnce(t *testing.T) {
	_, help, _ := try(t, nil, "--help")
	s := newSettings()
	for _, g := range s.groups {
		if !strings.Contains(help, "\n"+g.title+":\n") {
			t.Errorf("no group %q", g.title)
		}
	}
	for _, f := range allFlags(s) {
		line := regexp.MustCompile(`(?m)^ +(-\w, )?--` + regexp.QuoteMeta(f.Name) + ` .*  `)
		want := map[bool]int{false: 1, true: 0}[f.Hidden]
		if got := len(line.FindAllString(help, -1)); got != want {
			t.Errorf("--%s has %d lines, want %d", f.Name, got, want)
		}
	}
	for _, want := range []string{"Examples:", "PREFORK_EXPORTER_WEB_LISTEN_ADDRESS", "PROMETHEUS_MULTIPROC_DIR", "\n  version "} {
		if !strings.Contains(help, want) {
			t.Errorf("no %q in the help", want)
		}
	}
	for line := range strings.Lines(help) {
		if len([]rune(line)) > helpWidth+1 {
			t.Errorf("line of %d characters: %s", len([]rune(line)), line)
		}
	}
}
