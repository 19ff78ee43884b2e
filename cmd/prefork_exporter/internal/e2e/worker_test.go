package e2e

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// worker is the example worker as a server.
type worker struct {
	*process
	*client
	parent *net.UnixConn // what it tells its parent
}

// startWorker starts a worker over a metric directory, and waits until it says
// that it is ready.
func startWorker(t *testing.T, dir string, args ...string) *worker {
	t.Helper()
	address := freeAddress(t)
	cmd := exec.Command(workerProgram, append(args, "--drain=10ms", "--listen", address)...)
	return startWorkerCommand(t, address, cmd, "PROMETHEUS_MULTIPROC_DIR="+dir)
}

// startWorkerCommand starts a worker that is to serve on address, and waits until
// it says that it is ready.
func startWorkerCommand(t *testing.T, address string, cmd *exec.Cmd, env ...string) *worker {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "notify")
	parent, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	must(t, err)
	t.Cleanup(func() { _ = parent.Close() })
	w := &worker{start(t, cmd, append(env, "NOTIFY_SOCKET="+socket)...), newClient(t, "tcp", address), parent}
	w.once = true
	if got := w.heard(t); got != "READY=1" {
		t.Fatalf("the parent heard %q, want READY=1", got)
	}
	return w
}

// heard returns what the worker tells its parent next.
func (w *worker) heard(t *testing.T) string {
	t.Helper()
	must(t, w.parent.SetReadDeadline(time.Now().Add(patience)))
	b := make([]byte, 1000)
	n, err := w.parent.Read(b)
	if err != nil {
		t.Fatalf("the parent hears nothing: %v", err)
	}
	return string(b[:n])
}

// mustGet returns the body of a page.
func (w *worker) mustGet(t *testing.T, path string) string {
	t.Helper()
	r, err := w.get(path)
	must(t, err)
	return string(r.body)
}

// sum adds up the samples of a name.
func (e scraped) sum(name string) float64 {
	total := 0.0
	for s, v := range e.samples {
		if isOf(s, name+`"`) {
			total += v
		}
	}
	return total
}

func TestWorkersOfGoAreCountedInOneScrape(t *testing.T) {
	dir := t.TempDir()
	first, second := startWorker(t, dir), startWorker(t, dir)
	e := startExporter(t, dir)
	for range 5 {
		first.mustGet(t, "/fast")
	}
	second.mustGet(t, "/slow?seconds=0.6")
	for _, path := range []string{"/fail", "/fail?status=504", "/panic", "/fail?status=404", "/nowhere", "/handle"} {
		_, _ = second.do(http.MethodGet, path) // an answer that is none
	}
	echoed, err := second.Post("http://localhost/echo", "text/plain", strings.NewReader(strings.Repeat("x", 5000)))
	must(t, err)
	body, err := io.ReadAll(echoed.Body)
	_ = echoed.Body.Close()
	if err != nil || len(body) != 5000 {
		t.Errorf("%d bytes came back, want 5000: %v", len(body), err)
	}
	if got := second.mustGet(t, "/"); !strings.HasPrefix(got, "worker 1, process ") {
		t.Errorf("the second worker says %q", got)
	}
	got := e.scrape(t)
	failed := func(endpoint, typ string) string {
		return series("prefork_worker_failed_requests_total", "worker_id", "1", "method", "GET", "endpoint", endpoint, "error_type", typ)
	}
	for s, want := range map[string]float64{
		series("prefork_worker_requests_total", "worker_id", "0"):                               5,
		series("prefork_worker_requests_total", "worker_id", "1"):                               9,
		series("prefork_worker_request_duration_seconds_bucket", "worker_id", "1", "le", "0.5"): 8,
		series("prefork_worker_request_duration_seconds_bucket", "worker_id", "1", "le", "1.0"): 9,
		series("prefork_worker_requests_in_progress", "worker_id", "0"):                         0,
		series("prefork_multiproc_file_errors_total", "reason", "reserved"):                     0,
		failed("/fail", "RequestError"):                                                         1,
		failed("/fail", "TimeoutError"):                                                         1,
		failed("/panic", "Panic"):                                                               1,
		series("prefork_worker_request_size_bytes_sum", "worker_id", "1"):                       5000,
		series("prefork_worker_error_handling_total", "worker_id", "1", "method", "GET", "endpoint", "/handle", "error_type", "RequestError"): 1,
	} {
		if v, ok := got.samples[s]; !ok || v != want {
			t.Errorf("%s is %v (there: %v), want %v", s, v, ok, want)
		}
	}
	if n := got.sum("prefork_worker_failed_requests_total"); n != 3 {
		t.Errorf("%v failed requests, want 3", n)
	}
}

