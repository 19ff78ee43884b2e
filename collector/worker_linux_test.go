package collector

import (
	"errors"
	"fmt"
	"net"
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

	"golang.org/x/sys/unix"

	"github.com/prefork-exporter/prefork_exporter/collector/internal/sockdiag"
	"github.com/prefork-exporter/prefork_exporter/collector/watch"
)

// measuring returns a collector of workers, over this machine's kernel.
func measuring(t *testing.T, workers ...watch.Worker) *Worker {
	t.Helper()
	c := NewWorker(WorkerOptions{Source: known(watch.State{Workers: workers})})
	t.Cleanup(func() { must(t, c.Close()) })
	return c
}

// number returns a value that is told, or -1.
func number(t *testing.T, c Collector, series string) float64 {
	t.Helper()
	text := valueOf(t, c, series)
	if text == "" {
		return -1
	}
	n, err := strconv.ParseFloat(text, 64)
	must(t, err)
	return n
}

func TestWhatIsToldOfAWorkerIsWhatItKnowsOfItself(t *testing.T) {
	p := newPeer(t)
	c := measuring(t, p.Worker)
	c.begun = time.Time{} // so that it counts from its begin
	for _, command := range []string{"report", "open 20", "threads 1", "threads 30", "open 200", "touch 8"} {
		before := p.tell(command)
		got := map[string]float64{}
		for _, name := range []string{
			`open_fds{worker_id="0"}`, `threads{worker_id="0"}`, `pid{worker_id="0"}`,
			`context_switches_total{worker_id="0",type="voluntary"}`, `context_switches_total{worker_id="0",type="involuntary"}`,
			`cpu_seconds_total{worker_id="0",mode="user"}`, `cpu_seconds_total{worker_id="0",mode="system"}`,
		} {
			got[name] = number(t, c, "prefork_worker_"+name)
		}
		after := p.tell("report")
		const tick = .01
		for name, want := range map[string][2]float64{
			`open_fds{worker_id="0"}`:                                  {float64(before.Files), float64(after.Files)},
			`threads{worker_id="0"}`:                                   {float64(before.Threads), float64(after.Threads)},
			`pid{worker_id="0"}`:                                       {float64(p.PID), float64(p.PID)},
			`context_switches_total{worker_id="0",type="voluntary"}`:   {float64(before.Voluntary), float64(after.Voluntary)},
			`context_switches_total{worker_id="0",type="involuntary"}`: {float64(before.Involuntary), float64(after.Involuntary)},
			`cpu_seconds_total{worker_id="0",mode="user"}`:             {before.User - tick, after.User},
			`cpu_seconds_total{worker_id="0",mode="system"}`:           {before.System - tick, after.System},
		} {
			if got[name] < want[0] || got[name] > want[1] {
				t.Errorf("%s: %s is %v; by its own account from %v to %v", command, name, got[name], want[0], want[1])
			}
		}
	}
}

// The kernel forgets what threads have done that have ended: we do not.
func TestContextSwitchesOfThreadsThatHaveEndedStay(t *testing.T) {
	p := newPeer(t)
	c := measuring(t, p.Worker)
	c.begun = time.Time{} // so that it counts from its begin
	switched := func() float64 {
		return number(t, c, `prefork_worker_context_switches_total{worker_id="0",type="voluntary"}`)
	}
	started := p.tell("threads 40").Threads
	before := switched()
	p.tell("leave")
	await(t, "the end of most threads", func() bool { return p.tell("report").Threads <= started-30 })
	now := switched()
	if truth := p.tell("report"); now < before || now > float64(truth.Voluntary) {
		t.Errorf("%v, after %v before they ended; by its own account %d", now, before, truth.Voluntary)
	}
}

