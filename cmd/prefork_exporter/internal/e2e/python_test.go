package e2e

import (
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// pythonPath is Debian's interpreter: others do not see Debian's packages.
const pythonPath = "/usr/bin/python3"

// pythonPeers are what all tests with the Python client need.
func pythonPeers() []peer {
	return []peer{
		{pythonPath, "python3"},
		{"/usr/lib/python3/dist-packages/prometheus_client", "python3-prometheus-client"},
	}
}

// testdata returns the absolute path of a file in testdata.
func testdata(t *testing.T, name string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("testdata", name))
	must(t, err)
	return path
}

// pythonMerge returns what the Python client's own collector makes of a directory.
func pythonMerge(t *testing.T, dir string) exposition {
	t.Helper()
	return output(t, exec.Command(pythonPath, testdata(t, "merge.py"), dir))
}

// server is a real server that runs a test application.
type server struct {
	*process
	*client
}

// workers is how many workers the servers run.
const workers = 3

// startGunicorn starts gunicorn over app.py.
func startGunicorn(t *testing.T, dir, family string, args ...string) *server {
	t.Helper()
	need(t, append(pythonPeers(), peer{"/usr/bin/gunicorn", "gunicorn"})...)
	address := freeAddress(t)
	args = append([]string{
		"/usr/bin/gunicorn", "--workers", strconv.Itoa(workers), "--bind", address,
		"--chdir", testdata(t, ""), "--config", testdata(t, "gunicorn.conf.py"),
	}, args...)
	s := &server{
		process: start(t, exec.Command(pythonPath, append(args, "app")...), "PROMETHEUS_MULTIPROC_DIR="+dir, "FAMILY="+family),
		client:  newClient(t, "tcp", address),
	}
	s.awaitListener(t, address)
	return s
}

func TestGunicornCountsWhatWasSent(t *testing.T) {
	for name, args := range map[string][]string{
		"sync workers":                       {"--worker-class", "sync"},
		"application loaded before the fork": {"--worker-class", "sync", "--preload"},
		"workers with threads":               {"--worker-class", "gthread", "--threads", "4", "--keep-alive", "60"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := startGunicorn(t, dir, "app", args...)
			e := startExporter(t, dir)
			requests := plan(400)
			s.send(t, requests)
			s.awaitRest(t, dir)

			got := e.scrape(t).application()
			python("app").hasCounted(t, "scrape", got, python("app").counted(requests))
			want := pythonMerge(t, dir)
			same(t, "scrape beside the client's own collector", got, want)
			same(t, "merge beside the client's own collector", merged(t, dir), want)
		})
	}
}

// awaitRest waits until all workers have loaded the application, none is about
// to end, and gunicorn has cleared away after the dead ones.
func (s *server) awaitRest(t *testing.T, dir string) {
	t.Helper()
	await(t, "gunicorn to be at rest", func() bool {
		living := s.children(t)
		log := s.output(t, s.stderr)
		said := func(pid int, what string) bool {
			return strings.Contains(log, fmt.Sprintf("[%d] [INFO] %s", pid, what))
		}
		for _, pid := range living {
			if !said(pid, "Application is loaded") || said(pid, "Autorestarting") || said(pid, "Worker exiting") {
				return false
			}
		}
		buried := !slices.ContainsFunc(processIDs(t, dir, "gauge_liveall_"), func(id string) bool {
			pid, err := strconv.Atoi(id)
			return err == nil && pid != s.cmd.Process.Pid && !slices.Contains(living, pid)
		})
		return buried && len(living) == workers
	})
}

// die makes one worker count a request and kill itself.
func (s *server) die(t *testing.T) {
	t.Helper()
	if r, err := s.do(http.MethodGet, "/die"); err == nil {
		t.Errorf("GET /die was answered with status %d", r.status)
	}
}

// Workers that are replaced, reloaded and killed leave what they had counted:
// the one request that is counted and not answered is the one that kills.
func TestGunicornCountsOnOverItsWorkersDeaths(t *testing.T) {
	dir := t.TempDir()
	s := startGunicorn(t, dir, "app", "--max-requests", "40")
	e := startExporter(t, dir)
	stop := e.watch(t, 20, rising{}.see)
	first := s.children(t)

	requests := plan(900)
	s.send(t, requests[:300])
	s.signal(syscall.SIGHUP)
	s.send(t, requests[300:600])
	s.die(t)
	s.send(t, requests[600:])
	stop()
	s.awaitSuccessors(t, workers, first)
	s.awaitRest(t, dir)

	want := python("app").counted(requests)
	want[series("app_requests_total", "method", "GET", "path", "/die")] = 1
	got := e.scrape(t).application()
	python("app").hasCounted(t, "scrape", got, want)
	same(t, "scrape beside the client's own collector", got, pythonMerge(t, dir))
	if n := len(processIDs(t, dir, "counter_")); n < len(requests)/40 {
		t.Errorf("%d processes have counted: want one for each 40 of %d requests", n, len(requests))
	}
}

// processIDs returns the ids of the processes that have a file whose name begins with prefix.
func processIDs(t *testing.T, dir, prefix string) []string {
	t.Helper()
	var ids []string
	for _, name := range fileNames(t, dir) {
		if id, ok := strings.CutPrefix(strings.TrimSuffix(name, ".db"), prefix); ok {
			ids = append(ids, id)
		}
	}
	return ids
}

// startUWSGI starts uWSGI over app.py, which names its files by the workers'
// numbers there. A worker ends after so many requests.
func startUWSGI(t *testing.T, dir, family string, maxRequests int) *server {
	t.Helper()
	need(t, append(pythonPeers(),
		peer{"/usr/bin/uwsgi-core", "uwsgi-core"}, peer{"/usr/lib/uwsgi/plugins/python3_plugin.so", "uwsgi-plugin-python3"})...)
	address := freeAddress(t)
	cmd := exec.Command("/usr/bin/uwsgi-core", "--plugin", "python3", "--http-socket", address, "--master", "--die-on-term",
		"--processes", strconv.Itoa(workers), "--max-requests", strconv.Itoa(maxRequests), "--min-worker-lifetime", "0",
		"--need-app", "--disable-logging", "--chdir", testdata(t, ""), "--wsgi-file", "app.py")
	s := &server{
		process: start(t, cmd, "PROMETHEUS_MULTIPROC_DIR="+dir, "FAMILY="+family),
		client:  newClient(t, "tcp", address),
	}
	s.once, s.stop = true, syscall.SIGKILL // on any other signal it may wait for a worker that it has just started
	s.awaitListener(t, address)
	return s
}

// A uWSGI worker that is born goes on with the files of the one that had its
// number: what it counts goes on from there.
func TestUWSGIWorkersGoOnWithTheFilesOfTheDead(t *testing.T) {
	dir := t.TempDir()
	s := startUWSGI(t, dir, "app", 60)
	e := startExporter(t, dir)
	stop := e.watch(t, 20, rising{}.see)
	requests := plan(420)
	s.send(t, requests)
	stop()

	got := e.scrape(t).application()
	python("app").hasCounted(t, "scrape", got, python("app").counted(requests))
	same(t, "scrape beside the client's own collector", got, pythonMerge(t, dir))
	await(t, "workers that are born again", func() bool {
		return strings.Count(s.output(t, s.stderr), "Respawned uWSGI worker") >= workers
	})
	want := []string{"1", "2", "3"}
	if got := processIDs(t, dir, "counter_"); !slices.Equal(got, want) {
		t.Errorf("files of processes %v, want %v", got, want)
	}
}
