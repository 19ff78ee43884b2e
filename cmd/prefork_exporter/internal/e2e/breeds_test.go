package e2e

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
)

// breed is a kind of server that is its own master, as it runs under us: with as many
// workers as workers says.
type breed struct {
	peers []peer
	words []string                                                  // its command, by variables of its environment
	flags []string                                                  // of ours
	under []string                                                  // the command that we are started by; none: the test itself
	start func(t *testing.T, cmd *exec.Cmd, env ...string) *process // nil: start
	init  bool                                                      // that command has us as its child, the first of a PID namespace

	ready    string   // what the log says when a worker, by its process id, is; one that is not loses signals
	counts   language // of the client library; none: it has no family
	requests func(w ward, path string) error

	reload  syscall.Signal // has all workers replaced
	scales  bool           // by TTIN and TTOU
	inPlace bool           // USR2 has the master become another program; else another master outlives it
	handsOn syscall.Signal // has the old master end when there is a new one; zero: there never is
	ends    int            // its status after a TERM
}

// breeds returns the kinds of servers.
func breeds() map[string]breed {
	rubyPeers := []peer{{rubyPath, "ruby"}, {"/usr/lib/ruby/vendor_ruby/prometheus/client.rb", "ruby-prometheus-client-mmap"}}
	return map[string]breed{
		"gunicorn": {
			peers: append(pythonPeers(), peer{"/usr/bin/gunicorn", "gunicorn"}),
			words: []string{
				pythonPath, "/usr/bin/gunicorn", "--workers", strconv.Itoa(workers), "--bind", "$LISTEN",
				"--chdir", "$TESTDATA", "--config", "$TESTDATA/gunicorn.conf.py", "app",
			},
			ready: "[%d] [INFO] Application is loaded", counts: python("app"), requests: overHTTP,
			reload: syscall.SIGHUP, scales: true, handsOn: syscall.SIGTERM,
		},
		"uWSGI": { // it is scaled by a pipe of its own only
			peers: append(pythonPeers(), peer{"/usr/bin/uwsgi-core", "uwsgi-core"}, peer{"/usr/lib/uwsgi/plugins/python3_plugin.so", "uwsgi-plugin-python3"}),
			words: []string{
				"/usr/bin/uwsgi-core", "--plugin", "python3", "--http-socket", "$LISTEN", "--master", "--processes", strconv.Itoa(workers),
				"--need-app", "--disable-logging", "--chdir", "$TESTDATA", "--wsgi-file", "app.py",
				"--hook-master-start", "unix_signal:15 gracefully_kill_them_all",
			},
			flags:  []string{"--stop-signal=TERM"},
			ready:  "(pid: %d, cores: 1)",
			counts: python("app"), requests: overHTTP, reload: syscall.SIGHUP,
		},
		"unicorn": {
			peers:  append(rubyPeers, peer{"/usr/bin/unicorn", "unicorn"}),
			words:  []string{rubyPath, "/usr/bin/unicorn", "--no-default-middleware", "--config-file", "$TESTDATA/unicorn.rb", "$TESTDATA/config.ru"},
			ready:  "#%d]  INFO -- : worker=",
			counts: ruby("app"), requests: overHTTP, reload: syscall.SIGHUP, scales: true, handsOn: syscall.SIGQUIT,
		},
		"puma": {
			peers:  append(rubyPeers, peer{"/usr/bin/puma", "puma"}),
			words:  []string{rubyPath, "/usr/bin/puma", "-C", "$TESTDATA/puma.rb", "$TESTDATA/config.ru"},
			ready:  "(PID: %d) booted",
			counts: ruby("app"), requests: overHTTP, reload: syscall.SIGUSR1, scales: true, inPlace: true, ends: 128 + int(syscall.SIGTERM),
		},
		"php-fpm": {
			peers:    []peer{{"/usr/sbin/php-fpm8.2", "php-fpm"}, {"/usr/bin/cgi-fcgi", "libfcgi-bin"}},
			words:    []string{"/usr/sbin/php-fpm8.2", "-F", "-y", "$TESTDATA/php-fpm.conf"},
			requests: overFastCGI, reload: syscall.SIGUSR2, inPlace: true,
		},
	}
}

// ward is a server that runs under us.
type ward struct {
	*exporter
	breed
	app      *client
	address  string
	gate     string // the file that lets requests to /wait be answered
	answered *atomic.Int64
}