func TestMemorySharesAreThoseOfTheKernel(t *testing.T) {
	const mib = 1 << 20
	fd, err := unix.MemfdCreate("shared", 0)
	must(t, err)
	file := os.NewFile(uintptr(fd), "shared")
	defer func() { _ = file.Close() }()
	must(t, file.Truncate(32*mib))
	ours, err := unix.Mmap(fd, 0, 32*mib, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	must(t, err)
	defer func() { must(t, unix.Munmap(ours)) }()
	for i := 0; i < len(ours); i += os.Getpagesize() {
		ours[i] = 1
	}
	p := newPeer(t, file)
	c := measuring(t, p.Worker)
	if got := number(t, c, `prefork_worker_memory_pss_bytes{worker_id="0"}`); got != -1 {
		t.Errorf("%v before anybody looked", got)
	}
	read := func() (proportional, unique float64) {
		c.shares.of = nil // it is due at once
		c.shares.tick()
		return number(t, c, `prefork_worker_memory_pss_bytes{worker_id="0"}`), number(t, c, `prefork_worker_memory_uss_bytes{worker_id="0"}`)
	}
	proportional, unique := read()
	for _, step := range []struct {
		command              string
		proportional, unique float64 // more than before
	}{{"touch 32", 32 * mib, 32 * mib}, {"share 32", 16 * mib, 0}} {
		p.tell(step.command)
		moreProportional, moreUnique := read()
		const give = 3 * mib
		for name, v := range map[string]float64{
			"proportional": moreProportional - proportional - step.proportional, "unique": moreUnique - unique - step.unique,
		} {
			if v < -give || v > give {
				t.Errorf("%s: the %s size is %v off", step.command, name, v)
			}
		}
		proportional, unique = moreProportional, moreUnique
	}
}

// server is this process as a worker that listens.
type server struct {
	t *testing.T
	net.Listener
	*Worker
}

func newServer(t *testing.T, network, address string) *server {
	t.Helper()
	l, err := net.Listen(network, address)
	if errors.Is(err, syscall.EADDRNOTAVAIL) || errors.Is(err, syscall.EAFNOSUPPORT) {
		t.Skip("this machine has no IPv6")
	}
	must(t, err)
	t.Cleanup(func() { _ = l.Close() })
	return &server{t, l, measuring(t, workerOf(t, os.Getpid(), "0"))}
}

// see takes a new look, and returns who is busy.
func (s *server) see() string {
	s.t.Helper()
	s.busy.mu.Lock()
	defer s.busy.mu.Unlock()
	s.busy.sample()
	state, _ := s.source.State()
	return s.busy.last.reason + bySlot(state, s.busy.last.busy)
}

// connection is both ends of one.
type connection struct {
	t              *testing.T
	client, server net.Conn
}

func (s *server) connect(network string) *connection {
	s.t.Helper()
	address := s.Addr().String()
	if network == "tcp4" {
		_, port, err := net.SplitHostPort(address)
		must(s.t, err)
		address = "127.0.0.1:" + port
	}
	client, err := net.Dial(network, address)
	must(s.t, err)
	s.t.Cleanup(func() { _ = client.Close() })
	return &connection{t: s.t, client: client}
}

func (c *connection) accept(s *server) {
	c.t.Helper()
	var err error
	c.server, err = s.Accept()
	must(c.t, err)
	c.t.Cleanup(func() { _ = c.server.Close() })
}

// ask sends a part of a request, which the server reads.
func (c *connection) ask(text string) { c.move(c.client, c.server, text) }

// answer sends a part of a response, which the client reads.
func (c *connection) answer(text string) { c.move(c.server, c.client, text) }

func (c *connection) move(from, to net.Conn, text string) {
	c.t.Helper()
	_, err := from.Write([]byte(text))
	must(c.t, err)
	_, err = to.Read(make([]byte, 1000))
	must(c.t, err)
}

// leave ends the client's side, of which the server learns.
func (c *connection) leave() {
	c.t.Helper()
	must(c.t, c.client.(*net.TCPConn).CloseWrite())
	if n, err := c.server.Read(make([]byte, 10)); n != 0 || err == nil {
		c.t.Fatalf("%d bytes, %v; want the end", n, err)
	}
}

// afterwards waits until the kernel can tell what comes from what was.
func (s *server) afterwards() {
	s.t.Helper()
	await(s.t, "a tick of the kernel's clock", func() bool {
		past := false
		s.busy.mu.Lock()
		defer s.busy.mu.Unlock()
		listening, reason := s.busy.listeners.found()
		if reason != "" {
			s.t.Fatal(reason)
		}
		must(s.t, s.busy.kernel.Accepted(listening, func(one sockdiag.Connection) {
			past = past || one.SinceSent > 20e6
		}))
		return past
	})
}

func TestAWorkerIsBusyWhileItOwesAResponse(t *testing.T) {
	for name, where := range map[string]struct{ network, address, client string }{
		"IPv4":                      {"tcp4", "127.0.0.1:0", "tcp"},
		"IPv6":                      {"tcp6", "[::1]:0", "tcp"},
		"IPv4, at a socket of IPv6": {"tcp", "[::]:0", "tcp4"},
		"IPv4, at a socket of all":  {"tcp4", "0.0.0.0:0", "tcp4"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newServer(t, where.network, where.address)
			check := func(what, want string) {
				t.Helper()
				if got := s.see(); got != want {
					t.Errorf("%s: %s, want %s", what, got, want)
				}
			}
			check("no connection", "0:0")
			c := s.connect(where.client)
			_, err := c.client.Write([]byte("G"))
			must(t, err)
			check("it waits to be accepted", "0:0")
			must(t, c.client.Close())
			c.accept(s)
			must(t, c.server.Close())

			c = s.connect(where.client)
			c.accept(s)
			check("accepted, and silent", "0:0")
			c.ask("GET / HT")
			check("half a request", "0:1")
			c.ask("TP/1.1\r\n\r\n")
			check("a request", "0:1")
			c.answer("HTTP/1.1 200 OK\r\n")
			check("its response has begun", "0:0")
			c.answer("\r\n")
			check("its response is done", "0:0")
			s.afterwards()
			c.ask("GET / HTTP/1.1\r\n\r\n")
			check("another request", "0:1")
			c.leave()
			check("after which the client says no more", "0:1")
			c.answer("HTTP/1.1 200 OK\r\n\r\n")
			check("and is answered", "0:0")

			c = s.connect(where.client)
			c.accept(s)
			c.leave()
			check("a client that leaves without a word", "0:0")
		})
	}
}

