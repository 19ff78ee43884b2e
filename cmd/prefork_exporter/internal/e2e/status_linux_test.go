package e2e

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// status is a part of what /api/v1/status says, as a script would read it.
type status struct {
	Time    time.Time
	Targets []struct {
		Master *struct {
			PID   int
			Ended bool
		}
		Workers []struct {
			Slot, State   string
			PID           int
			Started       time.Time
			ResidentBytes *float64 `json:"resident_bytes"`
			Threads       *float64
		}
		WorkersTarget *int `json:"workers_target"`
		Exits         []struct {
			Code   *int
			Signal string
			Count  float64
		}
		Deaths []struct {
			Slot, Reason, Signal string
			PID                  int
			Code                 *int
			Time                 time.Time
			AgeSeconds           *float64 `json:"age_seconds"`
		}
	}
	MetricFiles *struct{ Directories []struct{ Path string } } `json:"metric_files"`
	Features    []struct {
		Name, Reason string
		Available    bool
	}
	Errors []struct{ Collector string }
}

func (c *client) askStatus() (status, error) {
	var s status
	r, err := c.get("/api/v1/status")
	if err == nil {
		err = json.Unmarshal(r.body, &s)
	}
	if err == nil && len(s.Targets) != 1 {
		err = fmt.Errorf("%d targets, want one", len(s.Targets))
	}
	return s, err
}

// sees returns what is wrong with the workers of a status: they are to be the children of
// the master, but for the sidecar, and as /proc has them.
func (s status) sees(t *testing.T, m *exporter, n int) error {
	t.Helper()
	target := s.Targets[0]
	if target.Master == nil || target.Master.PID != m.cmd.Process.Pid {
		return fmt.Errorf("master %+v, want %d", target.Master, m.cmd.Process.Pid)
	}
	var pids []int
	for _, w := range target.Workers {
		pids = append(pids, w.PID)
		if w.State != "running" || w.ResidentBytes == nil || w.Threads == nil {
			return fmt.Errorf("worker %+v, want one that runs and was measured", w)
		}
		got, err := readProcess(w.PID)
		if err != nil {
			return err
		}
		if got.resident != *w.ResidentBytes || got.threads != *w.Threads {
			return fmt.Errorf("worker %+v, /proc has %+v", w, got)
		}
		// The clock of the kernel's ticks drifts a little from that of the day.
		if d := got.started.Sub(w.Started).Abs(); d > time.Second {
			return fmt.Errorf("worker %+v, which has started %v from then", w, d)
		}
	}
	children := slices.DeleteFunc(m.children(t), func(pid int) bool { return pid == m.sidecar(t) })
	slices.Sort(pids)
	slices.Sort(children)
	if len(pids) != n || !slices.Equal(pids, children) {
		return fmt.Errorf("workers %v, want the %d children %v", pids, n, children)
	}
	return nil
}

// procStat is what /proc has of one.
type procStat struct {
	resident, threads float64
	started           time.Time
}

// readProcess reads proc_pid_stat(5).
func readProcess(pid int) (procStat, error) {
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return procStat{}, err
	}
	uptime, err := os.ReadFile("/proc/uptime")
	if err != nil {
		return procStat{}, err
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	fields := append([]string{"", ""}, strings.Fields(rest)...) // field n is at n-1
	number := func(text string) float64 {
		v, _ := strconv.ParseFloat(text, 64)
		return v
	}
	up, _, _ := strings.Cut(string(uptime), " ")
	age := number(up) - number(fields[21])/100
	return procStat{
		resident: number(fields[23]) * float64(os.Getpagesize()), threads: number(fields[19]),
		started: time.Now().Add(-time.Duration(age * float64(time.Second))),
	}, nil
}

