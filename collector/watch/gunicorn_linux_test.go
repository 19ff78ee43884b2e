package watch

import (
	"io/fs"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func gunicornWords(more ...string) []string {
	return append([]string{"/usr/bin/python3", "/usr/bin/gunicorn", "--bind", "$LISTEN", "--chdir", "$TESTDATA", "app"}, more...)
}

func TestAControlSocketThatDoesNotAnswerIsAskedMoreAndMoreSeldom(t *testing.T) {
	const s = time.Second
	silent, answers := &controlAnswer{err: fs.ErrNotExist}, &controlAnswer{}
	for name, tc := range map[string]struct {
		a            *controlAnswer
		before, want time.Duration
	}{
		"the first time":         {silent, 0, 5 * s},
		"again":                  {silent, 5 * s, 10 * s},
		"but not for ever":       {silent, 40 * s, 40 * s},
		"one that answers":       {answers, 0, 5 * s},
		"one that answers again": {answers, 40 * s, 5 * s},
	} {
		if got := tc.a.pause(tc.before); got != tc.want {
			t.Errorf("%s: after %v pauses for %v, want %v", name, tc.before, got, tc.want)
		}
	}
}

func TestWhyGunicornsWorkersEnd(t *testing.T) {
	needPeer(t, "/usr/bin/gunicorn", "gunicorn")
	for name, tc := range map[string]struct {
		env    []string
		words  []string
		stops  bool // the server ends
		deaths int
		play   func(s *server)
		want   string
	}{
		"max_requests":                     {words: []string{"-w", "2", "--max-requests", "1"}, deaths: 2, play: func(s *server) { s.ask("/"); s.ask("/") }, want: "2 max_requests 0"},
		"HUP":                              {words: []string{"-w", "2"}, deaths: 2, play: func(s *server) { s.signal(unix.SIGHUP) }, want: "2 reload 0"},
		"HUP of one":                       {words: []string{"-w", "1"}, deaths: 1, play: func(s *server) { s.signal(unix.SIGHUP) }, want: "1 reload 0"},
		"TERM":                             {words: []string{"-w", "2"}, deaths: 2, stops: true, play: func(s *server) { s.signal(unix.SIGTERM) }, want: "2 shutdown 0"},
		"INT":                              {words: []string{"-w", "2"}, deaths: 2, stops: true, play: func(s *server) { s.signal(unix.SIGINT) }, want: "2 shutdown 0"},
		"the master is killed":             {words: []string{"-w", "2"}, deaths: 2, stops: true, play: func(s *server) { s.signal(unix.SIGKILL) }, want: "2 shutdown 0"},
		"TTOU":                             {words: []string{"-w", "3"}, deaths: 1, play: func(s *server) { s.signal(unix.SIGTTOU) }, want: "1 scale_down 0"},
		"a timeout":                        {words: []string{"-w", "2", "--timeout", "2"}, deaths: 1, play: func(s *server) { go s.ask("/hang") }, want: "1 timeout 1"},
		"a timeout of one that is stopped": {words: []string{"-w", "2", "--timeout", "2"}, deaths: 1, play: func(s *server) { s.killWorker("0", unix.SIGSTOP) }, want: "1 timeout KILL"},
		"kill -9":                          {words: []string{"-w", "2"}, deaths: 1, play: func(s *server) { s.killWorker("1", unix.SIGKILL) }, want: "1 signal KILL"},
		"kill -15":                         {words: []string{"-w", "2"}, deaths: 1, play: func(s *server) { s.killWorker("1", unix.SIGTERM) }, want: "1 clean 0"},
		"a segmentation fault":             {words: []string{"-w", "2"}, deaths: 1, play: func(s *server) { s.ask("/crash") }, want: "1 signal SEGV"},
		"an exit code":                     {words: []string{"-w", "2"}, deaths: 1, play: func(s *server) { s.ask("/exit/7") }, want: "1 exit_code 7"},
		"a code like a timeout's":          {words: []string{"-w", "2"}, deaths: 1, play: func(s *server) { s.ask("/exit/1") }, want: "1 exit_code 1"},
		"an end without a word":            {words: []string{"-w", "2"}, deaths: 1, play: func(s *server) { s.ask("/exit/0") }, want: "1 clean 0"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := startServer(t, tc.env, gunicornWords(tc.words...)...).watched(Options{})
			s.awaitWorkers(int(tc.words[1][0] - '0'))
			tc.play(s)
			if got := s.awaitDeaths(tc.deaths); got != tc.want {
				t.Errorf("%s, want %s", got, tc.want)
			}
			if tc.stops {
				await(t, "the master's end", func() bool { return s.now().Master == 0 })
			}
		})
	}
}

// As a script starts it, which the exporter may see first.
func TestAMasterThatBecomesGunicornIsOne(t *testing.T) {
	needPeer(t, "/usr/bin/gunicorn", "gunicorn")
	t.Parallel()
	s := startServer(t, nil, "/bin/sh", "-c", "sleep 1; exec /usr/bin/python3 /usr/bin/gunicorn --bind $LISTEN --chdir $TESTDATA -w 2 --timeout 2 app").watched(Options{})
	await(t, "the script", func() bool { return s.now().Kind == Generic })
	s.awaitWorkers(2)
	await(t, "signs of life", func() bool {
		state := s.now()
		return state.Kind == Gunicorn && !state.Workers[0].LifeSign.IsZero() && !state.Workers[1].LifeSign.IsZero()
	})
	go s.ask("/hang")
	if got := s.awaitDeaths(1); got != "1 timeout 1" {
		t.Error(got)
	}
}
