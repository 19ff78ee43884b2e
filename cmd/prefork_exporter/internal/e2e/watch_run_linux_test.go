package e2e

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// charge is a server that hangs and is reloaded under `run`.
type charge struct {
	peers   []peer
	words   []string // with $LISTEN and $WATCHDATA
	hang    func(t *testing.T, e *exporter, address string)
	reloads []syscall.Signal
}

// charges are those whose timeouts only their logs tell, and gunicorn.
func charges() map[string]charge {
	ruby := peer{rubyPath, "ruby"}
	return map[string]charge{
		"gunicorn": {
			peers:   []peer{{pythonPath, "python3"}, {"/usr/bin/gunicorn", "gunicorn"}},
			words:   []string{pythonPath, "/usr/bin/gunicorn", "--workers", "2", "--timeout", "2", "--bind", "$LISTEN", "--chdir", "$WATCHDATA", "app"},
			hang:    hangOverHTTP,
			reloads: []syscall.Signal{syscall.SIGHUP},
		},
		"unicorn": {
			peers:   []peer{ruby, {"/usr/bin/unicorn", "unicorn"}},
			words:   []string{rubyPath, "/usr/bin/unicorn", "--no-default-middleware", "--config-file", "$WATCHDATA/unicorn.rb", "$WATCHDATA/config.ru"},
			hang:    hangOverHTTP,
			reloads: []syscall.Signal{syscall.SIGHUP},
		},
		"puma": {
			peers:   []peer{ruby, {"/usr/bin/puma", "puma"}},
			words:   []string{rubyPath, "/usr/bin/puma", "-C", "$TESTDATA/puma_timeout.rb", "$WATCHDATA/config.ru"},
			hang:    stopOne,
			reloads: []syscall.Signal{syscall.SIGUSR1, syscall.SIGUSR2},
		},
		"uWSGI": {
			peers: []peer{{pythonPath, "python3"}, {"/usr/bin/uwsgi-core", "uwsgi-core"}, {"/usr/lib/uwsgi/plugins/python3_plugin.so", "uwsgi-plugin-python3"}},
			words: []string{
				"/usr/bin/uwsgi-core", "--plugin", "python3", "--http-socket", "$LISTEN", "--master", "--processes", "2", "--harakiri", "2",
				"--need-app", "--disable-logging", "--chdir", "$WATCHDATA", "--wsgi-file", "app.py",
			},
			hang:    hangOverHTTP,
			reloads: []syscall.Signal{syscall.SIGHUP},
		},
		"php-fpm": {
			peers:   []peer{{"/usr/sbin/php-fpm8.2", "php-fpm"}, {"/usr/bin/cgi-fcgi", "libfcgi-bin"}},
			words:   []string{"/usr/sbin/php-fpm8.2", "-F", "-y", "$TESTDATA/php-fpm_timeout.conf"},
			hang:    hangOverFastCGI,
			reloads: []syscall.Signal{syscall.SIGUSR2},
		},
	}
}

// hangOverHTTP sends a request that is never answered.
func hangOverHTTP(t *testing.T, _ *exporter, address string) {
	t.Helper()
	c := newClient(t, "tcp", address)
	c.once = true
	if r, err := c.do(http.MethodGet, "/hang"); err == nil && r.status == http.StatusOK {
		t.Error("GET /hang was answered")
	}
}

func hangOverFastCGI(t *testing.T, _ *exporter, address string) {
	t.Helper()
	dir := openDir(t)
	copyFile(t, watchdata(t, ""), "app.php", dir)
	cmd := exec.Command("cgi-fcgi", "-bind", "-connect", address)
	cmd.Env = append(os.Environ(), "REQUEST_METHOD=GET", "QUERY_STRING=hang", "SCRIPT_FILENAME="+filepath.Join(dir, "app.php"))
	if out, err := cmd.CombinedOutput(); err == nil && strings.HasSuffix(string(out), "ok\n") {
		t.Errorf("the request was answered: %s", out)
	}
}

// stopOne stops a worker: that of puma says that it is well while a request hangs.
func stopOne(t *testing.T, e *exporter, _ string) {
	t.Helper()
	must(t, syscall.Kill(childrenOf(t, ward{exporter: e}.masters(t)[0])[0], syscall.SIGSTOP))
}

// Every server's own word for a timeout is heard, whether it goes into a pipe or a file;
// and what the operator sends has all workers replaced, which is no failure.
func TestWhatASidecarTellsOfTheServerThatRunHasStarted(t *testing.T) {
	for name, c := range charges() {
		for where, start := range map[string]func(*testing.T, *exec.Cmd, ...string) *process{"pipe": startPiped, "file": start} {
			t.Run(name+", log in a "+where, func(t *testing.T) {
				t.Parallel()
				c.run(t, start)
			})
		}
	}
}

func (c charge) run(t *testing.T, start func(*testing.T, *exec.Cmd, ...string) *process) {
	t.Helper()
	need(t, c.peers...)
	address, web := freeAddress(t), freeAddress(t)
	names := map[string]string{"LISTEN": address, "WATCHDATA": watchdata(t, ""), "TESTDATA": testdata(t, "")}
	words := append([]string{"run", "--web.listen-address=" + web, "--"}, c.words...)
	for i, word := range words {
		words[i] = os.Expand(word, func(name string) string { return names[name] })
	}
	e := &exporter{process: start(t, command(words...), "LISTEN="+address), client: newClient(t, "tcp", web), address: web}
	e.awaitListener(t, address)
	e.awaitPage(t, e.process, "/-/healthy")
	e.says(t, theTarget, "2")
	c.hang(t, e, address)
	e.says(t, theRestarts, "timeout 1")
	e.says(t, theWorkers, "running 2")
	e.says(t, theReloads, "")
	for i, how := range c.reloads {
		e.signal(how)
		e.says(t, theReloads, fmt.Sprintf("success %d", i+1))
		e.says(t, theRestarts, fmt.Sprintf("reload %d, timeout 1", 2*(i+1)))
		e.says(t, theWorkers, "running 2")
		e.says(t, theTarget, "2")
	}
	e.says(t, theMasters, "")
	e.lacks(t, "exit_status", "")
}
