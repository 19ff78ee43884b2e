package e2e

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"testing"
)

// needRoot skips a test that is about other users, or about namespaces.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
}

// confined starts the sidecar by another command, whose end ends it, too.
func confined(t *testing.T, under []string, flags ...string) *exporter {
	t.Helper()
	address := freeAddress(t)
	words := slices.Concat(under, []string{program, "--web.listen-address", address}, flags)
	e := &exporter{process: start(t, exec.Command(words[0], words[1:]...)), client: newClient(t, "tcp", address), address: address}
	e.stop = syscall.SIGKILL
	e.awaitPage(t, e.process, "/-/healthy")
	return e
}

// asNobody is the command that makes us a user who owns nothing.
func asNobody() []string {
	return []string{"setpriv", "--reuid", strconv.Itoa(nobody), "--regid", strconv.Itoa(nobody), "--clear-groups", "--no-new-privs"}
}

// lacksAll fails the test if a family has a series.
func (e *exporter) lacksAll(t *testing.T, name string) {
	t.Helper()
	for s := range e.scrape(t).samples {
		if isOf(s, name+`"`) {
			t.Errorf("%s: want none, for nobody knows", s)
		}
	}
}

// Whoever may not look into the server's processes still sees them come and go, and how.
func TestASidecarWithFewRights(t *testing.T) {
	needRoot(t)
	toNobody := func(cmd *exec.Cmd) {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	}
	for name, tc := range map[string]struct {
		server func(*exec.Cmd) // nil: as root
		words  []string        // of gunicorn
		inside string          // why signs of life are not to be seen; empty: they are
	}{
		"beside a server of root's":                         {inside: "the descriptors of the server may not be read"},
		"beside a server of its own user's":                 {server: toNobody},
		"beside a server whose workers have its user":       {words: []string{"--user", "nobody"}, inside: "the descriptors of the server may not be read"},
		"beside a server whose workers have another's user": {words: []string{"--user", "daemon"}, inside: "the descriptors of the server may not be read"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, _, pidfile := gunicornWithPIDFile(t, tc.server, append(tc.words, "--workers", "2", "--timeout", "30")...)
			e := confined(t, asNobody(), "--master.pidfile="+pidfile)
			e.says(t, theTarget, "2")
			e.lacks(t, "exit_status", "")
			e.lacks(t, "worker_heartbeat", tc.inside)
			if tc.inside != "" {
				e.lacks(t, "worker_busy", "the workers' descriptors may not be read")
				e.lacks(t, "worker_pss", "the workers' smaps_rollup may not be read")
				for _, family := range []string{"prefork_worker_busy", "prefork_worker_memory_pss_bytes", "prefork_worker_heartbeat_age_seconds"} {
					e.lacksAll(t, family)
				}
			}
			s.ends(t, "/exit/7")
			e.says(t, theExits, "7 1")
			s.kills(t, syscall.SIGKILL)
			e.says(t, theExits, "7 1, KILL 1")
			e.says(t, theRestarts, "exit_code 1, signal 1")
			s.signal(syscall.SIGHUP)
			e.says(t, theRestarts, "exit_code 1, reload 2, signal 1")
			e.says(t, theReloads, "success 1")
		})
	}
}

// A master that cannot be seen is told to be missing, and costs nothing else.
func TestAMasterThatCannotBeSeen(t *testing.T) {
	needRoot(t)
	s, _, pidfile := gunicornWithPIDFile(t, nil, "--workers", "2")
	for name, under := range map[string][]string{
		"proc hides the processes of others": append([]string{
			"unshare", "--mount", "sh", "-c", `mount -t proc -o hidepid=2 proc /proc && exec "$@"`, "sh",
		}, asNobody()...),
		"another PID namespace": {"unshare", "--pid", "--fork", "--kill-child", "--mount-proc"},
	} {
		t.Run(name, func(t *testing.T) {
			flags := map[string]string{
				"--master.pidfile=" + pidfile:                     "the process that the pidfile names is not there",
				fmt.Sprintf("--master.pid=%d", s.cmd.Process.Pid): "there is no process of that id",
			}
			for flag, reason := range flags {
				e := confined(t, under, flag)
				e.lacks(t, "master", reason)
				e.isUp(t, 0)
				for _, family := range []string{theExits, theTarget, "prefork_worker_pid"} {
					e.lacksAll(t, family)
				}
			}
			e := confined(t, under, "--master.process=gunicorn", "--master.user=root")
			e.lacks(t, "master", "no process matches")
		})
	}
}