// run starts the program around a server.
func (b breed) run(t *testing.T, flags ...string) ward {
	t.Helper()
	need(t, b.peers...)
	dir, web := openDir(t), freeAddress(t)
	w := ward{breed: b, address: freeAddress(t), gate: filepath.Join(dir, "gate"), answered: new(atomic.Int64)}
	must(t, os.Chmod(dir, 0o777)) // php-fpm's workers have another user
	copyFile(t, testdata(t, ""), "app.php", dir)
	env := map[string]string{
		"LISTEN": w.address, "TESTDATA": testdata(t, ""), "DIR": dir, "GATE": w.gate, "FAMILY": "app", "METRIC_DIR": dir,
	}
	words := slices.Concat(b.under, []string{program, "run", "--web.listen-address=" + web, "--multiproc.dir=" + dir}, b.flags, flags, []string{"--"}, b.words)
	for i, word := range words {
		words[i] = os.Expand(word, func(name string) string { return env[name] })
	}
	var pairs []string
	for name, value := range env {
		pairs = append(pairs, name+"="+value)
	}
	if w.start == nil {
		w.start = start
	}
	w.exporter = &exporter{process: w.start(t, exec.Command(words[0], words[1:]...), pairs...), client: newClient(t, "tcp", web), address: web}
	w.app = newClient(t, "tcp", w.address)
	w.app.once = true
	w.awaitListener(t, w.address)
	w.awaitPage(t, w.process, "/-/healthy")
	await(t, "the workers", func() bool { return len(w.workers(t)) > 0 })
	return w
}

// pid returns our own process id.
func (w ward) pid(t *testing.T) int {
	t.Helper()
	if w.init {
		return childrenOf(t, w.cmd.Process.Pid)[0]
	}
	return w.cmd.Process.Pid
}

func (w ward) sends(t *testing.T, s syscall.Signal) {
	t.Helper()
	must(t, syscall.Kill(w.pid(t), s))
}

// ask sends a request, which has to be answered well.
func (w ward) ask(path string) error {
	err := w.requests(w, path)
	if err == nil {
		w.answered.Add(1)
	}
	return err
}

func overHTTP(w ward, path string) error {
	r, err := w.app.do(http.MethodGet, path+"?seconds=2")
	if err == nil && r.status != http.StatusOK {
		err = fmt.Errorf("GET %s: status %d", path, r.status)
	}
	return err
}

func overFastCGI(w ward, path string) error {
	cmd := exec.Command("cgi-fcgi", "-bind", "-connect", w.address)
	cmd.Env = append(os.Environ(), "REQUEST_METHOD=GET", "QUERY_STRING="+strings.TrimPrefix(path, "/"),
		"SCRIPT_FILENAME="+filepath.Join(filepath.Dir(w.gate), "app.php"))
	out, err := cmd.CombinedOutput()
	if err == nil && !strings.HasSuffix(string(out), "done") {
		err = fmt.Errorf("GET %s: %q", path, out)
	}
	return err
}

// load sends requests until the function that it returns is called. All have to be answered.
func (w ward) load(t *testing.T) (stop func()) {
	t.Helper()
	var stopping atomic.Bool
	var group sync.WaitGroup
	for range 2 {
		group.Go(func() {
			for !stopping.Load() {
				if err := w.ask("/"); err != nil {
					t.Errorf("after %d answers: %v", w.answered.Load(), err)
					return
				}
			}
		})
	}
	stop = func() {
		stopping.Store(true)
		group.Wait()
	}
	t.Cleanup(stop)
	return stop
}

// masters returns our children but for the sidecar.
func (w ward) masters(t *testing.T) []int {
	t.Helper()
	return slices.DeleteFunc(childrenOf(t, w.pid(t)), func(pid int) bool {
		exe, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
		return exe == program
	})
}

// workers returns those of the present master.
func (w ward) workers(t *testing.T) []int {
	t.Helper()
	if masters := w.masters(t); len(masters) == 1 {
		return childrenOf(t, masters[0])
	}
	return nil
}

// areReady says whether there are n workers that are.
func (w ward) areReady(t *testing.T, pids []int, n int) bool {
	t.Helper()
	log := w.output(t, w.stdout) + w.output(t, w.stderr)
	return len(pids) == n && !slices.ContainsFunc(pids, func(pid int) bool {
		return w.ready != "" && !strings.Contains(log, fmt.Sprintf(w.ready, ownPID(pid)))
	})
}

// ownPID returns the process id that a process itself knows, in its PID namespace; zero if it is gone.
func ownPID(pid int) (own int) {
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(status)) {
		if ids := strings.Fields(line); len(ids) > 0 && ids[0] == "NSpid:" {
			own, _ = strconv.Atoi(ids[len(ids)-1])
		}
	}
	return own
}