// inherited returns the command of a worker that finds a listener at descriptor 3.
// Only a shell knows the pid that the worker will have.
func inherited(t *testing.T, l *os.File, args ...string) *exec.Cmd {
	t.Helper()
	return handedOver(l, "1", args...)
}

// handedOver is inherited, with a number of descriptors that may be wrong.
func handedOver(l *os.File, count string, args ...string) *exec.Cmd {
	shell := "LISTEN_PID=$$ LISTEN_FDS=" + count + ` exec "$0" "$@"`
	cmd := exec.Command("/bin/sh", append([]string{"-c", shell, workerProgram}, args...)...)
	cmd.ExtraFiles = []*os.File{l}
	return cmd
}

// A worker that is killed or crashes costs no more than the request that it was
// serving: what was answered is counted, and its slot goes to its successor.
func TestWorkersOfGoShareAListenerAndLoseNothing(t *testing.T) {
	file, address := listenerFile(t)
	dir := t.TempDir()
	launch := func(args ...string) *worker {
		return startWorkerCommand(t, address, inherited(t, file, append(args, "--drain=10ms")...), "PROMETHEUS_MULTIPROC_DIR="+dir)
	}
	w := launch()
	launch()
	e := startExporter(t, dir)
	counters := rising{}
	answered := 0.0
	requests := func(n int) {
		t.Helper()
		for range n {
			if _, err := w.get("/fast"); err == nil {
				answered++
			}
		}
		got := e.scrape(t)
		must(t, counters.see(got.samples))
		if total := got.sum("prefork_worker_requests_total"); total != answered {
			t.Errorf("%v requests counted, %v answered", total, answered)
		}
	}
	requests(50)
	w.signal(syscall.SIGKILL)
	if status := w.status(t); status != -1 {
		t.Errorf("status %d, want that of a signal", status)
	}
	requests(20)
	w = launch()
	requests(50)
	if _, err := w.do(http.MethodGet, "/crash?code=7"); err == nil {
		t.Error("a worker that crashed has answered")
	}
	launch()
	requests(50)
	slots := 0
	for s := range e.scrape(t).samples {
		if isOf(s, `prefork_worker_requests_total"`) {
			slots++
		}
	}
	if slots != 2 {
		t.Errorf("%d slots for four workers, want 2: a slot is taken over", slots)
	}
}

// listenerFile returns a listener as a file that children can inherit, and its address.
func listenerFile(t *testing.T) (*os.File, string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	file, err := l.(*net.TCPListener).File()
	must(t, err)
	must(t, l.Close())
	t.Cleanup(func() { _ = file.Close() })
	return file, l.Addr().String()
}

// post has four clients send requests, over connections that they keep, until the
// function that it returns is called: that returns how many were answered. What they
// send may not be sent twice, so that one that gets no answer fails the test.
func post(t *testing.T, address string) (stop func() (answered int64)) {
	t.Helper()
	var stopping atomic.Bool
	var answered atomic.Int64
	var group sync.WaitGroup
	for range 4 {
		c := newClient(t, "tcp", address)
		group.Go(func() {
			for !stopping.Load() {
				r, err := c.Post("http://localhost/fast", "text/plain", io.MultiReader(strings.NewReader("once")))
				if err != nil {
					t.Errorf("after %d answers: %v", answered.Load(), err)
					return
				}
				_, _ = io.Copy(io.Discard, r.Body)
				_ = r.Body.Close()
				answered.Add(1)
			}
		})
	}
	stop = func() int64 {
		stopping.Store(true)
		group.Wait()
		return answered.Load()
	}
	t.Cleanup(func() { stop() })
	return stop
}

