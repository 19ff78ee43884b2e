package e2e

import (
	"fmt"
	"net/http"
	"os/exec"
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

// pythonMerge returns what the Python client's own collector makes of a directory.
func pythonMerge(t *testing.T, dir string) scraped {
	t.Helper()
	return output(t, exec.Command(pythonPath, testdata(t, "merge.py"), dir))
}

// startGunicorn starts gunicorn over app.py.
func startGunicorn(t *testing.T, dir, family string, args ...string) *server {
	t.Helper()
	need(t, append(pythonPeers(), peer{"/usr/bin/gunicorn", "gunicorn"})...)
	address := freeAddress(t)
	args = append([]string{
		"/usr/bin/gunicorn", "--workers", strconv.Itoa(workers), "--bind", address,
		"--chdir", testdata(t, ""), "--config", testdata(t, "gunicorn.conf.py"),
	}, args...)
	cmd := exec.Command(pythonPath, append(args, "app")...)
	s := startServer(t, address, cmd, "PROMETHEUS_MULTIPROC_DIR="+dir, "FAMILY="+family)
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

// awaitRest waits until all of gunicorn's workers have loaded the application, none is about
// to end, and gunicorn has cleared away after the dead ones: or has not for so long that it
// never will, as with a worker that ends before gunicorn 20.1 has noted its birth.
func (s *server) awaitRest(t *testing.T, dir string) {
	t.Helper()
	const looks = 200
	left, same := "", 0
	awaitNil(t, "gunicorn to be at rest", func() error {
		living := s.children(t)
		log := s.output(t, s.stderr)
		said := func(pid int, what string) bool {
			return strings.Contains(log, fmt.Sprintf("[%d] [INFO] %s", pid, what))
		}
		for _, pid := range living {
			if !said(pid, "Application is loaded") || said(pid, "Autorestarting") || said(pid, "Worker exiting") {
				return fmt.Errorf("worker %d begins or ends", pid)
			}
		}
		if len(living) != workers {
			return fmt.Errorf("workers %v", living)
		}
		dead := slices.DeleteFunc(processIDs(t, dir, "gauge_liveall_"), func(id string) bool {
			pid, err := strconv.Atoi(id)
			return err != nil || pid == s.cmd.Process.Pid || slices.Contains(living, pid)
		})
		if now := fmt.Sprint(living, dead); now != left {
			left, same = now, 0
		}
		same++
		if len(dead) > 0 && same < looks {
			return fmt.Errorf("files of %v, who are dead", dead)
		}
		return nil
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
