package e2e

import (
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

func TestHowAServerEndsIsHowWeEnd(t *testing.T) {
	for script, want := range map[string]int{
		"exit 0": 0, "exit 1": 1, "exit 7": 7, "exit 126": 126, "exit 255": 255,
		"kill -TERM $$": 128 + 15, "kill -KILL $$": 128 + 9, "ulimit -c 0; kill -SEGV $$": 128 + 11,
	} {
		cmd := command("run", "--web.listen-address="+freeAddress(t), "--", "sh", "-c", script)
		cmd.Env = environment(t.TempDir(), nil)
		out, _ := cmd.CombinedOutput()
		if got := cmd.ProcessState.ExitCode(); got != want {
			t.Errorf("%s: %d, want %d\n%s", script, got, want, tail(string(out)))
		}
	}
}

func TestSignalsGoOnToTheServer(t *testing.T) {
	web := freeAddress(t)
	script := `for s in HUP INT QUIT USR1 USR2 TTIN TTOU WINCH; do trap "echo got $s" $s; done; trap "echo got TERM; exit 5" ALRM; echo ready; while :; do sleep 0.01; done`
	e := startExporterCommand(t, web, command("run", "--web.listen-address="+web, "--stop-signal=ALRM", "--", "sh", "-c", script))
	await(t, "the server", func() bool { return strings.Contains(e.output(t, e.stdout), "ready") })
	for name, s := range map[string]syscall.Signal{
		"HUP": syscall.SIGHUP, "INT": syscall.SIGINT, "QUIT": syscall.SIGQUIT, "USR1": syscall.SIGUSR1, "USR2": syscall.SIGUSR2,
		"TTIN": syscall.SIGTTIN, "TTOU": syscall.SIGTTOU, "WINCH": syscall.SIGWINCH,
	} {
		e.signal(s)
		await(t, "the server to get "+name, func() bool { return strings.Count(e.output(t, e.stdout), "got "+name+"\n") == 1 })
	}
	e.signal(syscall.SIGTERM)
	if status := e.status(t); status != 5 {
		t.Errorf("status %d, want that of the signal to stop: 5", status)
	}
}

// The last metrics of a server that has ended can still be had, once.
func TestTheSidecarLingersUntilItIsScraped(t *testing.T) {
	need(t, pythonPeers()...)
	web := freeAddress(t)
	script := `from prometheus_client import Counter
Counter("jobs", "Jobs.").inc(7)
raise SystemExit(3)`
	e := startExporterCommand(t, web, command("run", "--web.listen-address="+web, "--linger=60s", "--", pythonPath, "-c", script))
	var last scraped
	await(t, "a scrape after the end", func() bool {
		got, err := e.tryScrape("")
		if err == nil {
			last = got
		}
		return !e.running()
	})
	if n := last.samples[series("jobs_total")]; n != 7 {
		t.Errorf("the last scrape has %v jobs, want 7", n)
	}
	if status := e.status(t); status != 3 {
		t.Errorf("status %d, want 3", status)
	}
}

// As the first process of a container we are left with the orphans of others.
func TestAsTheFirstProcessWeReapOrphans(t *testing.T) {
	web := freeAddress(t)
	script := `for i in $(seq 30); do (sleep 0.01 &); done; sleep 1; grep -l "^State:.Z" /proc/[0-9]*/status | wc -l`
	cmd := exec.Command("unshare", "--map-root-user", "--pid", "--fork", "--mount-proc", program, "run", "--web.listen-address="+web, "--", "sh", "-c", script)
	cmd.Env = environment(t.TempDir(), nil)
	out, err := cmd.Output()
	if zombies, convErr := strconv.Atoi(strings.TrimSpace(string(out))); err != nil || convErr != nil || zombies > 1 {
		t.Errorf("zombies: %q, %v; want none, or one that is about to be reaped", out, err)
	}
}

func TestWhatRunRefuses(t *testing.T) {
	for name, tc := range map[string]struct {
		args   []string
		status int
		want   string
	}{
		"no command":                  {[]string{"run"}, 2, "want -- and a command"},
		"a signal that is none":       {[]string{"run", "--stop-signal=STOPP", "--", "true"}, 2, `--stop-signal: "STOPP": want a signal such as TERM`},
		"a linger before the end":     {[]string{"run", "--linger=-1s", "--", "true"}, 2, "--linger, --stop-timeout: want 0s or more"},
		"a stop before it is asked":   {[]string{"run", "--stop-timeout=-1s", "--", "true"}, 2, "--linger, --stop-timeout: want 0s or more"},
		"a restart at will":           {[]string{"run", "--restart=maybe", "--", "true"}, 2, `--restart: "maybe": want no, on-failure or always`},
		"a command that is not there": {[]string{"run", "--", "/no/such/server"}, 127, "start the server"},
		"a name of no command":        {[]string{"run", "--restart=always", "--", "no-such-server"}, 127, "executable file not found"},
		"a file that is no program":   {[]string{"run", "--", "/etc/passwd"}, 126, "permission denied"},
		"a directory":                 {[]string{"run", "--", "/tmp"}, 126, "is a directory"},
		"help":                        {[]string{"run", "--help"}, 0, "that is its own master"},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := command(tc.args...)
			cmd.Env = environment(t.TempDir(), nil)
			out, _ := cmd.CombinedOutput()
			if status := cmd.ProcessState.ExitCode(); status != tc.status || !strings.Contains(string(out), tc.want) {
				t.Errorf("status %d: %s\nwant %d and %q", status, tail(string(out)), tc.status, tc.want)
			}
		})
	}
}
