package e2e

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
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
	"time"
)

// attacks is how often something is done: often, or with PREFORK_ATTACK=1 ten times as often.
func attacks(often int) int {
	if os.Getenv("PREFORK_ATTACK") == "1" {
		return 10 * often
	}
	return often
}

// bombard has four clients send requests until the function that it returns is called:
// that returns how many were answered, and how many may have been served without that.
func bombard(t *testing.T, address string) (stop func() (answered, failed int64)) {
	t.Helper()
	var stopping atomic.Bool
	var good, bad atomic.Int64
	var group sync.WaitGroup
	for range 4 {
		c := newClient(t, "tcp", address)
		group.Go(func() {
			for !stopping.Load() {
				r, err := c.Post("http://localhost/fast", "text/plain", io.MultiReader(strings.NewReader("once")))
				if err == nil {
					_, err = io.Copy(io.Discard, r.Body)
					_ = r.Body.Close()
				}
				if err != nil {
					bad.Add(1)
					c.CloseIdleConnections()
					continue
				}
				good.Add(1)
				time.Sleep(time.Millisecond) // the kills need the processors, too
			}
		})
	}
	stop = func() (int64, int64) {
		stopping.Store(true)
		group.Wait()
		return good.Load(), bad.Load()
	}
	t.Cleanup(func() { stop() })
	return stop
}

// What was answered is counted, whenever its worker is killed; what was not may be.
func TestAttackWorkersKilledAtRandomLoseNoCount(t *testing.T) {
	kills := attacks(1000)
	m := startMaster(t, 4, "--good-run=0s", "--backoff-max=1ms", "--log.level=error")
	stop := bombard(t, m.listen)
	counters := rising{}
	var killed []int // which may be zombies still
	for n := range kills {
		time.Sleep(rand.N(8 * time.Millisecond)) // at a random moment
		var victims []int
		await(t, "a worker that lives", func() bool {
			all := m.workerIDs(t)
			killed = slices.DeleteFunc(killed, func(pid int) bool { return !slices.Contains(all, pid) })
			victims = slices.DeleteFunc(all, func(pid int) bool { return slices.Contains(killed, pid) })
			return len(victims) > 0
		})
		victim := victims[rand.IntN(len(victims))]
		killed = append(killed, victim)
		must(t, syscall.Kill(victim, syscall.SIGKILL))
		if n%20 == 0 {
			must(t, counters.see(m.scrape(t).samples))
		}
	}
	answered, failed := stop()
	exits := series("prefork_worker_exits_total", "code", "", "signal", "KILL")
	awaitNil(t, "the count of all deaths", func() error {
		if n := m.scrape(t).samples[exits]; n != float64(kills) {
			return fmt.Errorf("%v are counted of %d", n, kills)
		}
		return nil
	})
	m.awaitWorkers(t, 4)
	got := m.scrape(t)
	must(t, counters.see(got.samples))
	if total := int64(got.sum("prefork_worker_requests_total")); total < answered || total > answered+failed {
		t.Errorf("%d requests counted; %d were answered, and %d not", total, answered, failed)
	}
	if total := got.sum("prefork_master_worker_restart_total"); total != float64(kills) {
		t.Errorf("%v restarts, want %d", total, kills)
	}
	t.Logf("%d answered, %d not, %d kills", answered, failed, kills)
}

// workerIDs returns the process ids of the workers that have not ended, one at least.
func (m *master) workerIDs(t *testing.T) (pids []int) {
	t.Helper()
	master := m.cmd.Process.Pid
	await(t, "a worker", func() bool {
		pids = nil
		children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", master, master)) // all are its first thread's
		must(t, err)
		for field := range strings.FieldsSeq(string(children)) {
			pid, err := strconv.Atoi(field)
			must(t, err)
			if exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)); err == nil && exe == workerProgram {
				pids = append(pids, pid)
			}
		}
		return len(pids) > 0
	})
	return pids
}

func TestAMasterThatIsKilledUnderLoadLosesNoCount(t *testing.T) {
	dir := t.TempDir()
	m := startMaster(t, 3, "--multiproc.dir="+dir)
	stop := bombard(t, m.listen)
	await(t, "some requests", func() bool { return m.scrape(t).sum("prefork_worker_requests_total") > 100 })
	pids := m.children(t)
	m.signal(syscall.SIGKILL)
	m.status(t)
	awaitEnd(t, pids)
	answered, failed := stop()
	if total := int64(merged(t, dir).sum("prefork_worker_requests_total")); total < answered || total > answered+failed {
		t.Errorf("%d requests counted; %d were answered, and %d not", total, answered, failed)
	}
}

