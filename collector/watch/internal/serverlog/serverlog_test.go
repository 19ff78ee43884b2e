package serverlog_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/prefork-exporter/prefork_exporter/collector/watch/internal/serverlog"
)

var update = flag.Bool("update", false, "write testdata/*.events anew")

// show is an event on one line.
func show(e serverlog.Event) string {
	out := e.Server + " " + string(e.What)
	for _, n := range []struct {
		name  string
		value int
	}{{"by", e.By}, {"pid", e.PID}, {"worker", e.Worker}, {"code", e.Code}} {
		if n.value != serverlog.None {
			out += fmt.Sprintf(" %s=%d", n.name, n.value)
		}
	}
	if e.Signal != "" {
		out += " signal=" + e.Signal
	}
	return out
}

// read returns the events of a log.
func read(t *testing.T, r io.Reader) (events []string) {
	t.Helper()
	if err := serverlog.Read(r, func(e serverlog.Event) { events = append(events, show(e)) }); err != nil {
		t.Error(err)
	}
	return events
}

// What real servers have logged, recorded by testdata/generate.py.
func TestWhatServersOfDebianLog(t *testing.T) {
	logs, err := filepath.Glob("testdata/*.log")
	if err != nil || len(logs) < 10 {
		t.Fatalf("%d logs, %v", len(logs), err)
	}
	for _, log := range logs {
		t.Run(filepath.Base(log), func(t *testing.T) {
			text, err := os.ReadFile(log)
			if err != nil {
				t.Fatal(err)
			}
			got := strings.Join(read(t, bytes.NewReader(text)), "\n") + "\n"
			golden := strings.TrimSuffix(log, ".log") + ".events"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("the events are\n%s\nwant\n%s", got, want)
			}
		})
	}
}