func TestAWorkerOfGoThatLeavesLosesNoRequest(t *testing.T) {
	file, address := listenerFile(t)
	dir := t.TempDir()
	launch := func(args ...string) *worker {
		return startWorkerCommand(t, address, inherited(t, file, append(args, "--drain=500ms")...), "PROMETHEUS_MULTIPROC_DIR="+dir)
	}
	retires := launch("--max-requests=300")
	stop := post(t, address)
	retires.heard(t) // that it stops
	leaves := launch()
	if status := retires.status(t); status != 0 {
		t.Errorf("the one that retires ended with %d", status)
	}
	launch()
	leaves.signal(syscall.SIGTERM)
	if status := leaves.status(t); status != 0 {
		t.Errorf("the one that was asked to ended with %d", status)
	}
	answered := stop()
	if got := merged(t, dir).sum("prefork_worker_requests_total"); got != float64(answered) {
		t.Errorf("%v counted, %d answered", got, answered)
	}
}

func TestAWorkerOfGoRetires(t *testing.T) {
	for name, tc := range map[string]struct {
		args   []string
		path   string
		n      int
		reason string
	}{
		"after so many requests": {[]string{"--max-requests=3"}, "/fast", 3, "max_requests"},
		"with so much memory":    {[]string{"--max-memory=600000000"}, "/leak?bytes=600000000", 1, "max_memory"},
		"after so long":          {[]string{"--max-lifetime=1s"}, "/fast", 0, "max_lifetime"},
	} {
		t.Run(name, func(t *testing.T) {
			w := startWorker(t, t.TempDir(), tc.args...)
			for range tc.n {
				w.mustGet(t, tc.path)
			}
			if got, want := w.heard(t), "STOPPING=1\nX_PREFORK_REASON="+tc.reason; got != want {
				t.Errorf("the parent heard %q, want %q", got, want)
			}
			if status := w.status(t); status != 0 {
				t.Errorf("status %d, want 0", status)
			}
			if out := w.output(t, w.stderr); !strings.Contains(out, "reason="+tc.reason) {
				t.Errorf("it logged %q, want the reason", out)
			}
		})
	}
}

func TestAWorkerOfGoStopsWhenItsRequestsAreDone(t *testing.T) {
	for name, tc := range map[string]struct {
		args     []string
		path     string
		answered bool
		status   int
	}{
		"one that takes a while": {nil, "/slow?seconds=0.5", true, 0},
		"one that never ends":    {[]string{"--stop-timeout=100ms"}, "/hang", false, 1},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			w := startWorker(t, dir, tc.args...)
			var group sync.WaitGroup
			group.Go(func() {
				if _, err := w.get(tc.path); (err == nil) != tc.answered {
					t.Errorf("error %v, answered %v wanted", err, tc.answered)
				}
			})
			await(t, "the request", func() bool { return merged(t, dir).sum("prefork_worker_requests_in_progress") == 1 })
			w.signal(syscall.SIGTERM)
			if status := w.status(t); status != tc.status {
				t.Errorf("status %d, want %d", status, tc.status)
			}
			group.Wait()
		})
	}
}

func TestAWorkerOfGoGivesSignsOfLifeUntilItHangs(t *testing.T) {
	address := freeAddress(t)
	cmd := exec.Command(workerProgram, "--listen", address, "--stop-timeout=10ms", "--drain=10ms")
	w := startWorkerCommand(t, address, cmd, "PROMETHEUS_MULTIPROC_DIR="+t.TempDir(), "WATCHDOG_USEC=20000")
	for range 3 {
		if got := w.heard(t); got != "WATCHDOG=1" {
			t.Errorf("the parent heard %q, want WATCHDOG=1", got)
		}
	}
	w.Timeout = 50 * time.Millisecond
	if _, err := w.get("/hang"); err == nil {
		t.Error("a request that hangs was answered")
	}
	for { // what was on its way
		must(t, w.parent.SetReadDeadline(time.Now().Add(time.Second)))
		if _, err := io.ReadAtLeast(w.parent, make([]byte, 100), 1); err != nil {
			break
		}
	}
}