// What the kernel refuses is done without.
func TestAKernelThatRefuses(t *testing.T) {
	need(t, peer{pythonPath, "python3"})
	for what, then := range map[string]func(t *testing.T, e *exporter){
		"netlink": func(t *testing.T, e *exporter) { e.lacks(t, "exit_status", "") },
		"pidfd": func(t *testing.T, e *exporter) {
			e.lacks(t, "exit_status", "processes have to be polled, and their status may be gone by then")
		},
		"": func(t *testing.T, e *exporter) { e.lacks(t, "exit_status", "") },
	} {
		t.Run("it refuses "+what, func(t *testing.T) {
			t.Parallel()
			s, _, pidfile := gunicornWithPIDFile(t, nil, "--workers", "2")
			var under []string
			if what != "" {
				under = []string{pythonPath, testdata(t, "refuse.py"), what}
			}
			e := confined(t, under, "--master.pidfile="+pidfile)
			e.says(t, theTarget, "2")
			then(t, e)
			for n := 1; n <= 3; n++ {
				s.kills(t, syscall.SIGKILL)
				await(t, "a death", func() bool { return e.scrape(t).sum(theExits) == float64(n) })
				e.says(t, theWorkers, "running 2")
			}
			exits := e.scrape(t).told(theExits)
			if what != "pidfd" && exits != "KILL 3" {
				t.Errorf("%s, want 3 by KILL", exits)
			}
		})
	}
}

// A gunicorn whose workers stand still is not well, though all of them are there.
func TestAWorkerThatStandsStill(t *testing.T) {
	t.Parallel()
	o := besideGunicorn(t, "--workers", "2", "--timeout", "60")
	o.exporter.says(t, theTarget, "2")
	victim := o.server.kills(t, syscall.SIGSTOP)
	o.exporter.says(t, theWorkers, "running 1, unresponsive 1")
	must(t, syscall.Kill(victim, syscall.SIGCONT))
	o.exporter.says(t, theWorkers, "running 2")
	o.exporter.says(t, theExits, "")
}

// A worker that eats too much is killed by the kernel; the next one by somebody.
func TestAWorkerThatIsKilledForMemory(t *testing.T) {
	const limit = 160 << 20
	dir := memoryGroup(t)
	must(t, os.WriteFile(filepath.Join(dir, "memory.swappiness"), []byte("0"), 0))
	must(t, os.WriteFile(filepath.Join(dir, "memory.limit_in_bytes"), []byte(strconv.Itoa(limit)), 0))
	s, address, pidfile := gunicornWithPIDFile(t, nil, "--workers", "2")
	for _, pid := range append(s.children(t), s.cmd.Process.Pid) {
		must(t, os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0))
	}
	e := beside(t, "--master.pidfile="+pidfile)
	e.says(t, theTarget, "2")
	c := newClient(t, "tcp", address)
	c.once = true
	if r, err := c.do(http.MethodGet, "/eat"); err == nil {
		t.Errorf("GET /eat was answered with status %d", r.status)
	}
	e.says(t, theRestarts, "oom 1")
	e.says(t, "prefork_cgroup_oom_kills_total", "1")
	e.says(t, theExits, "KILL 1")
	e.says(t, theWorkers, "running 2")
	s.kills(t, syscall.SIGKILL)
	e.says(t, theRestarts, "oom 1, signal 1")
	e.says(t, theExits, "KILL 2")
}

// namespace is a PID namespace in which ids are given to whom the test wants.
type namespace struct {
	*process
	t      *testing.T
	in     io.Writer
	out    *bufio.Scanner
	master int // its id there
}

func (n *namespace) does(command string, args ...any) {
	n.t.Helper()
	_, err := fmt.Fprintf(n.in, command+"\n", args...)
	must(n.t, err)
	if !n.out.Scan() || n.out.Text() != "done" {
		n.t.Fatalf("%s: %q, %v", command, n.out.Text(), n.out.Err())
	}
}

// startNamespace starts a master of three workers in one.
func startNamespace(t *testing.T, pidfile string) *namespace {
	t.Helper()
	needRoot(t)
	need(t, peer{pythonPath, "python3"})
	cmd := exec.Command("unshare", "--pid", "--fork", "--kill-child", "--mount-proc",
		pythonPath, "-u", testdata(t, "strangers.py"), watchdata(t, "forker.py"), pidfile)
	theirIn, in := openPipe(t)
	out, theirOut := openPipe(t)
	p := newProcess(t, cmd)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = theirIn, theirOut, create(t, p.stderr)
	create(t, p.stdout)
	p.stop = syscall.SIGKILL
	p.launch(t, nil)
	_, _ = theirIn.Close(), theirOut.Close()
	n := &namespace{process: p, t: t, in: in, out: bufio.NewScanner(out)}
	if !n.out.Scan() {
		t.Fatal(errors.New("the namespace has ended"), n.out.Err())
	}
	if _, err := fmt.Sscanf(n.out.Text(), "started %d", &n.master); err != nil {
		t.Fatal(err)
	}
	return n
}