// One line each. The texts are those that were recorded, but where another version is
// named: these are of its sources.
func TestWhatALineTells(t *testing.T) {
	const (
		gunicorn = "[2026-11-21 23:23:51 +0000] [100] [INFO] "
		ruby     = "E, [2026-11-21T23:28:41.455547 #100] ERROR -- : "
		php      = "[21-Nov-2026 23:28:03] WARNING: "
		debug    = "[21-Nov-2026 23:26:51.249405] WARNING: pid 100, fpm_children_bury(), line 289: "
		sidekiq  = "INFO  2026-11-21T23:28:41.455Z pid=100 tid=1a2b: "
		date     = "Sat Nov 21 23:24:21 2026 - "
	)
	for name, tc := range map[string]struct{ line, want string }{
		"gunicorn kills a worker that hangs":          {gunicorn + "WORKER TIMEOUT (pid:7)", "gunicorn worker_timeout by=100 pid=7"},
		"gunicorn 20.1 on a signal":                   {gunicorn + "Worker with pid 7 was terminated due to signal 11", "gunicorn worker_died by=100 pid=7 signal=SEGV"},
		"gunicorn 20.1 on a signal without a name":    {gunicorn + "Worker with pid 7 was terminated due to signal 34", "gunicorn worker_died by=100 pid=7 signal=34"},
		"gunicorn 21 on KILL":                         {gunicorn + "Worker (pid:7) was sent SIGKILL! Perhaps out of memory?", "gunicorn worker_died by=100 pid=7 signal=KILL"},
		"gunicorn 26 on TERM":                         {gunicorn + "Worker (pid:7) was sent SIGTERM!", "gunicorn worker_died by=100 pid=7 signal=TERM"},
		"gunicorn 21 on a signal without a name":      {gunicorn + "Worker (pid:7) was sent code 34!", "gunicorn worker_died by=100 pid=7 signal=34"},
		"gunicorn 26 on a signal without a name":      {gunicorn + "Worker (pid:7) was sent signal 34!", "gunicorn worker_died by=100 pid=7 signal=34"},
		"gunicorn 21 on a code":                       {gunicorn + "Worker (pid:7) exited with code 3", "gunicorn worker_died by=100 pid=7 code=3"},
		"gunicorn 26 on a code":                       {gunicorn + "Worker (pid:7) exited with code 255.", "gunicorn worker_died by=100 pid=7 code=255"},
		"gunicorn 26, an application that is missing": {gunicorn + "Reason: App failed to load.", "gunicorn boot_failed by=100"},
		"gunicorn 25, a helper":                       {gunicorn + "Spawned dirty worker (pid: 7) with apps: ['a:b']", "gunicorn helper_born by=100 pid=7"},
		"gunicorn 25, the helpers' master":            {gunicorn + "Dirty arbiter starting (pid: 7)", "gunicorn helper_born by=100 pid=7"},
		"gunicorn on QUIT":                            {gunicorn + "Handling signal: quit", "gunicorn master_stop by=100"},
		"gunicorn's other master":                     {gunicorn + "Shutting down: Master.2", "gunicorn master_stop by=100"},
		"gunicorn, lines of Windows":                  {gunicorn + "WORKER TIMEOUT (pid:7)\r", "gunicorn worker_timeout by=100 pid=7"},
		"gunicorn with milliseconds":                  {"[2026-11-21 23:23:51,123] [100] [CRITICAL] WORKER TIMEOUT (pid:7)", "gunicorn worker_timeout by=100 pid=7"},
		"gunicorn of a user's format":                 {"2026-11-21 CRITICAL gunicorn.error WORKER TIMEOUT (pid:7)", ""},
		"gunicorn on its way":                         {gunicorn + "Using worker: sync", ""},
		"gunicorn, a signal that there is not":        {gunicorn + "Worker (pid:7) was sent SIG!", ""},
		"gunicorn, a number of no signal":             {gunicorn + "Worker with pid 7 was terminated due to signal 65", ""},
		"gunicorn, a process id that cannot be":       {gunicorn + "WORKER TIMEOUT (pid:99999999999999999999)", ""},
		"gunicorn, process 0":                         {gunicorn + "WORKER TIMEOUT (pid:0)", ""},
		"gunicorn, a code that cannot be":             {gunicorn + "Worker (pid:7) exited with code 256.", ""},

		"uWSGI kills a worker that hangs":   {date + "*** HARAKIRI ON WORKER 1 (pid: 7, try: 1) ***", "uwsgi worker_timeout pid=7 worker=1"},
		"uWSGI 2.0.22, the same":            {date + "*** HARAKIRI ON WORKER 1 (pid: 7, try: 1, graceful: yes) ***", "uwsgi worker_timeout pid=7 worker=1"},
		"uWSGI 2.0.19 stops":                {"SIGINT/SIGQUIT received...killing workers...", "uwsgi master_stop"},
		"uWSGI with a short day of a month": {"Sun Nov  1 03:04:05 2026 - *** HARAKIRI ON WORKER 1 (pid: 7, try: 1) ***", "uwsgi worker_timeout pid=7 worker=1"},
		"uWSGI kills a mule":                {"*** HARAKIRI ON MULE 1 (pid: 7) ***", ""},
		"uWSGI on a signal":                 {"DAMN ! worker 1 (pid: 7) died, killed by signal 9 :( trying respawn ...", "uwsgi worker_died pid=7 worker=1 signal=KILL"},
		"uWSGI on a signal after a request": {"DAMN ! worker 1 (pid: 7) MYSTERIOUSLY killed by signal 9 :( trying respawn ...", "uwsgi worker_died pid=7 worker=1 signal=KILL"},
		"uWSGI with one process":            {"spawned uWSGI worker 1 (and the only) (pid: 7, cores: 1)", "uwsgi worker_born pid=7 worker=1"},
		"uWSGI's router":                    {"spawned uWSGI http 1 (pid: 7)", "uwsgi helper_born pid=7"},
		"uWSGI's router again":              {"respawned uWSGI http 1 (pid: 7)", "uwsgi helper_born pid=7"},
		"uWSGI's spooler":                   {"spawned the uWSGI spooler on dir /a with pid 5 with pid 7", "uwsgi helper_born pid=7"},
		"uWSGI 2.1 on its requests":         {"...The work of process 7 is done (max requests reached (5 >= 5)). Seeya!", "uwsgi max_requests pid=7"},
		"uWSGI 2.1 on its memory":           {"...The work of process 7 is done (reload-on-rss limit reached (5 >= 5)). Seeya!", "uwsgi recycled pid=7"},
		"uWSGI, a worker that is too large": {"*** EVIL RELOAD ON WORKER 2 RSS: 123456 (pid: 7) ***", "uwsgi recycled pid=7 worker=2"},
		"uWSGI, one with a large space":     {"*** EVIL RELOAD ON WORKER 2 ADDRESS SPACE: 123456 (pid: 7) ***", "uwsgi recycled pid=7 worker=2"},
		"uWSGI, one that is old":            {"worker 2 lifetime reached, it was running for 61 second(s)", "uwsgi recycled worker=2"},
		"uWSGI is asked to stop":            {date + "graceful shutdown triggered...", "uwsgi master_stop"},
		"uWSGI is reloaded at once":         {"...brutally killing workers...", "uwsgi master_reload"},
		"uWSGI needs one worker less":       {"uWSGI worker 2 cheaped.", "uwsgi scale_down worker=2"},
		"uWSGI, an application that is not": {"OOPS ! failed loading app in worker 1 (pid 7) :( trying again...", "uwsgi boot_failed pid=7 worker=1"},
		"uWSGI answers":                     {"[pid: 7|app: 0|req: 2/1] 127.0.0.1 () {26 vars in 291 bytes} [Sat Nov 21 23:24:28 2026] GET /", ""},
		"unicorn kills a worker that hangs": {ruby + "worker=0 PID:7 timeout (61s > 60s), killing", "unicorn worker_timeout by=100 pid=7 worker=0"},
		"unicorn on a signal":               {ruby + "reaped #<Process::Status: pid 7 SIGKILL (signal 9)> worker=0", "unicorn worker_died by=100 pid=7 worker=0 signal=KILL"},
		"unicorn on a dumped core":          {ruby + "reaped #<Process::Status: pid 7 SIGSEGV (signal 11) (core dumped)> worker=0", "unicorn worker_died by=100 pid=7 worker=0 signal=SEGV"},
		"unicorn on a child of nobody":      {ruby + "reaped #<Process::Status: pid 7 exit 0> worker=unknown", ""},
		"unicorn with a program's name":     {"E, [2026-11-21T23:28:41.455547 #100] ERROR -- app: worker=0 PID:7 timeout (61s > 60s), killing", ""},
		"puma 7, a worker that hangs":       {"[100] ! Terminating timed out worker (Worker 1 failed to check in within 60 seconds): 7", "puma worker_timeout by=100 pid=7 worker=1"},
		"puma 7, one that does not boot":    {"[100] ! Terminating timed out worker (Worker 1 failed to boot within 60 seconds): 7", "puma worker_timeout by=100 pid=7 worker=1"},
		"puma 4, one that hangs":            {"[100] ! Terminating timed out worker: 7", "puma worker_timeout by=100 pid=7"},
		"puma 4, a birth":                   {"[100] - Worker 0 (pid: 7) booted, phase: 0", "puma worker_born by=100 pid=7 worker=0"},
		"puma 5.0, a birth":                 {"[100] - Worker 0 (PID: 7) booted, phase: 0", "puma worker_born by=100 pid=7 worker=0"},
		"puma 5, a new mold":                {"[100] - Starting worker refork, phase: 2", "puma master_reload by=100"},
		"puma alone":                        {"- Gracefully stopping, waiting for requests to finish", ""},
		"php-fpm kills a worker that hangs": {php + `[pool www] child 7, script '/a.php' (request: "GET /x") execution timed out (3.28 sec), terminating`, "php-fpm worker_timeout pid=7"},
		"php-fpm on a slow one":             {php + `[pool www] child 7, script '/a.php' (request: "GET /x") executing too slow (3.28 sec), logging`, ""},
		"php-fpm on a signal, with its place": {debug + "[pool www] child 7 exited on signal 9 (SIGKILL) after 1.5 seconds from start",
			"php-fpm worker_died by=100 pid=7 signal=KILL"},
		"php-fpm on a dumped core": {php + "[pool www] child 7 exited on signal 11 (SIGSEGV - core dumped) after 1.5 seconds from start",
			"php-fpm worker_died pid=7 signal=SEGV"},
		"php-fpm on a code":       {php + "[pool www] child 7 exited with code 255 after 1.5 seconds from start", "php-fpm worker_died pid=7 code=255"},
		"php-fpm stops at once":   {"[21-Nov-2026 23:28:03] NOTICE: Terminating ...", "php-fpm master_stop"},
		"Sidekiq 8 is to stop":    {sidekiq + "Shutting down", "sidekiq master_stop by=100 pid=100"},
		"Sidekiq 8 becomes quiet": {sidekiq + "Received TSTP, no longer accepting new work", "sidekiq master_stop by=100 pid=100"},
		"Sidekiq 8 has a job":     {"INFO  2026-11-21T23:28:41.455Z pid=100 tid=1a2b class=Job jid=1: Shutting down", ""},

		"an application says the same":         {"WORKER TIMEOUT (pid:7)", ""},
		"an application quotes it":             {gunicorn + "user said: WORKER TIMEOUT (pid:7)", ""},
		"an application quotes a whole line":   {gunicorn + gunicorn + "WORKER TIMEOUT (pid:7)", ""},
		"there is more behind":                 {gunicorn + "WORKER TIMEOUT (pid:7) said the user", ""},
		"an access log with the text":          {`127.0.0.1 - - [21/Nov/2026:23:24:12 +0000] "GET /[2026-11-21 23:23:51 +0000] [100] [INFO] WORKER TIMEOUT (pid:7)`, ""},
		"a request of uWSGI with the text":     {"[pid: 100|app: 0|req: 2/1] GET /DAMN ! worker 1 (pid: 7) died :( trying respawn ...", ""},
		"a worker's words that php-fpm tells":  {php + `[pool www] child 100 said into stderr: "[pool www] child 7 started`, ""},
		"a request's words that php-fpm tells": {php + `[pool www] child 100, script '/a' (request: "GET / execution timed out (1 sec), terminating") executing too slow (2 sec), logging`, ""},
		"a title that Sidekiq's worker tells":  {"INFO  2026-11-21T23:28:41.455Z pid=100 tid=1a2b x: Shutting down", ""},
		"a part is missing":                    {gunicorn + "WORKER TIMEOUT\x00 (pid:7)", ""},
		"a part is missing in front":           {"\x00" + gunicorn + "WORKER TIMEOUT (pid:7)", ""},
		"a part is missing behind":             {"DAMN ! worker 1 (pid: 7) died :( trying respawn ...\x00", ""},
		"nothing":                              {"", ""},
		"the first letter of something":        {"[", ""},
		"a time that is none":                  {"[now] [100] [INFO] WORKER TIMEOUT (pid:7)", ""},
		"a level that is none":                 {"[2026-11-21 23:23:51 +0000] [100] [loud] WORKER TIMEOUT (pid:7)", ""},
		"who has written it is no process":     {"[2026-11-21 23:23:51 +0000] [me] [INFO] WORKER TIMEOUT (pid:7)", ""},
		"a prefix with no message":             {gunicorn, ""},
		"words of a server before another's":   {php + "WORKER TIMEOUT (pid:7)", ""},
		"words of uWSGI before another's":      {gunicorn + "DAMN ! worker 1 (pid: 7) died :( trying respawn ...", ""},
		"words of another behind uWSGI's date": {date + "WORKER TIMEOUT (pid:7)", ""},
		"a line that looks like uWSGI's date":  {"abc def gh ij:kl:mn opq5 - goodbye to uWSGI.", ""},
	} {
		t.Run(name, func(t *testing.T) {
			got := ""
			if e, ok := serverlog.Parse([]byte(tc.line)); ok {
				got = show(e)
			}
			if got != tc.want {
				t.Errorf("%q: %q, want %q", tc.line, got, tc.want)
			}
		})
	}
}

