package e2e

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// watchdata returns the path of a file that the tests of the watcher have, too.
func watchdata(t *testing.T, name string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("../../../../collector/watch/testdata", name))
	must(t, err)
	return path
}

var labelValue = regexp.MustCompile(`(\w+)="([^"]*)"`)

// told returns what a family says, but for what is 0: the values of the labels, in the
// order of their names, and its own.
func (e scraped) told(name string) string {
	var all []string
	for s, v := range e.samples {
		if !isOf(s, name+`"`) || v == 0 {
			continue
		}
		var words []string
		for _, pair := range labelValue.FindAllStringSubmatch(s, -1) {
			if pair[1] != "__name__" {
				words = append(words, pair[2])
			}
		}
		all = append(all, strings.Join(append(words, strconv.FormatFloat(v, 'g', -1, 64)), " "))
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}

const (
	theExits    = "prefork_worker_exits_total"
	theRestarts = "prefork_master_worker_restart_total"
	theReloads  = "prefork_master_reloads_total"
	theMasters  = "prefork_master_restarts_total"
	theWorkers  = "prefork_workers"
	theTarget   = "prefork_workers_target"
)

// says waits until a family says that, and nothing else.
func (e *exporter) says(t *testing.T, name, want string) {
	t.Helper()
	awaitNil(t, name, func() error {
		got, err := e.tryScrape("")
		if err != nil {
			return err
		}
		if told := got.told(name); told != want {
			return fmt.Errorf("%q, want %q", told, want)
		}
		return nil
	})
}

// lacks waits until a feature is missing for that reason; empty: until it is there.
func (e *exporter) lacks(t *testing.T, feature, reason string) {
	t.Helper()
	want := 0.0
	if reason == "" {
		want = 1
	}
	awaitNil(t, "feature "+feature, func() error {
		got, err := e.tryScrape("")
		if err != nil {
			return err
		}
		if v, ok := got.samples[series("prefork_feature_available", "feature", feature, "reason", reason)]; !ok || v != want {
			return fmt.Errorf("not told that it lacks %q; there are %s", reason, got.features())
		}
		return nil
	})
}

// isUp waits until the exporter tells whether every master is there.
func (e *exporter) isUp(t *testing.T, want float64) {
	t.Helper()
	await(t, fmt.Sprintf("prefork_up %v", want), func() bool {
		got, err := e.tryScrape("")
		v, ok := got.samples[series("prefork_up")]
		return err == nil && ok && v == want
	})
}

// features returns those that are told, for errors.
func (e scraped) features() string {
	var all []string
	for s, v := range e.samples {
		if isOf(s, "prefork_feature_available") {
			all = append(all, fmt.Sprintf("%s %v", s, v))
		}
	}
	slices.Sort(all)
	return strings.Join(all, "\n")
}

// beside starts the sidecar alone.
func beside(t *testing.T, flags ...string) *exporter {
	t.Helper()
	address := freeAddress(t)
	return startExporterCommand(t, address, command(append([]string{"--web.listen-address", address}, flags...)...))
}

// outsider is a server that a sidecar watches from outside.
type outsider struct {
	*server
	*exporter
	address, pidfile string
}

// besideGunicorn starts both. The server has the application of the watcher's own tests.
func besideGunicorn(t *testing.T, words ...string) outsider {
	t.Helper()
	s, address, pidfile := gunicornWithPIDFile(t, nil, words...)
	e := beside(t, "--master.pidfile="+pidfile)
	return outsider{s, e, address, pidfile}
}

func gunicornWithPIDFile(t *testing.T, prepare func(*exec.Cmd), words ...string) (s *server, address, pidfile string) {
	t.Helper()
	need(t, peer{pythonPath, "python3"}, peer{"/usr/bin/gunicorn", "gunicorn"})
	pidfile = filepath.Join(openDir(t), "pid")
	must(t, os.Chmod(filepath.Dir(pidfile), 0o777))
	address = freeAddress(t)
	return startGunicornAt(t, prepare, address, pidfile, words...), address, pidfile
}

func startGunicornAt(t *testing.T, prepare func(*exec.Cmd), address, pidfile string, words ...string) *server {
	t.Helper()
	words = append([]string{"/usr/bin/gunicorn", "--pid", pidfile, "--bind", address, "--chdir", watchdata(t, "")}, words...)
	if slices.Contains(words, "--pythonpath") {
		words = slices.DeleteFunc(words, func(w string) bool { return w == "--chdir" || w == watchdata(t, "") })
	}
	cmd := exec.Command(pythonPath, append(words, "app")...)
	if prepare != nil {
		prepare(cmd)
	}
	s := startServer(t, address, cmd)
	s.once = true
	s.awaitListener(t, address)
	return s
}

// ends asks for a page by which a worker ends.
func (s *server) ends(t *testing.T, path string) {
	t.Helper()
	if r, err := s.do(http.MethodGet, path); err == nil {
		t.Errorf("GET %s was answered with status %d", path, r.status)
	}
}

// kills ends one of a process's children, and returns it.
func (p *process) kills(t *testing.T, how syscall.Signal) int {
	t.Helper()
	victim := p.children(t)[0]
	must(t, syscall.Kill(victim, how))
	return victim
}

func TestWhatASidecarTellsOfAGunicornThatItHasNotStarted(t *testing.T) {
	t.Parallel()
	o := besideGunicorn(t, "--workers", "3", "--timeout", "4")
	e, s := o.exporter, o.server
	e.says(t, theTarget, "3")
	e.says(t, theWorkers, "running 3")
	e.says(t, theExits, "")
	e.lacks(t, "master", "")
	e.lacks(t, "exit_status", "")
	e.lacks(t, "worker_heartbeat", "")
	e.isUp(t, 1)

	s.ends(t, "/exit/7")
	e.says(t, theExits, "7 1")
	e.says(t, theRestarts, "exit_code 1")

	asked := time.Now()
	s.kills(t, syscall.SIGKILL)
	e.says(t, theExits, "7 1, KILL 1")
	t.Logf("a death was told after %s, with the time that it takes to ask for it", time.Since(asked))
	e.says(t, theRestarts, "exit_code 1, signal 1")

	s.ends(t, "/crash")
	e.says(t, theExits, "7 1, KILL 1, SEGV 1")
	e.says(t, theRestarts, "exit_code 1, signal 2")

	s.ends(t, "/hang")
	e.says(t, theExits, "1 1, 7 1, KILL 1, SEGV 1")
	e.says(t, theRestarts, "exit_code 1, signal 2, timeout 1")
	e.says(t, theWorkers, "running 3")

	e.says(t, theTarget, "3")
	s.signal(syscall.SIGTTOU)
	e.says(t, theTarget, "2")
	e.says(t, theWorkers, "running 2")
	e.says(t, theRestarts, "exit_code 1, signal 2, timeout 1")

	s.signal(syscall.SIGHUP)
	e.says(t, theReloads, "success 1")
	e.says(t, theRestarts, "exit_code 1, reload 2, signal 2, timeout 1")
	e.says(t, theWorkers, "running 3") // as its command line says

	s.signal(syscall.SIGTERM)
	e.lacks(t, "master", "there is no pidfile")
	e.isUp(t, 0)
	e.says(t, theRestarts, "exit_code 1, reload 2, signal 2, timeout 1")
	if n := e.scrape(t).sum(theExits); n != 10 {
		t.Errorf("%v exits, want 4 that were made, 1 that was too many, 2 that were old, and the last 3", n)
	}
}

func TestWorkersThatHaveAnsweredAllTheirRequests(t *testing.T) {
	t.Parallel()
	o := besideGunicorn(t, "--workers", "2", "--max-requests", "1")
	o.exporter.says(t, theTarget, "2")
	for range 3 {
		_, err := o.server.get("/")
		must(t, err)
	}
	o.exporter.says(t, theRestarts, "max_requests 3")
	o.exporter.says(t, theExits, "0 3")
}

// An application that is broken by the time that a worker has to be replaced.
func TestANewWorkerThatCannotBootStopsTheMaster(t *testing.T) {
	for name, tc := range map[string]struct {
		broken, code string
	}{
		"an error when it is loaded": {"raise RuntimeError('as the test wants it')", "3"},
		"no application":             {"other = None", "4"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := openDir(t)
			copyFile(t, watchdata(t, ""), "app.py", dir)
			o := besideGunicorn(t, "--workers", "2", "--pythonpath", dir)
			o.exporter.says(t, theTarget, "2")
			must(t, os.WriteFile(filepath.Join(dir, "app.py"), []byte(tc.broken), 0o600))
			o.server.kills(t, syscall.SIGKILL)
			if status := o.server.status(t); strconv.Itoa(status) != tc.code {
				t.Errorf("the master ended with %d, want %s", status, tc.code)
			}
			o.exporter.lacks(t, "master", "there is no pidfile")
			o.exporter.isUp(t, 0)
			o.exporter.says(t, theRestarts, "boot_error 1, signal 1")
			exits := o.exporter.scrape(t).told(theExits)
			if !strings.Contains(exits, tc.code+" 1") || !strings.Contains(exits, "KILL 1") {
				t.Errorf("%s, want one by KILL and one with %s among them", exits, tc.code)
			}
		})
	}
}

