package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/prefork-exporter/prefork_exporter/multiproc/fixture"
	"github.com/prefork-exporter/prefork_exporter/multiproc/fixture/exposition"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares got with a file of testdata, or writes it there.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s differs, -update would rewrite it (-want +got):\n%s", path, diff)
	}
}

// place is a directory of fixtures. Arguments and output call it ROOT.
type place string

// fixtures returns a place with the metric files of fixtures, each in a
// directory that is called as the last part of its name.
func fixtures(t *testing.T, names ...string) place {
	t.Helper()
	root := t.TempDir()
	for _, name := range names {
		dir := fixture.Unpack(t, filepath.Join(name, "db.tar.gz"))
		if info, err := os.Stat(filepath.Join(dir, "db")); err == nil && info.IsDir() {
			dir = filepath.Join(dir, "db")
		}
		if err := os.Rename(dir, filepath.Join(root, filepath.Base(name))); err != nil {
			t.Fatal(err)
		}
	}
	return place(root)
}

// corrupt returns a place with the cases of damaged files.
func corrupt(t *testing.T) place { return place(fixture.Unpack(t, "corrupt/cases.tar.gz")) }

// run runs the program to its end.
func (p place) run(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	clearEnvironment(t)
	for i := range args {
		args[i] = strings.ReplaceAll(args[i], "ROOT", string(p))
	}
	var out, err bytes.Buffer
	code = run(t.Context(), args, &out, &err)
	hide := strings.NewReplacer(string(p), "ROOT")
	return code, hide.Replace(out.String()), hide.Replace(err.String())
}

func TestMergePrintsTheExposition(t *testing.T) {
	p := fixtures(t, "client_python-HEAD/pidnames", "client_python-HEAD/utf8names")
	for file, args := range map[string][]string{
		"merge.txt":             {"ROOT/pidnames"},
		"merge_openmetrics.txt": {"--format=openmetrics", "ROOT/pidnames"},
		"merge.json":            {"--format=json", "ROOT/pidnames"},
		"merge_utf8names.txt":   {"ROOT/utf8names"},
		"merge_two.txt":         {"ROOT/pidnames", "ROOT/utf8names", "--format", "text"},
		"merge_labels.txt":      {"ROOT/pidnames=site=a", "ROOT/pidnames=site=b,zone=ü", "--strict"},
	} {
		t.Run(file, func(t *testing.T) {
			code, stdout, stderr := p.run(t, append([]string{"merge"}, args...)...)
			if code != exitOK || stderr != "" {
				t.Errorf("exit code %d, stderr %q, want 0 and nothing", code, stderr)
			}
			golden(t, file, stdout)
		})
	}
}

func TestMergeIsAFunctionOfTheFiles(t *testing.T) {
	p := fixtures(t, "client_python-0.16.0/basic")
	_, first, _ := p.run(t, "merge", "ROOT/basic")
	for range 3 {
		if _, again, _ := p.run(t, "merge", "ROOT/basic"); again != first {
			t.Fatalf("two merges differ (-first +again):\n%s", cmp.Diff(first, again))
		}
	}
	want, err := exposition.Samples(fixture.Read(t, "client_python-0.16.0/basic/expected.txt"), exposition.Text)
	if err != nil {
		t.Fatal(err)
	}
	got, err := exposition.Samples([]byte(first), exposition.Text)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("samples differ from the client's own (-want +got):\n%s", diff)
	}
}

