package watch

import (
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"
)

// way is one in which workers end: of so many, so many of them, by that, and what is made of it.
type way struct {
	words  []string
	target int
	deaths int
	play   func(s *server)
	want   string
}

func (w way) run(t *testing.T, words []string) {
	t.Helper()
	t.Parallel()
	s := startServer(t, nil, words...).watched(Options{})
	s.awaitWorkers(w.target)
	w.play(s)
	if got := s.awaitDeaths(w.deaths); got != w.want {
		t.Errorf("%s, want %s", got, w.want)
	}
}

func TestWhyUWSGIsWorkersEnd(t *testing.T) {
	needPeer(t, "/usr/bin/uwsgi-core", "uwsgi-core")
	needPeer(t, "/usr/lib/uwsgi/plugins/python3_plugin.so", "uwsgi-plugin-python3")
	for name, w := range map[string]way{
		"reload":               {nil, 2, 2, func(s *server) { s.signal(unix.SIGHUP) }, "2 reload 17"},
		"stop":                 {nil, 2, 2, func(s *server) { s.signal(unix.SIGINT) }, "2 shutdown 0"},
		"kill -9":              {nil, 2, 1, func(s *server) { s.killWorker("0", unix.SIGKILL) }, "1 signal KILL"},
		"an exit code":         {nil, 2, 1, func(s *server) { s.ask("/exit/7") }, "1 exit_code 7"},
		"a segmentation fault": {nil, 2, 1, func(s *server) { s.ask("/crash") }, "1 signal SEGV"},
		"max-requests":         {[]string{"--max-requests", "1", "--min-worker-lifetime", "1"}, 2, 1, func(s *server) { s.ask("/") }, "1 max_requests 0"},
	} {
		t.Run(name, func(t *testing.T) {
			w.run(t, append([]string{
				"/usr/bin/uwsgi-core", "--plugin", "python3", "--http-socket", "$LISTEN", "--master", "--processes", "2", "--mule",
				"--need-app", "--chdir", "$TESTDATA", "--wsgi-file", "app.py",
			}, w.words...))
		})
	}
}

// Where neither its workers nor its helpers call themselves something, sockets tell.
func TestWhichOfUWSGIsProcessesAreWorkers(t *testing.T) {
	needPeer(t, "/usr/bin/uwsgi-core", "uwsgi-core")
	for name, tc := range map[string]struct {
		words []string
		want  int
		slots string
	}{
		"a mule":                          {[]string{"--http-socket", "$LISTEN", "--processes", "3", "--mule"}, 3, "0 1 2"},
		"a router":                        {[]string{"--plugin", "http", "--http", "$LISTEN", "--socket", "127.0.0.1:0", "--processes", "3", "--mule"}, 3, "0 1 2"},
		"a router, and one worker":        {[]string{"--plugin", "http", "--http", "$LISTEN", "--socket", "127.0.0.1:0", "--processes", "1"}, 1, "0"},
		"all of them say what they are":   {[]string{"--auto-procname", "--plugin", "http", "--http", "$LISTEN", "--socket", "127.0.0.1:0", "--processes", "2", "--mule"}, 2, "1 2"},
		"they say it behind another name": {[]string{"--procname-prefix", "shop ", "--http-socket", "$LISTEN", "--processes", "2", "--mule"}, 2, "1 2"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			words := append([]string{"/usr/bin/uwsgi-core", "--plugin", "python3", "--master", "--need-app", "--chdir", "$TESTDATA", "--wsgi-file", "app.py"}, tc.words...)
			s := startServer(t, nil, words...).watched(Options{})
			s.awaitWorkers(tc.want)
			if got := slotsOf(s.now()); got != tc.slots {
				t.Errorf("slots %s, want %s", got, tc.slots)
			}
		})
	}
}