// awaitWorkers waits until the master has so many workers, none of them in old.
func (w ward) awaitWorkers(t *testing.T, n int, old []int) {
	t.Helper()
	await(t, fmt.Sprintf("%d workers but %v", n, old), func() bool {
		now := w.workers(t)
		return w.areReady(t, now, n) && !slices.ContainsFunc(now, func(pid int) bool { return slices.Contains(old, pid) })
	})
}

// tells waits until the exporter tells so.
func (w ward) tells(t *testing.T, want float64, name string, labels ...string) {
	t.Helper()
	await(t, fmt.Sprintf("%s %v %v", name, labels, want), func() bool {
		got, err := w.tryScrape("")
		return err == nil && got.samples[series(name, labels...)] == want
	})
}

func TestRealServersRunUnderUs(t *testing.T) {
	for name, b := range breeds() {
		t.Run(name, func(t *testing.T) {
			w := b.run(t)
			w.awaitWorkers(t, workers, nil)
			if began := w.scrape(t).samples[series("prefork_master_start_time_seconds")]; began < 1e9 {
				t.Errorf("the master began at %v", began)
			}
			if b.counts.family != "" {
				w.countsAll(t, plan(60))
			}
			stop := w.load(t)
			w.isReloaded(t, b.reload)
			if b.scales {
				w.isScaled(t)
			}
			if b.inPlace {
				w.isReloaded(t, syscall.SIGUSR2)
			}
			if b.handsOn != 0 {
				w.handsOver(t)
				w.isReloaded(t, b.reload)
				w.isScaled(t)
			}
			stop()
			w.finishes(t)
		})
	}
}

// countsAll fails the test unless what is scraped is what was sent.
func (w ward) countsAll(t *testing.T, requests []request) {
	t.Helper()
	w.app.send(t, requests)
	w.answered.Add(int64(len(requests)))
	w.counts.hasCounted(t, "scrape", w.scrape(t).application(), w.counts.counted(requests))
}

// isReloaded has all workers replaced by a signal, but not the master.
func (w ward) isReloaded(t *testing.T, how syscall.Signal) {
	t.Helper()
	masters, old := w.masters(t), w.workers(t)
	w.sends(t, how)
	w.awaitWorkers(t, workers, old)
	if now := w.masters(t); !slices.Equal(now, masters) {
		t.Errorf("the master is %v, and %v before %v", now, masters, how)
	}
}

func (w ward) isScaled(t *testing.T) {
	t.Helper()
	w.sends(t, syscall.SIGTTIN)
	w.awaitWorkers(t, workers+1, nil)
	w.sends(t, syscall.SIGTTOU)
	w.awaitWorkers(t, workers, nil)
}

// handsOver has the master start another one, and end.
func (w ward) handsOver(t *testing.T) {
	t.Helper()
	old := w.masters(t)[0]
	w.sends(t, syscall.SIGUSR2)
	next := w.successor(t, old)
	must(t, syscall.Kill(old, w.handsOn))
	w.goesOn(t, next)
}

// successor waits until a master has started another one with all its workers, and returns that.
func (w ward) successor(t *testing.T, old int) (next int) {
	t.Helper()
	await(t, "a new master with its workers", func() bool {
		for _, pid := range childrenOf(t, old) {
			if w.areReady(t, childrenOf(t, pid), workers) {
				next = pid
			}
		}
		return next != 0
	})
	return next
}

// goesOn waits until another master is the only one, and ours.
func (w ward) goesOn(t *testing.T, next int) {
	t.Helper()
	await(t, "us to have the new master", func() bool { return slices.Equal(w.masters(t), []int{next}) })
	w.tells(t, 1, "prefork_master_restarts_total", "reason", "reload")
}

// finishes ends the server: the request that is in flight is answered.
func (w ward) finishes(t *testing.T) {
	t.Helper()
	var group sync.WaitGroup
	group.Go(func() {
		if err := w.ask("/wait"); err != nil {
			t.Error(err)
		}
	})
	if w.counts.family == "" {
		await(t, "the request", func() bool {
			_, err := os.Stat(w.gate + ".taken")
			return err == nil
		})
	} else {
		w.tells(t, 1, "app_requests_total", "method", "GET", "path", "/wait")
		if counted, answered := w.scrape(t).sum("app_requests_total"), w.answered.Load()+1; counted != float64(answered) {
			t.Errorf("%v requests counted, %v answered or in flight", counted, answered)
		}
	}
	w.sends(t, syscall.SIGTERM)
	w.tells(t, 1, "prefork_master_signals_total", "signal", "TERM")
	must(t, os.WriteFile(w.gate, nil, 0o644))
	group.Wait()
	if status := w.status(t); status != w.ends {
		t.Errorf("status %d, want %d", status, w.ends)
	}
	if err := w.ask("/"); err == nil {
		t.Error("somebody still answers")
	}
}