// superviseScript starts a master of one worker that a shell runs, with its arguments as
// $0, $1 and so on.
func superviseScript(t *testing.T, flags []string, script string, args ...string) *master {
	t.Helper()
	web := freeAddress(t)
	words := append([]string{"supervise", "--ready-after=50ms", "--web.listen-address=" + web}, flags...)
	words = append(append(words, "--", "sh", "-c", script), args...)
	return &master{exporter: startExporterCommand(t, web, command(words...))}
}

// A worker that does not stop is killed, however many ask it to.
func TestAWorkerThatIgnoresEverythingIsKilled(t *testing.T) {
	m := superviseScript(t, []string{"--stop-timeout=200ms"}, `trap "" TERM INT QUIT HUP USR1; while :; do sleep 1; done`)
	m.awaitWorkers(t, 1)
	pids := m.children(t)
	m.signal(syscall.SIGHUP)
	await(t, "the reload", func() bool {
		return m.scrape(t).samples[series("prefork_master_reloads_total", "result", "success")] == 1
	})
	m.awaitWorkers(t, 1)
	m.signal(syscall.SIGTERM)
	if status := m.status(t); status != 0 {
		t.Errorf("status %d, want 0", status)
	}
	awaitEnd(t, pids)
}

// A log that nobody reads stops whoever writes it, and nobody else.
func TestAWorkerThatFloodsItsOutputHurtsItselfOnly(t *testing.T) {
	for _, flags := range [][]string{nil, {"--prefix-output"}} {
		web := freeAddress(t)
		r, w, err := os.Pipe()
		must(t, err)
		cmd := command(append(append([]string{"supervise", "--workers=2", "--ready-after=50ms", "--stop-timeout=1s", "--web.listen-address=" + web}, flags...),
			"--", "sh", "-c", `if [ $PREFORK_WORKER_ID = 0 ]; then exec yes; fi; exec sleep 1000`)...)
		m := &master{exporter: startExporterCommand(t, web, throttled(cmd, w))}
		must(t, w.Close())
		m.awaitWorkers(t, 2)
		m.signal(syscall.SIGTTIN)
		m.awaitWorkers(t, 3)
		m.signal(syscall.SIGTERM)
		if status := m.status(t); status != 0 {
			t.Errorf("%v: status %d, want 0", flags, status)
		}
		must(t, r.Close())
	}
}

// throttled lets a command's standard output go to a file, by way of a shell.
func throttled(cmd *exec.Cmd, out *os.File) *exec.Cmd {
	shell := exec.Command("/bin/sh", append([]string{"-c", `exec "$0" "$@" >&3 3>&-`}, cmd.Args...)...)
	shell.Args[3] = cmd.Path
	shell.ExtraFiles = []*os.File{out}
	return shell
}

// The socket is the master's: whatever a worker does with it, the next has it.
func TestAWorkerThatClosesItsSocketsHurtsItselfOnly(t *testing.T) {
	listen := freeAddress(t)
	m := superviseScript(t, []string{"--listen=" + listen}, `if [ ! -e "$0" ]; then : >"$0"; exec 3<&-; exit 1; fi; exec "$1" --drain=10ms`,
		filepath.Join(t.TempDir(), "closed"), workerProgram)
	m.awaitWorkers(t, 1)
	if r, err := newClient(t, "tcp", listen).get("/"); err != nil || !strings.HasPrefix(string(r.body), "worker 0") {
		t.Errorf("%q, %v", r.body, err)
	}
}

// What a worker leaves in its process group would keep sockets, and count as nobody.
func TestWhatAWorkerLeavesEndsWithIt(t *testing.T) {
	left := filepath.Join(t.TempDir(), "left")
	m := superviseScript(t, nil, `if [ ! -e "$0" ]; then (trap "" HUP; sleep 1000) & echo $! >"$0"; exit 1; fi; exec sleep 1000`, left)
	m.awaitWorkers(t, 1)
	var pid int
	b, err := os.ReadFile(left)
	must(t, err)
	if _, err := fmt.Sscan(string(b), &pid); err != nil {
		t.Fatal(err)
	}
	awaitEnd(t, []int{pid})
}