func TestMergeOfDamagedFiles(t *testing.T) {
	p := corrupt(t)
	const good = "# HELP good_total ok\n# TYPE good_total counter\ngood_total 2\n"
	a := func(name, value string) string {
		return "# HELP " + name + "_total h\n# TYPE " + name + "_total counter\n" + name + "_total " + value + "\n"
	}
	for name, tc := range map[string]struct {
		args   []string
		code   int
		stdout string
		stderr []string // in its one line; nil: nothing
	}{
		"the rest is printed": {
			[]string{"ROOT/truncated_file/db"},
			exitOK,
			a("a", "1") + a("b", "2") + good,
			[]string{"level=WARN", "reason=truncated", "file=counter_101.db", "dir=ROOT/truncated_file/db", "entry at byte 96: "},
		},
		"strict": {
			[]string{"--strict", "ROOT/truncated_file/db"},
			exitRuntime, a("a", "1") + a("b", "2") + good, []string{"level=WARN", "reason=truncated"},
		},
		"a bad key": {
			[]string{"--strict", "ROOT/key_bad_json/db"},
			exitRuntime, a("a", "1") + a("c", "3") + good, []string{"reason=bad_key", "entry at byte 56: not a JSON list: malformed key"},
		},
		"a file of an unknown type": {[]string{"--strict", "ROOT/unknown_type/db"}, exitRuntime, good, []string{"reason=unknown_type", "foo_101.db"}},
		"nothing wrong, strict":     {[]string{"--strict", "ROOT/used_8/db"}, exitOK, good, nil},
		"a good directory beside a damaged one": {
			[]string{"ROOT/used_8/db", "ROOT/big_endian/db"},
			exitOK, strings.Replace(good, "total 2", "total 4", 1), []string{"reason=byte_order", "dir=ROOT/big_endian/db"},
		},
		"a good directory beside a damaged one, strict": {
			[]string{"ROOT/used_8/db", "ROOT/big_endian/db", "--strict"},
			exitRuntime, strings.Replace(good, "total 2", "total 4", 1), []string{"reason=byte_order"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			code, stdout, stderr := p.run(t, append([]string{"merge"}, tc.args...)...)
			if code != tc.code {
				t.Errorf("exit code %d, want %d", code, tc.code)
			}
			if diff := cmp.Diff(tc.stdout, stdout); diff != "" {
				t.Errorf("stdout differs (-want +got):\n%s", diff)
			}
			if n := strings.Count(stderr, "\n"); n != min(len(tc.stderr), 1) {
				t.Errorf("%d lines on stderr, want %d:\n%s", n, min(len(tc.stderr), 1), stderr)
			}
			for _, want := range tc.stderr {
				if !strings.Contains(stderr, want) {
					t.Errorf("no %q on stderr:\n%s", want, stderr)
				}
			}
		})
	}
}

func TestMergeThatCannotBe(t *testing.T) {
	p := fixtures(t, "client_python-HEAD/pidnames", "ruby-prometheus-client-mmap-0.16.2/basic")
	if err := os.WriteFile(filepath.Join(string(p), "bad.yml"), []byte("multiproc: [1]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		args []string
		code int
		want string // the line on stderr
	}{
		"no directory": {nil, exitUsage, "no argument: want a DIR: see prefork_exporter merge --help"},
		"a directory that is missing": {
			[]string{"ROOT/pidnames", "ROOT/nowhere"}, exitRuntime, "merge metric files: stat ROOT/nowhere: no such file or directory",
		},
		"a file": {
			[]string{"ROOT/pidnames/counter_worker_1.db"},
			exitRuntime,
			"merge metric files: ROOT/pidnames/counter_worker_1.db: not a directory: use dump to look into a file",
		},
		"a format that is none":      {[]string{"--format=xml", "ROOT/pidnames"}, exitUsage, `--format "xml": want text, openmetrics or json`},
		"an empty format":            {[]string{"--format=", "ROOT/pidnames"}, exitUsage, `--format "": want text, openmetrics or json`},
		"an unknown flag":            {[]string{"--foo", "ROOT/pidnames"}, exitUsage, "unknown flag: --foo: see prefork_exporter merge --help"},
		"a label that is none":       {[]string{"ROOT/pidnames=a"}, exitUsage, `"ROOT/pidnames=a": want DIR or DIR=label=value[,label=value]`},
		"a label of the series":      {[]string{"ROOT/pidnames=pid=1"}, exitUsage, `label "pid": the series have that label themselves`},
		"no path":                    {[]string{""}, exitUsage, "no directory: want its path"},
		"a config file that is none": {[]string{"--config.file=ROOT/nowhere.yml", "ROOT/pidnames"}, exitRuntime, "read the config file: open ROOT/nowhere.yml: no such file or directory"},
		"a config file that is bad":  {[]string{"--config.file=ROOT/bad.yml", "ROOT/pidnames"}, exitRuntime, "ROOT/bad.yml:1: multiproc: want keys and values"},
		"OpenMetrics of counters without _total": {
			[]string{"--format=openmetrics", "ROOT/basic"},
			exitRuntime,
			"print the merge: OpenMetrics cannot hold these families: a counter has no _total, or another family its name without it: use --format text",
		},
		"a path that a terminal would act on": {
			[]string{"ROOT/\x1b[2J\u009b1m"}, exitRuntime, `"merge metric files: stat ROOT/\x1b[2J\u009b1m: no such file or directory"`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			code, stdout, stderr := p.run(t, append([]string{"merge"}, tc.args...)...)
			if want := "prefork_exporter: " + tc.want + "\n"; code != tc.code || stderr != want || stdout != "" {
				t.Errorf("exit code %d, stdout %q, stderr %q, want %d, nothing, %q", code, stdout, stderr, tc.code, want)
			}
		})
	}
}

