package main

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

func TestDumpPrintsEveryEntry(t *testing.T) {
	p := fixtures(t, "client_python-HEAD/pidnames", "client_python-HEAD/utf8names", "client_ruby-4.2.5/basic")
	c := corrupt(t)
	for file, tc := range map[string]struct {
		place place
		args  []string
		code  int
	}{
		"dump_directory.txt":  {p, []string{"ROOT/pidnames"}, exitOK},
		"dump_utf8names.txt":  {p, []string{"ROOT/utf8names"}, exitOK},
		"dump_directfile.txt": {p, []string{"ROOT/basic"}, exitOK},
		"dump_file.json":      {p, []string{"--format=json", "ROOT/utf8names/histogram_101.db"}, exitOK},
		"dump_check.txt":      {p, []string{"--check", "ROOT/pidnames", "ROOT/utf8names/counter_101.db"}, exitOK},
		"dump_check.json":     {p, []string{"--check", "--format=json", "ROOT/utf8names/counter_101.db"}, exitOK},
		"dump_eras.txt":       {c, []string{"ROOT/era_a_file/db", "ROOT/era_b_file/db", "ROOT/pad_garbage/db", "ROOT/used_8/db_ruby"}, exitOK},
		"dump_broken.txt":     {c, []string{"ROOT/key_bad_json/db", "ROOT/truncated_file/db", "ROOT/empty_0_bytes/db"}, exitRuntime},
		"dump_broken.json":    {c, []string{"--format=json", "ROOT/key_bad_utf8/db", "ROOT/len_huge/db"}, exitRuntime},
	} {
		t.Run(file, func(t *testing.T) {
			code, stdout, stderr := tc.place.run(t, append([]string{"dump"}, tc.args...)...)
			if code != tc.code || stderr != "" {
				t.Errorf("exit code %d, stderr %q, want %d and nothing", code, stderr, tc.code)
			}
			golden(t, file, stdout)
		})
	}
}

func TestDumpJudgesDamagedFiles(t *testing.T) {
	const whole = "ok, entries: "
	cases := map[string]string{ // the verdict on the damaged file
		"all_zero":            whole + "0",
		"bad_metric_name":     "entry at byte 56: empty metric name: invalid name",
		"big_endian":          "header claims 939524096 of 1056 bytes, in the other byte order: metric file of a machine with another byte order",
		"empty_0_bytes":       "0 bytes: created, never given a header: truncated metric file",
		"era_a_file":          whole + "1",
		"era_b_file":          whole + "1",
		"gauge_unknown_mode":  "unknown gauge mode: read as all",
		"hist_le_variants":    whole + "5",
		"hist_no_le":          whole + "2",
		"key_bad_json":        "entry at byte 56: not a JSON list: malformed key",
		"key_bad_utf8":        "entry at byte 56: not UTF-8: malformed key",
		"key_dup":             whole + "3",
		"key_label_nonstring": whole + "3",
		"key_wrong_arity":     "entry at byte 56: list of 2 items does not open with two names and labels: malformed key",
		"len_huge":            "entry at byte 48: bytes that are no entry: corrupt metric file",
		"pad_garbage":         whole + "2",
		"truncated_file":      "entry at byte 96: the file ends at byte 114 of 152: truncated metric file",
		"used_4_bytes_only":   whole + "0",
		"used_7":              whole + "0",
		"used_8":              whole + "0",
		"used_gt_size":        "entry at byte 96: the file ends at byte 65536 of 1048576: truncated metric file",
		"used_stale_small":    whole + "1",
		"wsl_shifted":         whole + "0",
	}
	p := corrupt(t)
	names, err := os.ReadDir(string(p))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if _, ok := cases[name.Name()]; !ok && name.Name() != "unknown_type" {
			t.Errorf("the case %s is not in the table", name.Name())
		}
	}
	for name, want := range cases {
		t.Run(name, func(t *testing.T) {
			code, stdout, stderr := p.run(t, "dump", "--check", "ROOT/"+name+"/db")
			wantCode := exitRuntime
			if strings.HasPrefix(want, whole) {
				wantCode = exitOK
			}
			if code != wantCode || stderr != "" {
				t.Errorf("exit code %d, stderr %q, want %d and nothing", code, stderr, wantCode)
			}
			good, bad := "ROOT/"+name+"/db/counter_102.db: ok, entries: 1\n", "_101.db: "+want+"\n"
			if !strings.Contains(stdout, good) || !strings.Contains(stdout, bad) || strings.Count(stdout, "\n") != 2 {
				t.Errorf("stdout\n%s\nwant %q and %q", stdout, good, bad)
			}
		})
	}
}

