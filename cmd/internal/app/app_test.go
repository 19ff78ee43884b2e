package app

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

func TestEndpoints(t *testing.T) {
	o := testOptions(t)
	writeCounter(t, o.Directories[0].Path, "jobs_total", 3)
	plain := startApp(t, o)

	o.EnableLifecycle, o.EnablePprof, o.TelemetryPath = true, true, "/m"
	more := startApp(t, o)

	o.TelemetryPath = "/"
	root := startApp(t, o)

	eventually(t, "the first merges are done", func() bool { return plain.ready() && more.ready() && root.ready() })
	c := newClient()
	for name, tc := range map[string]struct {
		app    *App
		method string
		path   string
		status int
		want   string // in the body, or Allow
	}{
		"metrics":                       {plain, "GET", "/metrics", 200, "\njobs_total 3"},
		"metrics, the head":             {plain, "HEAD", "/metrics", 200, ""},
		"metrics cannot be posted":      {plain, "POST", "/metrics", 405, "GET, HEAD"},
		"the landing page":              {plain, "GET", "/", 200, `<a href="/metrics">`},
		"the landing page, posted":      {plain, "POST", "/", 405, "GET, HEAD"},
		"another page":                  {plain, "GET", "/x", 404, ""},
		"below the metrics":             {plain, "GET", "/metrics/", 404, ""},
		"health":                        {plain, "GET", "/-/healthy", 200, "healthy"},
		"health, another name":          {plain, "GET", "/healthz", 200, "healthy"},
		"health, the head":              {plain, "HEAD", "/healthz", 200, ""},
		"health cannot be posted":       {plain, "PUT", "/healthz", 405, "GET, HEAD"},
		"readiness":                     {plain, "GET", "/-/ready", 200, "ready"},
		"readiness, another name":       {plain, "GET", "/readyz", 200, "ready"},
		"readiness cannot be deleted":   {plain, "DELETE", "/-/ready", 405, "GET, HEAD"},
		"reload is off":                 {plain, "POST", "/-/reload", 403, "--web.enable-lifecycle"},
		"reload is not read":            {plain, "GET", "/-/reload", 405, "POST, PUT"},
		"the status":                    {plain, "GET", "/api/v1/status", 200, `"metric_files"`},
		"the status, the head":          {plain, "HEAD", "/api/v1/status", 200, ""},
		"the status cannot be posted":   {plain, "POST", "/api/v1/status", 405, "GET, HEAD"},
		"the status on the page":        {plain, "GET", "/", 200, `<a href="/api/v1/status">`},
		"profiles are off":              {plain, "GET", "/debug/pprof/", 404, ""},
		"reload by post":                {more, "POST", "/-/reload", 200, "reloaded"},
		"reload by put":                 {more, "PUT", "/-/reload", 200, "reloaded"},
		"profiles":                      {more, "GET", "/debug/pprof/", 200, "goroutine"},
		"a profile":                     {more, "GET", "/debug/pprof/cmdline", 200, "app.test"},
		"profiles on the page":          {more, "GET", "/", 200, `<a href="/debug/pprof/">`},
		"metrics elsewhere":             {more, "GET", "/m", 200, "jobs_total 3"},
		"metrics not where they were":   {more, "GET", "/metrics", 404, ""},
		"metrics instead of the page":   {root, "GET", "/", 200, "jobs_total 3"},
		"nothing below metrics at root": {root, "GET", "/metrics", 404, ""},
		"the exporter's own metrics": {
			plain, "GET", "/metrics", 200, "prefork_exporter_config_last_reload_successful 1",
		},
	} {
		t.Run(name, func(t *testing.T) {
			got := ask(t, c, tc.method, tc.app.url(tc.path))
			body := got.body
			if tc.status == http.StatusMethodNotAllowed {
				body = got.header.Get("Allow")
			}
			if got.status != tc.status || !strings.Contains(body, tc.want) {
				t.Errorf("%s %s = %d %.200q, want %d and %q", tc.method, tc.path, got.status, body, tc.status, tc.want)
			}
		})
	}
}

