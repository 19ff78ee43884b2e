package main

import (
	"net"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestWhatADemoRefuses(t *testing.T) {
	for name, tc := range map[string]struct {
		args []string
		want string
	}{
		"less than no requests":    {[]string{"--rate=-1"}, "--rate: -1: want a number from 0 to 1000"},
		"too many requests":        {[]string{"--rate=1001"}, "--rate: 1001: want a number from 0 to 1000"},
		"requests that are a word": {[]string{"--rate=many"}, `--rate: "many": want a whole number`},
		"a round that is short":    {[]string{"--round=9s"}, "--round: 9s: want from 10s to 1h0m0s"},
		"a round that is long":     {[]string{"--round=2h"}, "--round: 2h0m0s: want from 10s to 1h0m0s"},
		"a number for a round":     {[]string{"--round=60"}, `--round: "60": want a duration such as 250ms or 10s`},
		"an address without port":  {[]string{"--listen=localhost"}, `--listen: "localhost": want HOST:PORT`},
		"a port that is none":      {[]string{"--web.listen-address=:http"}, `--web.listen-address: ":http": want HOST:PORT`},
		"a socket's path":          {[]string{"--web.listen-address=unix:/s"}, `--web.listen-address: "unix:/s": want HOST:PORT`},
		"a worker that is nowhere": {
			[]string{"--worker=/nowhere/worker"},
			"--worker: exec: \"/nowhere/worker\": stat /nowhere/worker: no such file or directory: want the path of prefork_worker, which `make build` builds",
		},
		"an argument": {[]string{"now"}, `unknown command "now" for "prefork_exporter demo"`},
	} {
		t.Run(name, func(t *testing.T) {
			code, stdout, stderr := try(t, nil, append([]string{"demo"}, tc.args...)...)
			if want := "prefork_exporter: " + tc.want + "\n"; code != exitUsage || stderr != want || stdout != "" {
				t.Errorf("exit code %d, stdout %q, stderr %q, want 2, nothing, %q", code, stdout, stderr, want)
			}
		})
	}
}

func TestADemoTakesFreeAddresses(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	taken := l.Addr().String()
	for name, tc := range map[string]struct {
		d     demonstration
		given bool
		want  string // empty: it goes on
	}{
		"any":                               {demonstration{web: "127.0.0.1:0", listen: "127.0.0.1:0"}, true, ""},
		"another one for the workers":       {demonstration{web: "127.0.0.1:0", listen: taken}, false, ""},
		"not another one, when it is given": {demonstration{web: "127.0.0.1:0", listen: taken}, true, "choose another --listen"},
		"not another one for the metrics":   {demonstration{web: taken, listen: "127.0.0.1:0"}, false, "choose another --web.listen-address"},
	} {
		t.Run(name, func(t *testing.T) {
			d := tc.d
			d.worker = "worker"
			err := d.settle(tc.given)
			if tc.want != "" {
				if err == nil || !strings.HasSuffix(err.Error(), tc.want) {
					t.Errorf("error %v, want %q", err, tc.want)
				}
				return
			}
			if err != nil || d.listen == taken || strings.HasSuffix(d.listen, ":0") || strings.HasSuffix(d.web, ":0") {
				t.Errorf("workers at %s, metrics at %s, error %v", d.listen, d.web, err)
			}
		})
	}
}

func TestWhereADemoIsReached(t *testing.T) {
	for address, want := range map[string]string{
		"127.0.0.1:1": "http://127.0.0.1:1", ":1": "http://localhost:1", "0.0.0.0:1": "http://localhost:1", "[::]:1": "http://localhost:1",
		"[::1]:1": "http://[::1]:1", "host:1": "http://host:1",
	} {
		if got := url(address); got != want {
			t.Errorf("url(%q) = %q, want %q", address, got, want)
		}
	}
}

func TestACommandLineIsOneOfAShell(t *testing.T) {
	for name, tc := range map[string]struct {
		words []string
		want  string
	}{
		"plain words":      {[]string{"/bin/a-b", "--c=1", "--"}, "/bin/a-b --c=1 --"},
		"a blank":          {[]string{"/my bin/a"}, "'/my bin/a'"},
		"a quote":          {[]string{"it's"}, `'it'\''s'`},
		"nothing":          {[]string{"a", ""}, "a ''"},
		"more than a line": {[]string{"a", strings.Repeat("b", 60), strings.Repeat("c", 60)}, "a " + strings.Repeat("b", 60) + " \\\n  " + strings.Repeat("c", 60)},
	} {
		t.Run(name, func(t *testing.T) {
			if got := commandLine(tc.words); got != tc.want {
				t.Errorf("%q, want %q", got, tc.want)
			}
		})
	}
}

// What supervise refuses would be our fault, not the user's.
func TestSuperviseTakesTheArgumentsOfADemo(t *testing.T) {
	for _, d := range []demonstration{
		{round: minRound, rate: 0, listen: "127.0.0.1:1", web: "127.0.0.1:2", worker: "true"},
		{round: time.Minute, rate: 20, listen: "127.0.0.1:1", web: "127.0.0.1:2", worker: "true"},
		{round: maxRound, rate: 1000, listen: "[::1]:1", web: ":2", worker: "true"},
	} {
		args := d.arguments(t.TempDir())
		words := slices.Insert(slices.Clone(args), 1, "--config.check")
		if code, _, stderr := try(t, nil, words...); code != exitOK || stderr != "" {
			t.Errorf("%q: exit code %d, %s", args, code, stderr)
		}
	}
}

func TestADemoHasNoSettingsFromTheEnvironment(t *testing.T) {
	got := demoEnvironment([]string{"PATH=/bin", "PREFORK_EXPORTER_WEB_CONFIG_FILE=/tls", "TMPDIR=/t"}, "/d")
	if want := []string{"PATH=/bin", "TMPDIR=/t", "TMPDIR=/d"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