// The old master starts another, which takes over when the old one has ended.
func TestAGunicornThatIsReplacedByAnother(t *testing.T) {
	t.Parallel()
	o := besideGunicorn(t, "--workers", "2", "--graceful-timeout", "5")
	e, s := o.exporter, o.server
	e.says(t, theTarget, "2")
	old := s.children(t)
	s.signal(syscall.SIGUSR2)
	var next int
	await(t, "the new master and its workers", func() bool {
		for _, pid := range s.children(t) {
			if !slices.Contains(old, pid) && len(childrenOf(t, pid)) == 2 {
				next = pid
			}
		}
		return next != 0
	})
	e.says(t, theWorkers, "running 4")
	s.signal(syscall.SIGTERM)
	s.status(t)
	t.Cleanup(func() {
		_ = syscall.Kill(next, syscall.SIGKILL)
		awaitEnd(t, []int{next})
	})
	e.says(t, theMasters, "reload 1")
	e.says(t, theWorkers, "running 2")
	e.says(t, theTarget, "2")
	e.lacks(t, "master", "")
	got := e.scrape(t)
	if told := got.told(theRestarts); told != "reload 2" && told != "" {
		t.Errorf("%s: want the old workers to be no failures", told)
	}
	if n := got.sum(theExits); n != 2 {
		t.Errorf("%v exits, want those of the 2 old workers", n)
	}
	must(t, syscall.Kill(childrenOf(t, next)[0], syscall.SIGKILL))
	await(t, "the death of a new worker", func() bool {
		return strings.Contains(e.scrape(t).told(theRestarts), "signal 1")
	})
}