func TestLandingPageNeedsNothingElse(t *testing.T) {
	a := startApp(t, testOptions(t))
	page := ask(t, newClient(), "GET", a.url("/"))
	if strings.Contains(page.body, "//") || !strings.Contains(page.body, "Version "+Version()) {
		t.Errorf("page with foreign assets, or without version: %s", page.body)
	}
	if got := page.header.Get("Content-Security-Policy"); !strings.Contains(got, "default-src 'none'") {
		t.Errorf("Content-Security-Policy = %q, want nothing allowed", got)
	}
}

func TestReadyAfterTheFirstMerge(t *testing.T) {
	missing := testOptions(t)
	missing.Directories[0].Path += "/later"
	idle := testOptions(t)
	idle.Collectors = []string{"exporter"}
	for name, tc := range map[string]struct {
		o       Options
		merge   bool
		isReady bool
	}{
		"not before":                    {testOptions(t), false, false},
		"then":                          {testOptions(t), true, true},
		"even if there is no directory": {missing, true, true},
		"at once if nothing is merged":  {idle, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			a, err := New(tc.o)
			if err != nil {
				t.Fatal(err)
			}
			if tc.merge {
				a.mergeOnce(t.Context())
			}
			w := newRecorder(a, "GET", "/readyz")
			if want := map[bool]int{true: 200, false: 503}[tc.isReady]; w.Code != want {
				t.Errorf("GET /readyz = %d %s, want %d", w.Code, w.Body, want)
			}
		})
	}
}

func TestDirectoryThatAppearsLater(t *testing.T) {
	o := testOptions(t)
	o.Directories[0].Path += "/later"
	a := startApp(t, o)
	eventually(t, "ready without a directory", a.ready)
	if err := os.Mkdir(o.Directories[0].Path, 0o700); err != nil {
		t.Fatal(err)
	}
	writeCounter(t, o.Directories[0].Path, "jobs_total", 3)
	if got := metric(t, a, "jobs_total"); got != "3" {
		t.Errorf("jobs_total = %q once the directory is there, want 3", got)
	}
}

func TestWithoutMultiprocNoDirectoryIsNeeded(t *testing.T) {
	o := testOptions(t)
	o.Directories = nil
	_, err := New(o)
	if !errors.Is(err, errNoDirectory) {
		t.Errorf("New = %v, want that a directory is missing", err)
	}
	o.Collectors = []string{"exporter"}
	a := startApp(t, o)
	if got := metric(t, a, "prefork_exporter_config_last_reload_successful"); got != "1" {
		t.Errorf("the exporter's own metrics: %q, want 1", got)
	}
}

// metric returns the value of a series in a scrape of a.
func metric(t *testing.T, a *App, series string) string {
	t.Helper()
	body := ask(t, newClient(), "GET", a.url("/metrics")).body
	m := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(series) + ` (\S+)$`).FindStringSubmatch(body)
	if m == nil {
		return ""
	}
	return m[1]
}

func TestDeletedFilesAreLetGoWithoutAScrape(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("wants /proc/self/fd")
	}
	o := testOptions(t)
	dir := o.Directories[0].Path
	writeCounter(t, dir, "jobs_total", 3)
	a := startApp(t, o)
	if got := metric(t, a, "jobs_total"); got != "3" {
		t.Fatalf("jobs_total = %q, want 3", got)
	}
	if !isOpen(t, dir) {
		t.Fatal("no file of the directory is open: nothing to let go of")
	}
	if err := os.Remove(filepath.Join(dir, "counter_1.db")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the deleted file is closed", func() bool { return !isOpen(t, dir) })
}

// isOpen says whether this process has a file of dir open.
func isOpen(t *testing.T, dir string) bool {
	t.Helper()
	links, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		if to, err := os.Readlink(l); err == nil && strings.HasPrefix(to, dir+"/counter") {
			return true
		}
	}
	return false
}