func TestLinesComeInPieces(t *testing.T) {
	const stop, born = "goodbye to uWSGI.", "spawned uWSGI worker 1 (pid: 7, cores: 1)"
	long := strings.Repeat("x", 10<<10)
	for name, tc := range map[string]struct {
		in   string
		want []string
	}{
		"two lines":                             {stop + "\n" + born + "\n", []string{"uwsgi master_stop", "uwsgi worker_born pid=7 worker=1"}},
		"a last line without an end":            {stop, []string{"uwsgi master_stop"}},
		"no line":                               {"\n\n\n", nil},
		"a long line is nothing, the next is":   {long + "\n" + stop + "\n", []string{"uwsgi master_stop"}},
		"an event at the end of a long line":    {long + stop + "\n", nil},
		"an event at its begin, and no more":    {stop + long + "\n", nil},
		"one whose tail does not matter is cut": {"[2026-11-21 23:23:51 +0000] [100] [INFO] Shutting down: " + long + "\n", []string{"gunicorn master_stop by=100"}},
		"a gap has taken the end of a line":     {"goodbye\x00uWSGI.\n" + stop + "\n", []string{"uwsgi master_stop"}},
		"a gap has taken the end of a long one": {long + "\x00" + stop + "\n" + stop + "\n", []string{"uwsgi master_stop"}},
		"a gap behind what is kept of a line":   {"[2026-11-21 23:23:51 +0000] [100] [INFO] Shutting down: " + long + "\x00" + stop + "\n", nil},
		"a gap has taken whole lines":           {"goodbye to \x00" + stop + "\n" + stop + "\n", []string{"uwsgi master_stop"}},
		"a gap at the end":                      {stop + "\x00", nil},
	} {
		for _, piece := range []struct {
			name string
			of   func(io.Reader) io.Reader
		}{{"at once", func(r io.Reader) io.Reader { return r }}, {"one by one", iotest.OneByteReader}, {"with its end", iotest.DataErrReader}} {
			t.Run(name+", "+piece.name, func(t *testing.T) {
				if got := read(t, piece.of(strings.NewReader(tc.in))); !slices.Equal(got, tc.want) {
					t.Errorf("%q, want %q", got, tc.want)
				}
			})
		}
	}
}