// The workers sleep in short steps, so that their memory and threads stay the same.
func TestTheStatusTellsOfWorkersAndTheirDeaths(t *testing.T) {
	web, dir := freeAddress(t), t.TempDir()
	script := `trap "exit 7" USR1; while :; do sleep 0.05 & wait; done`
	m := startExporterCommand(t, web, command("supervise", "--workers=2", "--ready-after=50ms", "--multiproc.dir="+dir,
		"--web.listen-address="+web, "--", "sh", "-c", script))
	seen := func(check func(s status) error) (s status) {
		t.Helper()
		awaitNil(t, "a status that tells it", func() (err error) {
			if s, err = m.askStatus(); err != nil {
				return err
			}
			if err := s.sees(t, m, 2); err != nil {
				return err
			}
			return check(s)
		})
		return s
	}
	before := seen(func(status) error { return nil })
	target := before.Targets[0]
	if len(target.Deaths)+len(target.Exits)+len(before.Errors) > 0 || target.WorkersTarget == nil || *target.WorkersTarget != 2 {
		t.Errorf("%+v, want two workers and no death", before)
	}
	if f := before.MetricFiles; f == nil || len(f.Directories) != 1 || f.Directories[0].Path != dir {
		t.Errorf("metric files %+v, want %s", f, dir)
	}
	if len(before.Features) == 0 {
		t.Error("no features")
	}
	first, second := target.Workers[0], target.Workers[1]
	must(t, syscall.Kill(first.PID, syscall.SIGKILL))
	seen(func(s status) error { return deaths(s, 1) })
	must(t, syscall.Kill(second.PID, syscall.SIGUSR1))
	after := seen(func(s status) error { return deaths(s, 2) }).Targets[0]

	one, two := after.Deaths[0], after.Deaths[1]
	if one.PID != first.PID || one.Slot != first.Slot || one.Reason != "signal" || one.Signal != "KILL" || one.Code != nil {
		t.Errorf("the first death is %+v, want that of %d by KILL", one, first.PID)
	}
	if two.PID != second.PID || two.Slot != second.Slot || two.Reason != "exit_code" || two.Signal != "" || two.Code == nil || *two.Code != 7 {
		t.Errorf("the second death is %+v, want that of %d with 7", two, second.PID)
	}
	if age := one.Time.Sub(first.Started).Seconds(); one.AgeSeconds == nil || *one.AgeSeconds < age-0.01 || *one.AgeSeconds > age+0.01 {
		t.Errorf("age %v, want %v", one.AgeSeconds, age)
	}
	if len(after.Exits) != 2 || *after.Exits[0].Code != 7 || after.Exits[0].Count != 1 || after.Exits[1].Signal != "KILL" || after.Exits[1].Count != 1 {
		t.Errorf("exits %+v, want one with 7 and one by KILL", after.Exits)
	}
	await(t, "a line in the log", func() bool { return strings.Contains(m.output(t, m.stderr), " watched here") })
}

func deaths(s status, n int) error {
	if got := len(s.Targets[0].Deaths); got != n {
		return fmt.Errorf("%d deaths, want %d", got, n)
	}
	return nil
}

// outerAddress returns an address of this machine that is not the loopback's.
func outerAddress(t *testing.T) string {
	t.Helper()
	addresses, err := net.InterfaceAddrs()
	must(t, err)
	for _, a := range addresses {
		if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil && n.IP.IsGlobalUnicast() {
			return n.IP.String()
		}
	}
	t.Skip("no IPv4 address but the loopback's: give this machine one")
	return ""
}

func TestTheStatusIsForTheOperatorAlone(t *testing.T) {
	outer := outerAddress(t)
	// listening starts an exporter at all addresses, and returns how to ask at one of them.
	listening := func(flags ...string) (at func(host string) *client) {
		address := freeAddress(t)
		_, port, err := net.SplitHostPort(address)
		must(t, err)
		startExporterCommand(t, address, command(append(flags, "--multiproc.dir="+t.TempDir(), "--web.listen-address=:"+port)...))
		return func(host string) *client { return newClient(t, "tcp", net.JoinHostPort(host, port)) }
	}
	asks := func(c *client, want int) string {
		t.Helper()
		r, err := c.do("GET", "/api/v1/status")
		must(t, err)
		if r.status != want {
			t.Errorf("status %d, want %d: %s", r.status, want, r.body)
		}
		return string(r.body)
	}
	at := listening()
	asks(at("127.0.0.1"), 200)
	if text := asks(at(outer), 403); !strings.Contains(text, "--web.enable-status") || strings.Contains(text, `"pid"`) {
		t.Errorf("it says %q, want what to do and no more", text)
	}
	if _, err := at(outer).get("/metrics"); err != nil {
		t.Error(err)
	}
	asks(listening("--web.enable-status")(outer), 200)
}

// Who asks for the status has not scraped what the server counted last.
func TestTheStatusOfAServerThatHasEnded(t *testing.T) {
	web := freeAddress(t)
	e := startExporterCommand(t, web, command("run", "--web.listen-address="+web, "--linger=60s", "--", "sh", "-c", "exit 3"))
	awaitNil(t, "the end of the server", func() error {
		s, err := e.askStatus()
		if err == nil && (s.Targets[0].Master == nil || !s.Targets[0].Master.Ended || s.Targets[0].Workers != nil) {
			err = fmt.Errorf("%+v, want a master that has ended, and workers that nobody knows", s.Targets[0])
		}
		return err
	})
	if _, err := e.askStatus(); err != nil {
		t.Error(err)
	}
	e.scrape(t)
	if status := e.status(t); status != 3 {
		t.Errorf("status %d, want 3", status)
	}
}

func TestTheStatusOfADemo(t *testing.T) {
	d := startDemo(t)
	s, err := d.askStatus()
	must(t, err)
	if m := s.Targets[0].Master; m == nil || m.PID != d.pids[0] || len(s.Errors) > 0 {
		t.Errorf("master %+v, errors %v, want %d and none", m, s.Errors, d.pids[0])
	}
	if out := d.output(t, d.stdout); !strings.Contains(out, "http://"+d.address+"/api/v1/status\n") {
		t.Errorf("it does not say where its status is:\n%s", out)
	}
	d.signal(syscall.SIGINT)
	d.ends(t, 0)
}
