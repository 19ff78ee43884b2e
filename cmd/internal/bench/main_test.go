package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/spf13/pflag"
	"go.uber.org/goleak"
)

// fakeExporter is the environment variable under which the test binary plays the exporter.
const fakeExporter = "BENCH_FAKE_EXPORTER"

func TestMain(m *testing.M) {
	if mode := os.Getenv(fakeExporter); mode != "" {
		if err := playExporter(mode, os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	flag.Parse()
	goleak.VerifyTestMain(m)
}

// playExporter serves what the client library makes of a directory. Mode "wrong" adds a series that is in no
// file.
func playExporter(mode string, args []string) error {
	f := flag.NewFlagSet("fake", flag.ContinueOnError)
	dir := f.String("multiproc.dir", "", "")
	addr := f.String("web.listen-address", "", "")
	f.String("multiproc.liveness", "", "")
	if err := f.Parse(args); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	scratch := os.Getenv("STATE_DIRECTORY")
	p := pythonPeer("/usr/bin/python3", filepath.Join(scratch, "scripts"))
	if filepath.Base(*dir) == rubyFiles {
		p = rubyPeer("/usr/bin/ruby", filepath.Join(scratch, "scripts"))
	}
	m, err := p.start(context.Background(), *dir)
	if err != nil {
		return err
	}
	server := &http.Server{Addr: *addr, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path := filepath.Join(scratch, "fake.txt")
		_, err := m.ask("save " + path)
		text, readErr := os.ReadFile(path)
		if err := errors.Join(err, readErr); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		text = append(text, "prefork_up 1\n"...)
		if mode == "wrong" {
			text = append(text, "surplus 1\n"...)
		}
		reply(w, text, r.Header.Get("Accept-Encoding"))
	})}
	go func() {
		<-ctx.Done()
		_ = server.Shutdown(context.Background())
	}()
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return m.close()
}

// reply encodes body as asked.
func reply(w http.ResponseWriter, body []byte, enc string) {
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	var out io.WriteCloser
	switch enc {
	case gzipped:
		out = gzip.NewWriter(w)
	case zstandard:
		out, _ = zstd.NewWriter(w)
	default:
		_, _ = w.Write(body)
		return
	}
	w.Header().Set("Content-Encoding", enc)
	_, _ = out.Write(body)
	_ = out.Close()
}

func TestOptions(t *testing.T) {
	for name, tc := range map[string]struct {
		args []string
		want string // part of the error; "" for none
	}{
		"defaults are valid":                     {nil, ""},
		"everything that is short":               {strings.Fields("--only D1,D6 --runs 1 --peer-runs 1 --soak 0"), ""},
		"a part that has no data set":            {strings.Fields("--only supervise --deaths 0 --requests 1 --births 1"), ""},
		"the part that watches":                  {strings.Fields("--only watch --watch-window 1s --watch-scrapes 0 --watch-deaths 0 --pairs 0"), ""},
		"too few pairs for an interval":          {[]string{"--pairs=4"}, "want at least 5, or 0"},
		"runs that take no time":                 {[]string{"--pair-time=0s"}, "--pair-time: want no less than 0s, and more"},
		"a window that ends before it has begun": {[]string{"--watch-window=-1s"}, "--watch-window"},
		"less than no scrapes":                   {[]string{"--watch-scrapes=-1"}, "--watch-scrapes: -1 is negative"},
		"less than no births":                    {[]string{"--births=-1"}, "--births: -1 is negative"},
		"a data set that does not exist":         {[]string{"--only", "D7"}, `unknown data set "D7"`},
		"no runs at all":                         {[]string{"--runs", "0"}, "want at least 1"},
		"more than all values change":            {[]string{"--changing", "101"}, "not a percentage"},
		"a negative soak":                        {[]string{"--soak=-1"}, "negative"},
		"two places for the data":                {[]string{"--data", "d", "--tmpfs"}, "want one of them"},
		"a limit that is no number":              {[]string{"--cpu-limit", "much"}, "want processors"},
		"a limit that is left out":               {[]string{"--cpu-limit", ""}, ""},
		"an argument that is no flag":            {[]string{"D1"}, `unexpected argument "D1"`},
		"a flag that does not exist":             {[]string{"--fast"}, "unknown flag"},
		"help is not an error of its user":       {[]string{"--help"}, pflag.ErrHelp.Error()},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parseOptions(tc.args, io.Discard)
			if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error = %v, want %q", err, tc.want)
			}
		})
	}
}

// TestRun measures the smallest data set with an exporter that is played by this test.
func TestRun(t *testing.T) {
	python := needPython(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		mode    string
		ruby    string
		want    []string // parts of the output
		wantErr string
	}{
		"equal outputs": {"right", "/nowhere/ruby",
			[]string{"| D1 | prefork_exporter on Python files, warm, zstd |", "Ruby files are left out", "| 48 |"}, ""},
		"outputs that differ fail, and are still reported": {"wrong", "/nowhere/ruby",
			[]string{"| D1 | prefork_exporter on Python files, warm, gzip |"}, "surplus is 1, want none"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv(fakeExporter, tc.mode)
			data := t.TempDir()
			args := []string{"--only", "D1", "--binary", self, "--python", python, "--ruby", tc.ruby, "--data", data,
				"--runs", "2", "--peer-runs", "1", "--cpu-limit", "", "--soak", "0"}
			var out bytes.Buffer
			err := run(t.Context(), args, &out, io.Discard)
			if (err == nil) != (tc.wantErr == "") || err != nil && !strings.Contains(err.Error(), tc.wantErr) {
				t.Errorf("error = %v, want %q", err, tc.wantErr)
			}
			for _, want := range tc.want {
				if !strings.Contains(out.String(), want) {
					t.Errorf("output lacks %q:\n%s", want, &out)
				}
			}
			if left, err := os.ReadDir(data); err != nil || len(left) > 0 {
				t.Errorf("left behind: %v, %v", left, err)
			}
		})
	}
}

func TestRunWithoutAnyLibrary(t *testing.T) {
	err := run(t.Context(), []string{"--binary", "unused", "--python", "/nowhere/python", "--ruby", "/nowhere/ruby"},
		io.Discard, io.Discard)
	if err == nil || !strings.Contains(err.Error(), "nothing to measure") {
		t.Errorf("error = %v", err)
	}
}

func TestRunWithoutWrkSaysWhatToInstall(t *testing.T) {
	err := run(t.Context(), []string{"--only", "supervise", "--wrk", "/nowhere/wrk"}, io.Discard, io.Discard)
	if err == nil || !strings.Contains(err.Error(), "want Debian's package wrk") {
		t.Errorf("error = %v", err)
	}
}

// needPython returns an interpreter that has the client, or skips the test.
func needPython(t *testing.T) string {
	t.Helper()
	const python = "/usr/bin/python3"
	scratch := t.TempDir()
	if err := os.CopyFS(scratch, scripts); err != nil {
		t.Fatal(err)
	}
	if err := pythonPeer(python, filepath.Join(scratch, "scripts")).describe(t.Context()); err != nil {
		t.Skip("the Python client is not installed:", err)
	}
	return python
}