// A parent waits for the next sign of life, once there was one.
func TestAWorkerOfGoGivesASignOfLifeAtOnce(t *testing.T) {
	address := freeAddress(t)
	cmd := exec.Command(workerProgram, "--listen", address, "--drain=10ms")
	w := startWorkerCommand(t, address, cmd, "PROMETHEUS_MULTIPROC_DIR="+t.TempDir(), "WATCHDOG_USEC=7200000000")
	if got := w.heard(t); got != "WATCHDOG=1" {
		t.Errorf("the parent heard %q, want WATCHDOG=1", got)
	}
}

func TestWhatAWorkerOfGoRefuses(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(file, nil, 0o600))
	taken := freeAddress(t)
	l, err := net.Listen("tcp", taken)
	must(t, err)
	defer func() { _ = l.Close() }()
	for name, tc := range map[string]struct {
		args   []string
		status int
		want   string
	}{
		"a flag that is none":            {[]string{"--lisen=x"}, 2, "unknown flag: --lisen: see prefork_worker --help"},
		"an argument":                    {[]string{"serve"}, 2, `argument "serve": want none`},
		"a negative limit":               {[]string{"--max-requests=-1"}, 2, "--max-requests is negative"},
		"no time to stop":                {[]string{"--stop-timeout=0"}, 2, "want more than 0"},
		"an address that is taken":       {[]string{"--listen", taken}, 1, "address already in use"},
		"a directory that is a file":     {[]string{"--multiproc.dir", file}, 1, "not a directory: want a directory that this process can write"},
		"help, which is no fault at all": {[]string{"--help"}, 0, "/hang                never answers"},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := exec.Command(workerProgram, tc.args...)
			cmd.Env = environment(t.TempDir(), nil)
			out, _ := cmd.CombinedOutput()
			if status := cmd.ProcessState.ExitCode(); status != tc.status || !strings.Contains(string(out), tc.want) {
				t.Errorf("status %d: %s\nwant %d and %q", status, out, tc.status, tc.want)
			}
		})
	}
	listener, _ := listenerFile(t)
	plain, err := os.Open(os.DevNull)
	must(t, err)
	defer func() { _ = plain.Close() }()
	for name, tc := range map[string]struct {
		cmd  *exec.Cmd
		want string
	}{
		"more sockets than there are": {handedOver(listener, "2"), "descriptor 4 is no socket that listens"},
		"a file for a socket":         {handedOver(plain, "1"), "descriptor 3 is no socket that listens"},
		"sockets that are no number":  {handedOver(listener, "abc"), `LISTEN_FDS is "abc"`},
		"more sockets than can be":    {handedOver(listener, "20000000"), "want a number from 0 to 64"},
		"less than no sockets":        {handedOver(listener, "-1"), "want a number from 0 to 64"},
	} {
		t.Run(name, func(t *testing.T) {
			tc.cmd.Env = environment(t.TempDir(), nil)
			out, _ := tc.cmd.CombinedOutput()
			if status := tc.cmd.ProcessState.ExitCode(); status != 1 || !strings.Contains(string(out), tc.want) {
				t.Errorf("status %d: %s\nwant 1 and %q", status, out, tc.want)
			}
		})
	}
	for path, want := range map[string]string{
		"/slow?seconds=-1": "want a number from 0 to 3600", "/fail?status=200": "want a number from 400 to 599", "/leak?bytes=lots": `bytes is "lots"`,
	} {
		w := startWorker(t, t.TempDir())
		if r, err := w.do(http.MethodGet, path); err != nil || r.status != http.StatusBadRequest || !strings.Contains(string(r.body), want) {
			t.Errorf("%s: %v, %s", path, err, fmt.Sprint(r.status, string(r.body)))
		}
	}
}