// Its listener is gone meanwhile, and what is new listens there again.
func TestAGunicornThatIsKilledAndStartedAgain(t *testing.T) {
	t.Parallel()
	s, address, pidfile := gunicornWithPIDFile(t, nil, "--workers", "2")
	e := beside(t, "--master.pidfile="+pidfile, "--listen.address="+address)
	e.says(t, theTarget, "2")
	listens := func() bool {
		_, ok := e.queueOf(t, "length", "tcp://"+address)
		return ok
	}
	await(t, "the accept queue", listens)
	orphans := s.children(t)
	s.signal(syscall.SIGKILL)
	e.lacks(t, "master", "the process that the pidfile names is not there")
	awaitEnd(t, orphans)
	await(t, "the end of the accept queue", func() bool { return !listens() })
	e.says(t, theWorkers, "")
	startGunicornAt(t, nil, address, pidfile, "--workers", "3")
	e.says(t, theMasters, "signal 1")
	e.says(t, theTarget, "3")
	e.says(t, theWorkers, "running 3")
	e.says(t, theRestarts, "")
	e.lacks(t, "master", "")
	await(t, "the accept queue again", listens)
	if n := e.scrape(t).sum(theExits); n != 2 {
		t.Errorf("%v exits, want those of the 2 that had lost their master", n)
	}
}

func TestTwoMastersAreNotMixedUp(t *testing.T) {
	t.Parallel()
	shop, _, shopFile := gunicornWithPIDFile(t, nil, "--workers", "2")
	mail, _, mailFile := gunicornWithPIDFile(t, nil, "--workers", "3")
	config := filepath.Join(t.TempDir(), "config.yml")
	must(t, os.WriteFile(config, fmt.Appendf(nil, `
targets:
  - name: shop
    labels: {app: shop}
    master: {pidfile: %s}
  - name: mail
    labels: {app: mail}
    master: {pidfile: %s, kind: gunicorn}
`, shopFile, mailFile), 0o600))
	e := beside(t, "--config.file="+config)
	e.says(t, theTarget, "mail 3, shop 2")
	e.says(t, theWorkers, "mail running 3, shop running 2")
	mail.kills(t, syscall.SIGSEGV)
	shop.ends(t, "/exit/7")
	e.says(t, theRestarts, "mail signal 1, shop exit_code 1")
	e.says(t, theExits, "mail SEGV 1, shop 7 1")
	mail.signal(syscall.SIGHUP)
	e.says(t, theReloads, "mail success 1")
	e.says(t, theRestarts, "mail reload 3, mail signal 1, shop exit_code 1")
	e.isUp(t, 1)
	shop.signal(syscall.SIGTERM)
	e.isUp(t, 0)
	got := e.scrape(t)
	for app, want := range map[string]string{"shop": "there is no pidfile", "mail": ""} {
		if _, ok := got.samples[series("prefork_feature_available", "app", app, "feature", "master", "reason", want)]; !ok {
			t.Errorf("%s: not told that its master lacks %q: %s", app, want, got.features())
		}
	}
	e.says(t, theWorkers, "mail running 3")
	mail.kills(t, syscall.SIGSEGV)
	await(t, "the next death", func() bool {
		return e.scrape(t).samples[series(theExits, "app", "mail", "signal", "SEGV")] == 2
	})
}