func TestWorkersThatExitAtOnceAreALoopThatIsSeenAndStopped(t *testing.T) {
	m := superviseScript(t, []string{"--backoff-max=100ms"}, "exit 3")
	await(t, "the loop", func() bool {
		got := m.scrape(t)
		return got.samples[series("prefork_restart_loop")] == 1 && got.samples[series("prefork_worker_exits_total", "code", "3", "signal", "")] >= 20 &&
			got.samples[series("prefork_master_worker_restart_total", "reason", "boot_error")] >= 20
	})
	m.signal(syscall.SIGHUP) // somebody has mended it, he thinks
	m.signal(syscall.SIGTERM)
	if status := m.status(t); status != 0 {
		t.Errorf("status %d, want 0", status)
	}
}

func TestAStopDuringTheStartStops(t *testing.T) {
	m := superviseScript(t, []string{"--ready-after=1h", "--workers=5"}, "exec sleep 1000")
	pids := m.children(t)
	m.signal(syscall.SIGTERM)
	if status := m.status(t); status != 0 {
		t.Errorf("status %d, want 0", status)
	}
	awaitEnd(t, pids)
}

// A sidecar that stands still, or that cannot start, costs scrapes only.
func TestASidecarThatDoesNotWorkCostsScrapesOnly(t *testing.T) {
	m := startMaster(t, 1, "--backoff-max=10ms")
	sidecar := 0
	for _, pid := range m.children(t) {
		if pid != m.pids(t)["0"] {
			sidecar = pid
		}
	}
	must(t, syscall.Kill(sidecar, syscall.SIGSTOP))
	for range 20 {
		before := m.workerIDs(t)[0]
		must(t, syscall.Kill(before, syscall.SIGKILL))
		await(t, "another worker", func() bool { return m.workerIDs(t)[0] != before })
	}
	_, err := m.workers.get("/fast")
	must(t, err)
	must(t, syscall.Kill(sidecar, syscall.SIGCONT))
	exits := series("prefork_worker_exits_total", "code", "", "signal", "KILL")
	await(t, "what the sidecar has missed", func() bool { return m.scrape(t).samples[exits] == 20 })
}

func TestASidecarThatCannotStartIsStartedAgain(t *testing.T) {
	web, listen := freeAddress(t), freeAddress(t)
	taken, err := net.Listen("tcp", web)
	must(t, err)
	cmd := command("supervise", "--listen="+listen, "--web.listen-address="+web, "--", workerProgram, "--drain=10ms")
	p := start(t, cmd)
	workers := newClient(t, "tcp", listen)
	await(t, "the worker", func() bool {
		_, err := workers.do(http.MethodGet, "/fast")
		return err == nil
	})
	await(t, "failures of the sidecar", func() bool { return strings.Count(p.output(t, p.stderr), "the sidecar has ended") >= 3 })
	must(t, taken.Close())
	m := &master{exporter: &exporter{process: p, client: newClient(t, "tcp", web), address: web}}
	m.awaitWorkers(t, 1)
}

// Whoever is no worker of the master may say what he likes.
func TestStrangersAreNotHeard(t *testing.T) {
	m := startMaster(t, 2)
	before := m.pids(t)
	env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", before["0"]))
	must(t, err)
	_, rest, _ := strings.Cut(string(env), "NOTIFY_SOCKET=")
	path, _, _ := strings.Cut(rest, "\x00")
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	must(t, err)
	defer func() { _ = conn.Close() }()
	forged := []string{
		"STOPPING=1\nX_PREFORK_REASON=max_requests", "READY=1", "WATCHDOG=1", fmt.Sprintf("MAINPID=%d", before["1"]),
		"X_PREFORK_MARK=1", strings.Repeat("x", 1<<16), "\x00\n=\n",
	}
	for n := range 10_000 {
		_, err := conn.Write([]byte(forged[n%len(forged)]))
		must(t, err)
	}
	_, err = m.workers.get("/fast")
	must(t, err)
	m.signal(syscall.SIGTTIN)
	m.awaitWorkers(t, 3)
	if after := m.pids(t); after["0"] != before["0"] || after["1"] != before["1"] {
		t.Errorf("workers %v, and %v before", after, before)
	}
	if n := m.scrape(t).sum("prefork_worker_restart_total"); n != 0 {
		t.Errorf("%v restarts for what a stranger said", n)
	}
}

