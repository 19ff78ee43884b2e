package main

import (
	"strings"
	"testing"
)

// What wrk 4.1.0 printed.
const (
	wrkUnharmed = `Running 2m test @ http://127.0.0.1:18000/fast
  2 threads and 16 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   509.19us    1.12ms  16.29ms   93.04%
    Req/Sec    34.09k     8.66k   60.04k    72.50%
  407045 requests in 6.00s, 54.35MB read
Requests/sec:  67821.45
Transfer/sec:      9.06MB
`
	wrkHarmed = `Running 4s test @ http://127.0.0.1:18002/fail
  2 threads and 16 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   328.56us  500.69us   8.93ms   91.81%
    Req/Sec     2.67k     1.58k    4.52k    59.09%
  6246 requests in 4.00s, 1.17MB read
  Socket errors: connect 0, read 6199, write 0, timeout 16
  Non-2xx or 3xx responses: 6230
Requests/sec:   1559.59
Transfer/sec:    298.22KB
`
)

func TestParseWrk(t *testing.T) {
	for name, tc := range map[string]struct {
		in      string
		want    wrkResult
		wantErr string
	}{
		"all requests are answered": {wrkUnharmed, wrkResult{answered: 407045, perSecond: 67821.45}, ""},
		"connections and answers fail": {wrkHarmed,
			wrkResult{answered: 6246, read: 6199, timeout: 16, refused: 6230, perSecond: 1559.59}, ""},
		"nobody listens": {"unable to connect to 127.0.0.1:1 Connection refused\n", wrkResult{},
			`no line such as "%d requests in": unable to connect`},
		"the end is missing": {strings.Join(strings.SplitAfter(wrkUnharmed, "\n")[:6], ""), wrkResult{},
			`no line such as "Requests/sec: %f"`},
		"the number of threads is no number of requests": {strings.Join(strings.SplitAfter(wrkUnharmed, "\n")[:2], ""),
			wrkResult{}, `"%d requests in"`},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := parseWrk(tc.in)
			if (err == nil) != (tc.wantErr == "") || err != nil && !strings.Contains(err.Error(), tc.wantErr) {
				t.Errorf("error = %v, want %q", err, tc.wantErr)
			}
			if got != tc.want {
				t.Errorf("= %+v, want %+v", got, tc.want)
			}
		})
	}
}

func TestDescribeWrk(t *testing.T) {
	for name, tc := range map[string]struct {
		command, want, wantErr string
	}{
		"its version, with the status of a mistake": {script(t, "echo wrk debian/4.1.0 [epoll] Copyright; exit 1"), "debian/4.1.0", ""},
		"no such program":               {"/nowhere/wrk", "", "want Debian's package wrk, which `make setup` installs"},
		"another program":               {script(t, "echo hello world"), "", "no wrk at"},
		"a program that prints nothing": {script(t, "exit 0"), "", "no version"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := describeWrk(t.Context(), tc.command)
			if (err == nil) != (tc.wantErr == "") || err != nil && !strings.Contains(err.Error(), tc.wantErr) {
				t.Errorf("error = %v, want %q", err, tc.wantErr)
			}
			if got != tc.want {
				t.Errorf("version %q, want %q", got, tc.want)
			}
		})
	}
}