func TestDumpOfWhatIsNoMetricFile(t *testing.T) {
	p := corrupt(t)
	root := string(p)
	if err := errors.Join(
		os.Mkdir(filepath.Join(root, "none"), 0o700),
		os.WriteFile(filepath.Join(root, "notes.txt"), []byte("x"), 0o600),
		os.Mkdir(filepath.Join(root, "none", "counter_1.db"), 0o700),
		os.Mkdir(filepath.Join(root, "empty"), 0o700),
		os.WriteFile(filepath.Join(root, "empty", "notes.txt"), []byte("x"), 0o600),
	); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		args           []string
		code           int
		stdout, stderr string
	}{
		"a file that is missing": {
			[]string{"ROOT/counter_1.db"}, exitRuntime, "", "inspect ROOT/counter_1.db: no such file or directory",
		},
		"a directory that is missing": {[]string{"ROOT/nowhere/counter_1.db"}, exitRuntime, "", "inspect ROOT/nowhere/counter_1.db: no such file or directory"},
		"a file with another name":    {[]string{"ROOT/notes.txt"}, exitRuntime, "", "inspect ROOT/notes.txt: not a metric file"},
		"a directory named like one":  {[]string{"ROOT/none"}, exitRuntime, "", "inspect ROOT/none/counter_1.db: not a regular file"},
		"a directory without any":     {[]string{"ROOT/empty"}, exitOK, "", "ROOT/empty: no metric files there"},
		"a file of an unknown type": {
			[]string{"--check", "ROOT/unknown_type/db"},
			exitRuntime,
			"ROOT/unknown_type/db/counter_102.db: ok, entries: 1\n",
			`inspect ROOT/unknown_type/db/foo_101.db: "foo_101.db": unknown metric type: want counter_, gauge_MODE_, histogram_ or summary_`,
		},
		"a missing file beside a good one": {
			[]string{"--check", "ROOT/counter_1.db", "ROOT/used_8/db/counter_102.db"},
			exitRuntime,
			"ROOT/used_8/db/counter_102.db: ok, entries: 1\n",
			"inspect ROOT/counter_1.db: no such file or directory",
		},
		"nothing":               {nil, exitUsage, "", "no argument: want a FILE or DIR: see prefork_exporter dump --help"},
		"a format that is none": {[]string{"--format=openmetrics", "ROOT/used_8/db"}, exitUsage, "", `--format "openmetrics": want text or json`},
		"an unknown flag":       {[]string{"--strict", "ROOT/used_8/db"}, exitUsage, "", "unknown flag: --strict: see prefork_exporter dump --help"},
	} {
		t.Run(name, func(t *testing.T) {
			code, stdout, stderr := p.run(t, append([]string{"dump"}, tc.args...)...)
			if tc.stderr != "" {
				tc.stderr = "prefork_exporter: " + tc.stderr + "\n"
			}
			if code != tc.code || stdout != tc.stdout || stderr != tc.stderr {
				t.Errorf("exit code %d, stdout %q, stderr %q, want %d, %q, %q", code, stdout, stderr, tc.code, tc.stdout, tc.stderr)
			}
		})
	}
}

// hostileText is what terminals and their users can be made to misread: it
// clears the screen, sets the title, turns text around.
const hostileText = "\x1b[2J\x1b]0;owned\a\r\n\b\x7f\u0085\u009b31m\u202e\u2066\u200b\U000e0041\x00"

// hostile returns a place with a directory of files that hold nothing else.
func hostile(t *testing.T) place {
	t.Helper()
	p := place(t.TempDir())
	dir := filepath.Join(string(p), "hostile")
	inName := strings.NewReplacer("\x00", "", "/", "").Replace(hostileText)
	key, err := json.Marshal([]any{"a" + hostileText, "a" + hostileText + "_total", map[string]string{"x": hostileText, "y" + hostileText: "1"}, hostileText})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(
		os.MkdirAll(filepath.Join(dir, "counter_"+inName+".db"), 0o700), // a directory
		os.WriteFile(filepath.Join(dir, "counter_1.db"), fileOf(string(key), `["`+hostileText+`"]`, `["b","b_total",{"x":`+hostileText+`}]`), 0o600),
		os.WriteFile(filepath.Join(dir, "gauge_all_1"+inName+".db"), fileOf(string(key), `["g","g",{},""]`), 0o600),
		os.WriteFile(filepath.Join(dir, "gauge_"+inName+"_2.db"), fileOf(`["m","m",{},""]`)[:20], 0o600),
		os.WriteFile(filepath.Join(dir, "foo"+inName+"_1.db"), nil, 0o600),
		os.WriteFile(filepath.Join(dir, "metric_a"+inName+"___1"+inName+".bin"), fileOf("x=%1B%5B2J%C2%9B&"+hostileText), 0o600),
		os.WriteFile(filepath.Join(dir, "gauge_max_\xff\x9b.db"), fileOf(`["h","h",{},""]`), 0o600),
	); err != nil {
		t.Fatal(err)
	}
	return p
}