func TestEachWorkerIsBusyWithItsOwn(t *testing.T) {
	s := newServer(t, "tcp", "127.0.0.1:0")
	other := newServer(t, "tcp", "127.0.0.1:0")
	file, err := s.Listener.(*net.TCPListener).File()
	must(t, err)
	defer func() { _ = file.Close() }()
	p := newPeer(t, file)
	p.Slot = "1"
	s.Worker = measuring(t, workerOf(t, os.Getpid(), "0"), p.Worker)
	if got, want := s.see(), "0:0 1:0"; got != want {
		t.Errorf("nobody asks: %s, want %s", got, want)
	}
	theirs := s.connect("tcp")
	p.tell("accept")
	_, err = theirs.client.Write([]byte("GET"))
	must(t, err)
	if got, want := s.see(), "0:0 1:1"; got != want {
		t.Errorf("the other one is asked: %s, want %s", got, want)
	}
	mine := other.connect("tcp")
	mine.accept(other)
	mine.ask("GET")
	if got, want := s.see(), "0:1 1:1"; got != want {
		t.Errorf("both are asked, one at another listener: %s, want %s", got, want)
	}
	must(t, theirs.client.Close())
	mine.answer("HTTP")
	if got, want := s.see(), "0:0 1:1"; got != want {
		t.Errorf("one is done, the other's client has given up: %s, want %s", got, want)
	}
}

func TestAWorkerBehindAUnixSocketMayBeBusyOrNot(t *testing.T) {
	s := newServer(t, "unix", filepath.Join(t.TempDir(), "a.sock"))
	if got := s.see(); !strings.HasPrefix(got, "the workers listen on a Unix socket") {
		t.Errorf("%s, want that nobody knows", got)
	}
}

// told returns what text has of one worker: its series, and each feature with its reason.
func told(text string) string {
	var all []string
	for line := range strings.Lines(text) {
		if m := regexp.MustCompile(`^prefork_worker_(\w+)\{.* (-?[\d.e+]+)`).FindStringSubmatch(line); m != nil {
			all = append(all, m[1])
		}
		if m := regexp.MustCompile(`^prefork_feature_available\{feature="(\w+)",reason="(.*)"\}`).FindStringSubmatch(line); m != nil {
			all = append(all, m[1]+"="+m[2])
		}
	}
	slices.Sort(all)
	return strings.Join(slices.Compact(all), " ")
}

func TestWhatAUserWithoutPrivilegesIsTold(t *testing.T) {
	s := newServer(t, "tcp", "127.0.0.1:0")
	_ = s
	got := told(asNobody(t, "/proc", os.Getpid()))
	want := "context_switches_total cpu_seconds_total memory_bytes open_fds pid threads uptime_seconds " +
		"worker_busy=" + notReadable + " worker_descriptors= worker_pss=the workers' smaps_rollup may not be read"
	if !filesAreTold(t) {
		want = strings.Replace(strings.Replace(want, " open_fds", "", 1), "descriptors=", "descriptors="+notReadable, 1)
	}
	if got != want {
		t.Errorf("told:\n%s\nwant\n%s", got, want)
	}
}