func TestTheReadersErrorIsOurs(t *testing.T) {
	broken := errors.New("broken")
	n := 0
	err := serverlog.Read(io.MultiReader(strings.NewReader("goodbye to uWSGI.\n"), iotest.ErrReader(broken)), func(serverlog.Event) { n++ })
	if !errors.Is(err, broken) || n != 1 {
		t.Errorf("%v after %d events, want %v after 1", err, n, broken)
	}
}

// Whatever is logged, the pieces it comes in do not matter, and what is told can be.
func FuzzRead(f *testing.F) {
	logs, err := filepath.Glob("testdata/*.log")
	if err != nil {
		f.Fatal(err)
	}
	for _, log := range logs {
		text, err := os.ReadFile(log)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, log []byte) {
		whole := read(t, bytes.NewReader(log))
		if pieces := read(t, iotest.HalfReader(bytes.NewReader(log))); !slices.Equal(whole, pieces) {
			t.Errorf("in pieces %q, at once %q", pieces, whole)
		}
		_ = serverlog.Read(bytes.NewReader(log), func(e serverlog.Event) {
			if e.What == "" || e.Server == "" || e.PID == 0 || e.By == 0 || e.Code > 255 || e.Signal != "" && e.Code != serverlog.None {
				t.Errorf("%+v", e)
			}
		})
	})
}

