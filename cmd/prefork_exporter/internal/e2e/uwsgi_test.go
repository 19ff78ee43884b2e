package e2e

import (
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// startUWSGI starts uWSGI over app.py, which names its files by the workers'
// numbers there. A worker ends after so many requests.
func startUWSGI(t *testing.T, dir, family string, maxRequests int) *server {
	t.Helper()
	need(t, append(pythonPeers(), peer{"/usr/bin/uwsgi-core", "uwsgi-core"},
		peer{"/usr/lib/uwsgi/plugins/python3_plugin.so", "uwsgi-plugin-python3"})...)
	address := freeAddress(t)
	cmd := exec.Command("/usr/bin/uwsgi-core", "--plugin", "python3", "--http-socket", address, "--master", "--no-orphans",
		"--processes", strconv.Itoa(workers), "--max-requests", strconv.Itoa(maxRequests), "--min-worker-lifetime", "0",
		"--need-app", "--disable-logging", "--chdir", testdata(t, ""), "--wsgi-file", "app.py")
	s := startServer(t, address, cmd, "PROMETHEUS_MULTIPROC_DIR="+dir, "FAMILY="+family)
	s.once = true
	s.stop = syscall.SIGKILL // on another signal it may wait for a worker that it has just started
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