// Before Linux 6.2 they have to be counted, which not everybody may: as in the directory
// fdinfo still.
func TestFilesThatMayNotBeCounted(t *testing.T) {
	root := fixtureProcess(t, map[string]string{"stat": "7 (x) S 1 7 7 0 -1 0 0 0 0 0 1 1 0 0 20 0 1 0 5 0 5 0\n"})
	must(t, os.Symlink(fmt.Sprintf("/proc/%d/fdinfo", os.Getpid()), filepath.Join(root, "7", "fd")))
	for parent := filepath.Join(root, "7"); parent != os.TempDir() && parent != "/"; parent = filepath.Dir(parent) {
		must(t, os.Chmod(parent, 0o755))
	}
	got := told(asNobody(t, root, 7))
	if strings.Contains(got, "open_fds") || !strings.Contains(got, "worker_descriptors="+notReadable) {
		t.Errorf("told: %s", got)
	}
}

// filesAreTold says whether the kernel counts descriptors for everybody, as since Linux 6.2.
func filesAreTold(t *testing.T) bool {
	t.Helper()
	info, err := os.Stat("/proc/self/fd")
	must(t, err)
	return info.Size() > 0
}

func TestAWorkerThatIsHiddenIsLeftOut(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("proc", dir, "proc", 0, "hidepid=2"); err != nil {
		t.Skipf("wants to mount proc with hidepid: %v", err)
	}
	defer func() { must(t, unix.Unmount(dir, unix.MNT_DETACH)) }()
	for parent := dir; parent != "/" && parent != os.TempDir(); parent = filepath.Dir(parent) {
		must(t, os.Chmod(parent, 0o755))
	}
	if got := told(asNobody(t, dir, os.Getpid())); got != "" {
		t.Errorf("told: %s", got)
	}
}

func TestAStrangerWithAWorkersIDIsNeverMeasured(t *testing.T) {
	s := newServer(t, "tcp", "127.0.0.1:0")
	c := s.connect("tcp")
	c.accept(s)
	c.ask("GET")
	w := workerOf(t, os.Getpid(), "0")
	for name, tc := range map[string]struct {
		start uint64
		there bool
	}{"the worker": {w.Start, true}, "whose begin nobody knows": {0, true}, "born later": {w.Start + 1, false}, "born before": {w.Start - 1, false}} {
		w.Start = tc.start
		m := measuring(t, w)
		m.shares.tick()
		got := told(collect(t, m, ""))
		busy := number(t, m, `prefork_worker_busy{worker_id="0"}`)
		if there := got != ""; there != tc.there || (busy == 1) != tc.there {
			t.Errorf("%s: busy %v, told %q", name, busy, got)
		}
	}
}

// fixtureProcess writes what a process might have in proc.
func fixtureProcess(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, "7", name)
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		must(t, os.WriteFile(path, []byte(text), 0o644))
	}
	return root
}