func TestMergeRefusesOurOwnNames(t *testing.T) {
	p := place(t.TempDir())
	files := fileOf(`["prefork_up", "prefork_up", {}, "m"]`, `["a", "a", {}, "m"]`)
	if err := os.WriteFile(filepath.Join(string(p), "gauge_max_1.db"), files, 0o600); err != nil {
		t.Fatal(err)
	}
	code, stdout, stderr := p.run(t, "merge", "--strict", "ROOT")
	if code != exitRuntime || stdout != "# HELP a m\n# TYPE a gauge\na 1\n" || !strings.Contains(stderr, "reason=reserved") {
		t.Errorf("exit code %d, stdout %q, stderr %q, want 1, a alone, and why", code, stdout, stderr)
	}
}

func TestMergePrintsLongLabels(t *testing.T) {
	p, long := place(t.TempDir()), strings.Repeat("x", 1<<20)
	if err := os.WriteFile(filepath.Join(string(p), "gauge_max_1.db"), fileOf(`["a", "a", {"l": "`+long+`"}, "m"]`), 0o600); err != nil {
		t.Fatal(err)
	}
	code, stdout, stderr := p.run(t, "merge", "--strict", "ROOT")
	if want := "# HELP a m\n# TYPE a gauge\na{l=\"" + long + "\"} 1\n"; code != exitOK || stdout != want {
		t.Errorf("exit code %d, stdout %.60q, stderr %.200q, want 0 and the label of a megabyte", code, stdout, stderr)
	}
}

func TestMergeTakesTheMapOfADirectFileStore(t *testing.T) {
	p := fixtures(t, "client_ruby-4.2.5/basic")
	config := "multiproc:\n  direct_file_store:\n    jobs: {type: counter, help: Jobs done.}\n"
	if err := os.WriteFile(filepath.Join(string(p), "c.yml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		args []string
		want string
	}{
		"without it": {[]string{"merge", "ROOT/basic"}, "# HELP jobs Multiprocess metric\n# TYPE jobs untyped\n"},
		"with it":    {[]string{"merge", "--config.file=ROOT/c.yml", "ROOT/basic"}, "# HELP jobs Jobs done.\n# TYPE jobs counter\n"},
	} {
		t.Run(name, func(t *testing.T) {
			if code, stdout, stderr := p.run(t, tc.args...); code != exitOK || !strings.Contains(stdout, tc.want) {
				t.Errorf("exit code %d, stderr %q, want 0 and %q in\n%s", code, stderr, tc.want, stdout)
			}
		})
	}
}

func TestMergeSaysThatItsReaderIsGone(t *testing.T) {
	p := fixtures(t, "client_python-HEAD/pidnames")
	for _, format := range []string{"text", "openmetrics", "json"} {
		err := mergeFlags{format: format}.run(t.Context(), []string{string(p) + "/pidnames"}, broken{}, io.Discard)
		if err == nil || !errors.Is(err, os.ErrClosed) || !strings.HasPrefix(err.Error(), "print the merge: ") {
			t.Errorf("%s: %v, want that nothing can be printed", format, err)
		}
	}
}

// broken is a standard output that is closed.
type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, os.ErrClosed }

func TestMergeEndsWithItsContext(t *testing.T) {
	p := fixtures(t, "client_python-HEAD/pidnames")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var stdout bytes.Buffer
	err := mergeFlags{format: "text"}.run(ctx, []string{string(p) + "/pidnames"}, &stdout, io.Discard)
	if !errors.Is(err, context.Canceled) || stdout.Len() > 0 {
		t.Errorf("%v and %q, want the context's error alone: a merge is printed whole or not at all", err, stdout.String())
	}
}

func TestMergeAsJSONHasNoSignThatATerminalWouldActOn(t *testing.T) {
	p := hostile(t)
	code, stdout, stderr := p.run(t, "merge", "--format=json", "ROOT/hostile")
	if code != exitOK {
		t.Errorf("exit code %d, want 0", code)
	}
	checkGraphic(t, stdout)
	checkGraphic(t, stderr)
	var families []struct {
		Samples []struct{ Labels map[string]string }
	}
	if err := json.Unmarshal([]byte(stdout), &families); err != nil {
		t.Fatal(err)
	}
	if len(families) == 0 || families[0].Samples[0].Labels["x"] != hostileText {
		t.Errorf("families %q, want a label %q", families, hostileText)
	}
}