func BenchmarkParse(b *testing.B) {
	for name, line := range map[string]string{
		"access log of gunicorn": `127.0.0.1 - - [21/Nov/2026:23:24:12 +0000] "GET /path?query=1 HTTP/1.1" 200 5 "-" "Mozilla/5.0 (X11; Linux x86_64)"`,
		"request log of uWSGI":   "[pid: 27737|app: 0|req: 2/1] 127.0.0.1 () {26 vars in 291 bytes} [Sat Nov 21 23:24:28 2026] GET / => generated 5 bytes in 0 msecs",
		"log of Rails":           "I, [2026-11-21T23:28:41.455547 #100]  INFO -- : Completed 200 OK in 12ms (Views: 3.4ms | ActiveRecord: 2.1ms)",
		"another of gunicorn":    "[2026-11-21 23:23:51 +0000] [100] [INFO] a message of the application, which has taken its logger",
		"a worker's timeout":     "[2026-11-21 23:23:51 +0000] [100] [CRITICAL] WORKER TIMEOUT (pid:27145)",
	} {
		b.Run(name, func(b *testing.B) {
			log := bytes.Repeat([]byte(line+"\n"), 1000)
			b.SetBytes(int64(len(log)))
			b.ReportAllocs()
			for b.Loop() {
				_ = serverlog.Read(bytes.NewReader(log), func(serverlog.Event) {})
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1000, "ns/line")
		})
	}
}
