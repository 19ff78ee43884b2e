package main

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestScrape(t *testing.T) {
	const text = "a{pid=\"1\"} 2\nprefork_up 1\n"
	serve := func(enc string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { reply(w, []byte(text), enc) }
	}
	for name, tc := range map[string]struct {
		handler http.HandlerFunc
		ask     string
		want    string // part of the error; "" for none
	}{
		"identity":                        {serve(identity), identity, ""},
		"gzip":                            {serve(gzipped), gzipped, ""},
		"zstd":                            {serve(zstandard), zstandard, ""},
		"an encoding that was not asked":  {serve(gzipped), identity, "asked for identity, got gzip"},
		"no encoding where one was asked": {serve(identity), zstandard, "asked for zstd, got identity"},
		"an error of the exporter": {func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "no directory", http.StatusServiceUnavailable)
		}, identity, "503 Service Unavailable: no directory"},
		"another format": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
		}, identity, "asked for text, got application/json"},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(tc.handler)
			defer server.Close()
			e := newExporter(server.Listener.Addr().String())
			defer func() { _ = e.close() }()
			got, err := e.samples(t.Context(), tc.ask)
			if tc.want != "" {
				if err == nil || !strings.Contains(err.Error(), tc.want) {
					t.Errorf("error = %v, want %q", err, tc.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(map[string]float64{`a{pid="1"}`: 2}, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestStartExporterSaysWhyItDidNot(t *testing.T) {
	for name, tc := range map[string]struct{ binary, want string }{
		"no such program":              {"/nowhere/exporter", "no such file"},
		"a program that ends at once":  {script(t, "echo bad flag >&2; exit 2"), "bad flag"},
		"one that ends without a word": {script(t, "exit 0"), "ended before it listened"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := startExporter(t.Context(), tc.binary, t.TempDir(), t.TempDir())
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error = %v, want %q", err, tc.want)
			}
		})
	}
}

// script writes a shell script.
func script(t *testing.T, body string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+body+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestExporterEnvironment(t *testing.T) {
	got := exporterEnvironment([]string{
		"HOME=/h", "PROMETHEUS_MULTIPROC_DIR=/x", "prometheus_multiproc_dir=/x", "PREFORK_EXPORTER_LOG_LEVEL=debug",
		"STATE_DIRECTORY=/y",
	}, "/scratch")
	if diff := cmp.Diff([]string{"STATE_DIRECTORY=/scratch", "HOME=/h"}, got); diff != "" {
		t.Error(diff)
	}
}

// TestMerger talks to a shell script that stands in for an interpreter with its script.
func TestMerger(t *testing.T) {
	for name, tc := range map[string]struct {
		answer string
		want   string // part of the error; "" for none
	}{
		"an answer":               {`echo '{"wall": 0.5, "cpu": 0.25, "total": 1, "bytes": 7}'`, ""},
		"no answer":               {`echo 'Error: no such library' >&2; exit 3`, "no such library"},
		"an answer that is none":  {`echo hello`, `answer "hello`},
		"an end without a reason": {`exit 0`, "no answer"},
	} {
		t.Run(name, func(t *testing.T) {
			p := &peer{files: pythonFiles, command: "/bin/sh",
				merger: script(t, "while read -r line; do "+tc.answer+"; done")}
			m, err := p.start(t.Context(), t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			got, err := m.merge(identity)
			if closing := m.close(); closing != nil {
				err = closing
			}
			if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error = %v, want %q", err, tc.want)
			}
			if want := (answer{Wall: 0.5, CPU: 0.25, Total: 1, Bytes: 7}); tc.want == "" && got != want {
				t.Errorf("answer = %v, want %v", got, want)
			}
		})
	}
}

func TestMergerEndsWithItsContext(t *testing.T) {
	if _, err := exec.LookPath("sleep"); err != nil {
		t.Skip(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	m, err := (&peer{command: "/bin/sh", merger: script(t, "exec sleep 600")}).start(ctx, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := m.ask("plain"); err == nil {
		t.Error("a dead library answered")
	}
	if err := m.close(); err == nil {
		t.Error("close = nil, want how it ended")
	}
}