// A client that has sent half a request, and one whose request never ends.
func TestStopCutsOffClientsThatHang(t *testing.T) {
	o := testOptions(t)
	o.Grace = 50 * time.Millisecond
	a, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	entered, cut := make(chan struct{}), make(chan struct{})
	a.handler = http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(entered)
		<-r.Context().Done()
		close(cut)
	})
	stop := runApp(t, a)
	half, err := net.Dial("tcp", a.Addrs()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = half.Close() }()
	if _, err := half.Write([]byte("GET / HTTP/1.1\r\nHost: ")); err != nil {
		t.Fatal(err)
	}
	url, failed := a.url("/"), make(chan error, 1)
	go func() {
		_, err := tryAsk(context.Background(), newClient(), "GET", url)
		failed <- err
	}()
	<-entered
	stop() // the test's own deadline is the bound
	<-cut
	if err := <-failed; err == nil {
		t.Error("the request that never ends has got an answer")
	}
}

func TestStopWaitsForRequestsInFlight(t *testing.T) {
	o := testOptions(t)
	o.Grace = patience
	a, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	entered, release := make(chan struct{}), make(chan struct{})
	a.handler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(entered)
		<-release
		answer(w, "done")
	})
	stop := runApp(t, a)
	addr, url := a.Addrs()[0].String(), a.url("/")
	answered, stopped := make(chan string, 1), make(chan struct{})
	go func() {
		r, err := tryAsk(context.Background(), newClient(), "GET", url)
		answered <- fmt.Sprint(r.body, err)
	}()
	<-entered
	go func() {
		stop()
		close(stopped)
	}()
	eventually(t, "nobody listens any more", func() bool {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			_ = c.Close()
		}
		return err != nil
	})
	close(release)
	if got := <-answered; got != "done<nil>" {
		t.Errorf("the request in flight got %s, want its answer", got)
	}
	<-stopped
}

func TestStopDoesNotWaitForAStepThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hang, order := make(chan struct{}), []string{}
		a := &App{started: []started{
			{step{name: "first", bound: time.Second}, func(context.Context) error { order = append(order, "first"); return nil }},
			{step{name: "second", bound: 2 * time.Second}, func(context.Context) error { <-hang; return nil }},
			{step{name: "third", bound: time.Second}, func(context.Context) error { order = append(order, "third"); return errors.New("torn") }},
		}}
		begun := time.Now()
		checkError(t, a.Stop(), "stop the third: torn\nstop the second: still busy after 2s")
		if strings.Join(order, " ") != "third first" || time.Since(begun) != 2*time.Second {
			t.Errorf("stopped %v after %s, want third and first after 2s", order, time.Since(begun))
		}
		close(hang)
	})
}

func TestRunThatIsToldToStopBeforeItBegins(t *testing.T) {
	a, err := New(testOptions(t))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	checkError(t, a.Run(ctx), "")
}

func TestRunEndsWhenServingFails(t *testing.T) {
	o := testOptions(t)
	o.WebConfigFile = filepath.Join(t.TempDir(), "web.yml")
	writeFile(t, o.WebConfigFile, "")
	a, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(o.WebConfigFile); err != nil {
		t.Fatal(err)
	}
	err = a.Run(t.Context())
	if !errors.Is(err, os.ErrNotExist) || !strings.HasPrefix(err.Error(), "serve on 127.0.0.1:") {
		t.Errorf("Run = %v, want that the file is gone", err)
	}
}

func TestAStartThatFailsIsUndone(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	socket := filepath.Join(t.TempDir(), "a.sock")
	o := testOptions(t)
	o.Listen = []string{"unix:" + socket, taken.Addr().String()}
	a, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	checkError(t, a.Run(t.Context()), "listen on "+taken.Addr().String()+
		": address already in use: stop the other program or choose another --web.listen-address")
	if _, err := os.Lstat(socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket that was open: %v, want it gone", err)
	}
	if len(a.started) > 0 || len(a.listeners) > 0 {
		t.Errorf("%d steps and %d listeners are left", len(a.started), len(a.listeners))
	}
}