// Workers go on where there is no room for their files, and so does the master, whatever
// its directory.
func TestADirectoryThatCannotBeWrittenHurtsNoMaster(t *testing.T) {
	dir, web, listen := t.TempDir(), freeAddress(t), freeAddress(t)
	const full = `mount -t tmpfs -o size=16k none "$0" && dd if=/dev/zero of="$0/full" bs=4k count=4 2>/dev/null; exec "$@"`
	cmd := exec.Command("unshare", append([]string{"--map-root-user", "--mount", "sh", "-c", full, dir},
		command("supervise", "--multiproc.dir="+dir, "--listen="+listen, "--web.listen-address="+web, "--", workerProgram, "--drain=10ms").Args...)...)
	m := &master{exporter: startExporterCommand(t, web, cmd), workers: newClient(t, "tcp", listen)}
	m.awaitWorkers(t, 1)
	_, err := m.workers.get("/fast")
	must(t, err)
	m.signal(syscall.SIGTERM)
	if status := m.status(t); status != 0 {
		t.Errorf("status %d, want 0", status)
	}
	if os.Getuid() == 0 { // who may write everywhere
		dirIsNotTheirs(t)
	}
	file := filepath.Join(dir, "file")
	must(t, os.WriteFile(file, nil, 0o600))
	cmd = command("supervise", "--multiproc.dir="+filepath.Join(file, "metrics"), "--", "true")
	cmd.Env = environment(t.TempDir(), nil)
	out, _ := cmd.CombinedOutput()
	if status := cmd.ProcessState.ExitCode(); status != 1 || !strings.Contains(string(out), "make the directory of metric files") {
		t.Errorf("status %d: %s", status, out)
	}
}

// dirIsNotTheirs has a master whose workers cannot write into the directory. The example
// ends then, and the master says why.
func dirIsNotTheirs(t *testing.T) {
	t.Helper()
	web := freeAddress(t)
	cmd := command("supervise", "--multiproc.dir="+openDir(t), "--web.listen-address="+web, "--", workerProgram)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	m := &master{exporter: startExporterCommand(t, web, cmd)}
	await(t, "a backoff", func() bool { return m.scrape(t).samples[series("prefork_restart_backoff_seconds")] > 0 })
	if log := m.output(t, m.stderr); !strings.Contains(log, "nobody with our user can write metric files") {
		t.Errorf("the log does not say so:\n%s", tail(log))
	}
}

// As the first process of a container the master is left with the orphans of workers.
func TestAMasterThatIsTheFirstProcessReapsOrphans(t *testing.T) {
	web, counted := freeAddress(t), filepath.Join(t.TempDir(), "counted")
	script := `for i in $(seq 30); do setsid sh -c 'sleep 0.01 &'; done; sleep 0.5
		grep -l "^State:.Z" /proc/[0-9]*/status | wc -l >"$0.new"; mv "$0.new" "$0"; exec sleep 1000`
	words := []string{"--map-root-user", "--pid", "--fork", "--kill-child", "--mount-proc", program, "supervise",
		"--ready-after=10ms", "--web.listen-address=" + web, "--", "sh", "-c", script, counted}
	p := start(t, exec.Command("unshare", words...))
	var zombies string
	await(t, "the count of zombies", func() bool {
		b, err := os.ReadFile(counted)
		zombies = strings.TrimSpace(string(b))
		return err == nil
	})
	if n, err := strconv.Atoi(zombies); err != nil || n > 1 {
		t.Errorf("zombies: %q, want none, or one that is about to be reaped", zombies)
	}
	first := p.children(t)
	must(t, syscall.Kill(first[0], syscall.SIGUSR2)) // it stays the first one
	await(t, "the newer program", func() bool { return strings.Contains(p.output(t, p.stderr), "this program has taken over") })
	must(t, syscall.Kill(first[0], syscall.SIGTERM))
	if status := p.status(t); status != 0 {
		t.Errorf("status %d, want 0", status)
	}
}