// beside starts the sidecar in it.
func (n *namespace) beside(t *testing.T, flags ...string) *exporter {
	t.Helper()
	inside := strconv.Itoa(n.children(t)[0])
	return confined(t, []string{"nsenter", "--target", inside, "--pid", "--mount"}, flags...)
}

// A number is not a process: who gets the id of another is nobody that is watched.
func TestProcessIDsThatStrangersGet(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	pidfile, config := filepath.Join(dir, "pid"), filepath.Join(dir, "config.yml")
	n := startNamespace(t, pidfile)
	must(t, os.WriteFile(config, fmt.Appendf(nil, `
targets:
  - name: by its file
    labels: {by: file}
    master: {pidfile: %s}
  - name: by its id
    labels: {by: id}
    master: {pid: %d}
`, pidfile, n.master), 0o600))
	e := n.beside(t, "--config.file="+config)
	e.says(t, theTarget, "file 3, id 3")
	var worker int
	for s, v := range e.scrape(t).samples {
		if isOf(s, "prefork_worker_pid") {
			worker = int(v)
		}
	}
	n.does("replace %d", worker)
	e.says(t, theExits, "file KILL 1, id KILL 1")
	e.says(t, theWorkers, "file running 2, id running 2")
	for s, v := range e.scrape(t).samples {
		if isOf(s, "prefork_worker_pid") && int(v) == worker {
			t.Errorf("%s %v, which is a stranger's", s, v)
		}
	}
	n.does("end %d", worker)
	n.does("master")
	e.isUp(t, 0)
	for by, reason := range map[string]string{"file": "the process that the pidfile names is younger than the file", "id": "the master has ended"} {
		want := series("prefork_feature_available", "by", by, "feature", "master", "reason", reason)
		await(t, want, func() bool {
			_, ok := e.scrape(t).samples[want]
			return ok
		})
	}
	e.says(t, theExits, "file KILL 1, id KILL 1")
	e.says(t, theMasters, "")
	n.does("end %d", n.master)
	e.isUp(t, 0)
	e.says(t, theExits, "file KILL 1, id KILL 1")
}

// forged is what runs a program that calls itself something else, with an environment that
// tells of a metric directory.
func forged(title, dir string) *exec.Cmd {
	cmd := exec.Command("bash", "-c", `exec -a "$0" sleep 1000`, title)
	cmd.Env = []string{"PATH=/usr/bin:/bin", "PROMETHEUS_MULTIPROC_DIR=" + dir}
	return cmd
}

// Titles and environments are what processes say of themselves. Whoever runs beside the
// server, or is run by it, is not believed.
func TestWhatProcessesSayOfThemselvesIsNotBelieved(t *testing.T) {
	t.Parallel()
	dir := openDir(t)
	writeFile(t, dir, "counter_1.db", fileBytes(jobs("forged", 3)))
	copyFile(t, watchdata(t, ""), "app.py", dir)
	must(t, os.WriteFile(filepath.Join(dir, "gunicorn.conf.py"), []byte(`
import subprocess
def when_ready(server):
    for title in 'gunicorn: worker [app]', 'gunicorn: master [app]', 'puma: cluster worker 0: 1', 'uWSGI worker 1':
        subprocess.Popen(['bash', '-c', 'exec -a "$0" sleep 1000', title], env={'PROMETHEUS_MULTIPROC_DIR': '`+dir+`'})
`), 0o600))
	s, _, pidfile := gunicornWithPIDFile(t, nil, "--workers", "2", "--pythonpath", dir, "--config", filepath.Join(dir, "gunicorn.conf.py"))
	for _, title := range []string{"gunicorn: master [app]", "gunicorn: worker [app]", "puma: cluster worker 0: 1 [app]"} {
		cmd := forged(title, dir)
		must(t, cmd.Start())
		t.Cleanup(func() {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		})
	}
	e := beside(t, "--master.pidfile="+pidfile)
	e.says(t, theTarget, "2")
	e.says(t, theWorkers, "running 2")
	await(t, "all that the master has started", func() bool { return len(s.children(t)) == 6 })
	e.says(t, theTarget, "2")
	got := e.scrape(t)
	if told := got.application().samples; len(told) != 0 {
		t.Errorf("%v: want nothing of the forgers' directory", told)
	}
	s.ends(t, "/exit/7")
	e.says(t, theExits, "7 1")
	e.says(t, theRestarts, "exit_code 1")
}