func TestHalfARequestIsNotWaitedForForEver(t *testing.T) {
	a, err := New(testOptions(t))
	if err != nil {
		t.Fatal(err)
	}
	s := a.newServer(t.Context())
	for name, d := range map[string]time.Duration{
		"header": s.ReadHeaderTimeout, "request": s.ReadTimeout, "answer": s.WriteTimeout, "idle": s.IdleTimeout,
	} {
		if d <= 0 {
			t.Errorf("no timeout for the %s", name)
		}
	}
	if s.WriteTimeout <= a.o.CollectorTimeout {
		t.Errorf("an answer has %s, the collectors alone %s", s.WriteTimeout, a.o.CollectorTimeout)
	}
}

func TestReload(t *testing.T) {
	first, second := t.TempDir(), t.TempDir()
	writeCounter(t, first, "first_total", 1)
	writeCounter(t, second, "second_total", 2)
	o := testOptions(t)
	o.Directories, o.EnableLifecycle = nil, true
	o.ConfigFile = filepath.Join(t.TempDir(), "c.yml")
	config := func(dir string) string { return "targets: [{multiproc: {dirs: [" + dir + "]}}]\n" }
	writeFile(t, o.ConfigFile, config(first))
	hangup := make(chan os.Signal)
	o.Hangup = hangup
	a := startApp(t, o)
	post := func() reply { return ask(t, newClient(), "POST", a.url("/-/reload")) }
	check := func(when, one, two, good string) {
		t.Helper()
		got := [3]string{metric(t, a, "first_total"), metric(t, a, "second_total"),
			metric(t, a, "prefork_exporter_config_last_reload_successful")}
		if want := [3]string{one, two, good}; got != want {
			t.Errorf("%s: first, second, good = %q, want %q", when, got, want)
		}
	}
	check("at the start", "1", "", "1")

	writeFile(t, o.ConfigFile, config(second))
	if got := post(); got.status != http.StatusOK {
		t.Errorf("reload of a good file: %d %s", got.status, got.body)
	}
	check("after a good reload", "", "2", "1")
	good := metric(t, a, "prefork_exporter_config_last_reload_success_timestamp_seconds")

	writeFile(t, o.ConfigFile, "targts: []\n")
	want := "reload: " + o.ConfigFile + `:1: unknown key "targts": want multiproc or targets` + "\n"
	if got := post(); got.status != http.StatusInternalServerError || got.body != want {
		t.Errorf("reload of a bad file: %d %q, want 500 %q", got.status, got.body, want)
	}
	check("after a bad reload", "", "2", "0")
	if got := metric(t, a, "prefork_exporter_config_last_reload_success_timestamp_seconds"); got != good {
		t.Errorf("time of the last good reload = %s after a bad one, want %s", got, good)
	}

	writeFile(t, o.ConfigFile, "") // no target: nothing to watch
	if got := post(); got.status != http.StatusInternalServerError {
		t.Errorf("reload of an empty file: %d %s, want 500", got.status, got.body)
	}
	check("after an empty file", "", "2", "0")

	writeFile(t, o.ConfigFile, config(first))
	hangup <- syscall.SIGHUP
	hangup <- syscall.SIGHUP // is taken when the first one is done
	check("after a signal", "1", "", "1")
}

func TestCheckNeedsNoDirectory(t *testing.T) {
	file := filepath.Join(t.TempDir(), "c.yml")
	o := DefaultOptions()
	o.ConfigFile = file
	for name, tc := range map[string]struct {
		text                 string
		targets, directories int
		err                  string
	}{
		"nothing": {"", 0, 0, ""},
		"two targets": {
			"targets: [{multiproc: {dirs: [/a, /b]}}, {labels: {a: b}, multiproc: {dirs: [/c]}}]", 2, 3, "",
		},
		"a bad key": {"target: []", 0, 0, file + `:1: unknown key "target": want multiproc or targets`},
	} {
		t.Run(name, func(t *testing.T) {
			writeFile(t, file, tc.text)
			targets, directories, err := Check(o)
			checkError(t, err, tc.err)
			if targets != tc.targets || directories != tc.directories {
				t.Errorf("%d targets, %d directories, want %d and %d", targets, directories, tc.targets, tc.directories)
			}
		})
	}
	o.ConfigFile, o.WebConfigFile = "", file+".web"
	_, _, err := Check(o)
	checkError(t, err, "--web.config.file "+file+".web: open "+file+".web: no such file or directory")
}