func TestGarbageInProcIsLeftOut(t *testing.T) {
	stat := func(threads int) string {
		return fmt.Sprintf("7 (a ) b (c) S 1 7 7 0 -1 4194304 100 0 0 0 250 50 30 10 20 0 %d 0 4242 1000000 500 18446744073709551615 0 0\n", threads)
	}
	status := func(voluntary string) string {
		return "Name:\ta\nUid:\t1\t1\t1\t1\nGid:\t1\t1\t1\t1\nvoluntary_ctxt_switches:\t" + voluntary + "\nnonvoluntary_ctxt_switches:\t3\n"
	}
	const memory = "55d2-7ffd ---p 00000000 00:00 0 [rollup]\nPss: 394 kB\nPrivate_Clean: 100 kB\nPrivate_Dirty: 112 kB\nPrivate_Hugetlb: 8 kB\n"
	const always = "cpu_seconds_total memory_bytes pid threads uptime_seconds"
	for name, tc := range map[string]struct {
		files map[string]string
		want  string
	}{
		"all": {map[string]string{"stat": stat(1), "status": status("5"), "smaps_rollup": memory, "fd/0": ""},
			"context_switches_total cpu_seconds_total memory_bytes memory_pss_bytes memory_uss_bytes open_fds pid threads uptime_seconds"},
		"no process":            {nil, ""},
		"no state":              {map[string]string{"status": status("5"), "fd/0": ""}, ""},
		"a state of garbage":    {map[string]string{"stat": "7 (x) S 1 7 \x00\xff", "status": status("5")}, ""},
		"an empty state":        {map[string]string{"stat": "", "status": status("5")}, ""},
		"nothing else":          {map[string]string{"stat": stat(1)}, always},
		"a status of garbage":   {map[string]string{"stat": stat(1), "status": status("lots")}, always},
		"memory of garbage":     {map[string]string{"stat": stat(1), "smaps_rollup": "Pss: lots kB\n"}, always},
		"memory without a line": {map[string]string{"stat": stat(1), "smaps_rollup": "Pss: 394 kB\n"}, always},
		"threads that do not tell": {map[string]string{"stat": stat(2), "status": status("5"), "task/7/status": status("5"), "task/8/status": ""},
			always},
		"threads":               {map[string]string{"stat": stat(2), "task/7/status": status("5"), "task/8/status": status("6")}, "context_switches_total " + always},
		"a thread that is none": {map[string]string{"stat": stat(2), "task/7/status": status("5"), "task/x/status": status("6")}, always},
	} {
		t.Run(name, func(t *testing.T) {
			w := watch.Worker{Slot: "0", PID: 7, Start: 4242, Born: time.Now().Add(time.Hour)}
			c := NewWorker(WorkerOptions{Source: known(watch.State{Workers: []watch.Worker{w}}), Proc: fixtureProcess(t, tc.files)})
			defer func() { must(t, c.Close()) }()
			c.shares.tick()
			text := collect(t, c, "")
			if got := strings.TrimSpace(strings.Split(told(text), " worker_")[0]); got != tc.want {
				t.Errorf("told %q, want %q", got, tc.want)
			}
			for series, want := range map[string]string{
				`cpu_seconds_total{worker_id="0",mode="user"}`: "2.8", `memory_pss_bytes{worker_id="0"}`: "403456", `memory_uss_bytes{worker_id="0"}`: "225280",
				`context_switches_total{worker_id="0",type="voluntary"}`: map[string]string{"all": "5", "threads": "11"}[name],
			} {
				if got := valueOf(t, c, "prefork_worker_"+series); got != "" && got != want {
					t.Errorf("%s is %s, want %s", series, got, want)
				}
			}
		})
	}
}

// BenchmarkWorkerUpdate has five hundred workers, which are all one process.
func BenchmarkWorkerUpdate(b *testing.B) {
	sleeper := exec.Command("sleep", "1000")
	must(b, sleeper.Start())
	b.Cleanup(func() { _, _ = sleeper.Process.Kill(), sleeper.Wait() })
	for name, pid := range map[string]int{"one thread": sleeper.Process.Pid, "this process": os.Getpid()} {
		b.Run(name, func(b *testing.B) {
			var workers []watch.Worker
			for i := range 500 {
				workers = append(workers, watch.Worker{Slot: strconv.Itoa(i), PID: pid, State: "running"})
			}
			c := NewWorker(WorkerOptions{Source: known(watch.State{Workers: workers})})
			b.Cleanup(func() { _ = c.Close() })
			b.ReportAllocs()
			for b.Loop() {
				must(b, c.Update(b.Context(), &Output{}))
			}
		})
	}
}

// BenchmarkBusyLook has five hundred workers, one of which has a thousand connections.
func BenchmarkBusyLook(b *testing.B) {
	sleeper := exec.Command("sleep", "1000")
	must(b, sleeper.Start())
	b.Cleanup(func() { _, _ = sleeper.Process.Kill(), sleeper.Wait() })
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(b, err)
	b.Cleanup(func() { _ = l.Close() })
	for range 1000 {
		client, err := net.Dial("tcp", l.Addr().String())
		must(b, err)
		accepted, err := l.Accept()
		must(b, err)
		b.Cleanup(func() { _, _ = client.Close(), accepted.Close() })
		_, err = client.Write([]byte("GET"))
		must(b, err)
	}
	workers := []watch.Worker{{Slot: "0", PID: os.Getpid(), State: "running"}}
	for i := range 499 {
		workers = append(workers, watch.Worker{Slot: strconv.Itoa(i + 1), PID: sleeper.Process.Pid, Start: uint64(i + 1), State: "running"})
	}
	c := NewWorker(WorkerOptions{Source: known(watch.State{Workers: workers})})
	b.Cleanup(func() { _ = c.Close() })
	b.ReportAllocs()
	for b.Loop() {
		c.busy.sample()
	}
	if got := c.busy.last.howMany(); got != 1 {
		b.Errorf("%d busy workers, want 1", got)
	}
}