func TestWhyUnicornsWorkersEnd(t *testing.T) {
	needPeer(t, "/usr/bin/unicorn", "unicorn")
	for name, w := range map[string]way{
		"HUP":          {nil, 2, 2, func(s *server) { s.signal(unix.SIGHUP) }, "2 reload 0"},
		"QUIT":         {nil, 2, 2, func(s *server) { s.signal(unix.SIGQUIT) }, "2 shutdown 0"},
		"TERM":         {nil, 2, 2, func(s *server) { s.signal(unix.SIGTERM) }, "2 shutdown 0"},
		"TTOU":         {nil, 2, 1, func(s *server) { s.signal(unix.SIGTTOU) }, "1 scale_down 0"},
		"kill -9":      {nil, 2, 1, func(s *server) { s.killWorker("1", unix.SIGKILL) }, "1 signal KILL"},
		"QUIT to one":  {nil, 2, 1, func(s *server) { s.killWorker("1", unix.SIGQUIT) }, "1 clean 0"},
		"an exit code": {nil, 2, 1, func(s *server) { s.ask("/exit/7") }, "1 exit_code 7"},
		"a timeout, of which only the log would tell": {nil, 2, 1, func(s *server) { go s.ask("/hang") }, "1 signal KILL"},
	} {
		t.Run(name, func(t *testing.T) {
			w.run(t, []string{"/usr/bin/ruby", "/usr/bin/unicorn", "--no-default-middleware", "--config-file", "$TESTDATA/unicorn.rb", "$TESTDATA/config.ru"})
		})
	}
}

func TestWhyPumasWorkersEnd(t *testing.T) {
	needPeer(t, "/usr/bin/puma", "puma")
	for name, w := range map[string]way{
		"hot restart":  {nil, 2, 2, func(s *server) { s.signal(unix.SIGUSR2) }, "2 reload 0"},
		"TERM":         {nil, 2, 2, func(s *server) { s.signal(unix.SIGTERM) }, "2 shutdown 0"},
		"TTOU":         {nil, 2, 1, func(s *server) { s.signal(unix.SIGTTOU) }, "1 scale_down 0"},
		"kill -9":      {nil, 2, 1, func(s *server) { s.killWorker("1", unix.SIGKILL) }, "1 signal KILL"},
		"an exit code": {nil, 2, 1, func(s *server) { s.ask("/exit/7") }, "1 exit_code 7"},
	} {
		t.Run(name, func(t *testing.T) {
			w.run(t, []string{"/usr/bin/ruby", "/usr/bin/puma", "-C", "$TESTDATA/puma.rb", "$TESTDATA/config.ru"})
		})
	}
}

func TestWhyPHPFPMsWorkersEnd(t *testing.T) {
	needPeer(t, "/usr/sbin/php-fpm8.2", "php-fpm")
	needPeer(t, "/usr/bin/cgi-fcgi", "libfcgi-bin")
	ask := func(s *server, query string) {
		c := exec.Command("/usr/bin/cgi-fcgi", "-bind", "-connect", s.address)
		c.Dir = "testdata"
		c.Env = []string{"SCRIPT_FILENAME=" + s.script(), "REQUEST_METHOD=GET", "QUERY_STRING=" + query}
		_ = c.Run() // what is answered, if anything, does not matter
	}
	for name, w := range map[string]way{
		"reload":               {nil, 2, 2, func(s *server) { s.signal(unix.SIGUSR2) }, "2 reload 0"},
		"QUIT":                 {nil, 2, 2, func(s *server) { s.signal(unix.SIGQUIT) }, "2 shutdown 0"},
		"TERM":                 {nil, 2, 2, func(s *server) { s.signal(unix.SIGTERM) }, "2 shutdown 0"},
		"kill -9":              {nil, 2, 1, func(s *server) { s.killWorker("1", unix.SIGKILL) }, "1 signal KILL"},
		"a segmentation fault": {nil, 2, 1, func(s *server) { ask(s, "kill=11") }, "1 signal SEGV"},
	} {
		t.Run(name, func(t *testing.T) {
			w.run(t, []string{"/usr/sbin/php-fpm8.2", "-F", "-y", "$TESTDATA/php-fpm.conf"})
		})
	}
}