// fileOf returns a file of era D with those keys.
func fileOf(keys ...string) []byte {
	b := make([]byte, 8)
	for _, key := range keys {
		b = binary.LittleEndian.AppendUint32(b, uint32(len(key)))
		b = append(append(b, key...), "        "[:8-(len(key)+4)%8]...)
		b = binary.LittleEndian.AppendUint64(b, math.Float64bits(1))
		b = binary.LittleEndian.AppendUint64(b, 0)
	}
	binary.LittleEndian.PutUint32(b, uint32(len(b)))
	return b
}

// checkGraphic fails where text has a sign that is not printed as itself.
func checkGraphic(t *testing.T, text string) {
	t.Helper()
	for i, r := range text {
		if r != '\n' && !strconv.IsGraphic(r) || r == '\uFFFD' && !strings.HasPrefix(text[i:], "\uFFFD") {
			t.Fatalf("%q at byte %d, behind %q", r, i, text[max(0, i-40):i])
		}
	}
}

func TestDumpHasNoSignThatATerminalWouldActOn(t *testing.T) {
	p := hostile(t)
	for name, args := range map[string][]string{
		"as text":                      {"dump", "ROOT/hostile"},
		"as JSON":                      {"dump", "--format=json", "ROOT/hostile"},
		"verdicts":                     {"dump", "--check", "ROOT/hostile"},
		"verdicts as JSON":             {"dump", "--check", "--format=json", "ROOT/hostile"},
		"a file by its name":           {"dump", "ROOT/hostile/gauge_all_1" + strings.TrimSuffix(hostileText, "\x00") + ".db"},
		"a directory that is missing":  {"dump", "ROOT/" + hostileText},
		"a format that is none":        {"dump", "--format=" + hostileText, "ROOT/hostile"},
		"a flag that is none":          {"dump", "--" + hostileText, "ROOT/hostile"},
		"a command that is none":       {hostileText},
		"merge, a directory not there": {"merge", "ROOT/" + hostileText},
		"merge, a file":                {"merge", "ROOT/hostile/gauge_all_1" + strings.TrimSuffix(hostileText, "\x00") + ".db"},
	} {
		t.Run(name, func(t *testing.T) {
			code, stdout, stderr := p.run(t, args...)
			if code == exitOK && strings.Contains(args[0], "merge") || stdout+stderr == "" {
				t.Errorf("exit code %d, stdout %q, stderr %q, want that something is wrong", code, stdout, stderr)
			}
			checkGraphic(t, stdout)
			checkGraphic(t, stderr)
		})
	}
}

func TestDumpAsJSONKeepsWhatTheFilesHold(t *testing.T) {
	_, stdout, _ := hostile(t).run(t, "dump", "--format=json", "ROOT/hostile")
	type entry struct {
		Sample, Help string
		Labels       map[string]string
	}
	type file struct {
		Path    string
		Entries []entry
	}
	var files []file
	if err := json.Unmarshal([]byte(stdout), &files); err != nil {
		t.Fatal(err)
	}
	at := slices.IndexFunc(files, func(f file) bool { return f.Path == "ROOT/hostile/counter_1.db" })
	if at < 0 || len(files[at].Entries) != 3 {
		t.Fatalf("files %q, want counter_1.db with three entries", files)
	}
	if e := files[at].Entries[0]; e.Labels["x"] != hostileText || e.Sample != "a"+hostileText+"_total" || e.Help != hostileText {
		t.Errorf("entry %q, want the text %q in it", e, hostileText)
	}
}

func TestDumpSaysThatItsReaderIsGone(t *testing.T) {
	p := corrupt(t)
	for name, flags := range map[string]dumpFlags{
		"text": {format: "text"}, "JSON": {format: "json"}, "verdicts": {format: "text", check: true},
	} {
		err := flags.run([]string{string(p) + "/used_8/db"}, broken{}, io.Discard)
		if err == nil || !errors.Is(err, os.ErrClosed) || !strings.HasPrefix(err.Error(), "print the dump: ") {
			t.Errorf("%s: %v, want that nothing can be printed", name, err)
		}
	}
}
