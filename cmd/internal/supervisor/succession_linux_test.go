package supervisor

import (
	"maps"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Lines as a kernel has written them.
func TestWhatTheKernelTellsOfAProcess(t *testing.T) {
	rest := func(flags string) string { return " 0 -1 " + flags + " 1 0 0 0 0 0 0 0 20 0 1 0 12345 1 1" }
	const forked, executed = "4194368", "4194304"
	worker := kin{parent: 3, group: 5, forked: true, start: 12345}
	zombie, master := worker, worker
	zombie.dead, master.forked = true, false
	for line, want := range map[string]struct {
		kin
		ok bool
	}{
		"7 (sh) S 3 5 1" + rest(forked):        {worker, true},
		"7 (sh) S 3 5 1" + rest(executed):      {master, true},
		"7 (a) b) Z 3 5 1" + rest(forked):      {zombie, true},
		"7 (S 1 2 3 () X 3 5 1" + rest(forked): {zombie, true},
		"7 (sh) S three 5 1" + rest(forked):    {},
		"7 (sh) S 3 5 1 0 -1":                  {},
		"":                                     {},
	} {
		if got, ok := parseKin(line); ok != want.ok || ok && got != want.kin {
			t.Errorf("%q: %+v, %v; want %+v", line, got, ok, want)
		}
	}
}

// One of our own, beside what it is known to be.
func TestAProcessOfOurs(t *testing.T) {
	p, ok := processes()[os.Getpid()]
	if !ok || p.parent != os.Getppid() || p.group != syscall.Getpgrp() || p.dead || p.forked {
		t.Errorf("we are %+v, %v", p, ok)
	}
	if age := time.Since(p.born()); age < 0 || age > 24*time.Hour {
		t.Errorf("we are %v old", age)
	}
}

func TestWhenAChildWasStarted(t *testing.T) {
	startTicks := (&Master{}).options(nil, nil, nil, nil, household{}, Command{}).StartTicks
	cmd := exec.Command("true")
	before := time.Now()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Wait() }) // not waited for yet, it is there for sure
	stat, err := os.ReadFile(procPath(cmd.Process.Pid, "stat"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	const start = 22 - 3 // by proc_pid_stat(5)
	if got := strconv.FormatUint(startTicks(cmd.Process.Pid), 10); got != strings.Fields(rest)[start] || got == "0" {
		t.Errorf("started at %s, want that of %s", got, stat)
	}
	const tick = time.Second / 100
	if born := processes()[cmd.Process.Pid].born(); born.Before(before.Add(-tick)) || born.After(time.Now()) {
		t.Errorf("born %v after we began to start it", born.Sub(before))
	}
	for name, pid := range map[string]int{"we, who are no child of ours": os.Getpid(), "nobody": 1 << 30} {
		if got := startTicks(pid); got != 0 {
			t.Errorf("%s: started at %d, want that nobody knows", name, got)
		}
	}
}

func TestWhoListens(t *testing.T) {
	for network, address := range map[string]string{"tcp4": "127.0.0.1:0", "tcp6": "[::1]:0", "unix": t.TempDir() + "/socket"} {
		l, err := net.Listen(network, address)
		if err != nil {
			t.Skip(err) // a machine without IPv6
		}
		if !listens(os.Getpid()) {
			t.Errorf("%s: we do not listen", network)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		if listens(os.Getpid()) {
			t.Errorf("%s: we listen still", network)
		}
	}
}

// A master is a process that has become a program since it was forked, and has workers;
// whether it listens is asked of the process itself.
func TestWhichOrphanIsTheSuccessor(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	run := func(env string, files ...*os.File) int {
		t.Helper()
		cmd := exec.Command("sleep", "1000")
		cmd.Env, cmd.ExtraFiles = []string{env}, files
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _, _ = cmd.Process.Kill(), cmd.Wait() })
		return cmd.Process.Pid
	}
	const group, old = 5, 4
	us := os.Getpid()
	silent, listening := run(""), run("", f)
	heirOfGunicorn, heirOfUnicorn := run("GUNICORN_PID="+strconv.Itoa(old)), run("UNICORN_FD=3,4", f)
	master, worker := kin{parent: us, group: group}, kin{group: group, forked: true}
	for name, tc := range map[string]struct {
		pid  int
		kin  kin
		work bool // it has workers
		is   bool
	}{
		"a master":                                 {listening, master, true, true},
		"a helper that listens":                    {listening, master, false, false},
		"a helper that forks":                      {silent, master, true, false},
		"a worker":                                 {listening, kin{parent: us, group: group, forked: true}, false, false},
		"a worker that forks":                      {listening, kin{parent: us, group: group, forked: true}, true, false},
		"a master of another group":                {listening, kin{parent: us, group: 6}, true, false},
		"a master that has a parent":               {listening, kin{parent: 77, group: group}, true, false},
		"a master that has ended":                  {listening, kin{parent: us, group: group, dead: true}, true, false},
		"one that gunicorn has started":            {heirOfGunicorn, master, false, true},
		"one that unicorn has started":             {heirOfUnicorn, master, false, true},
		"one that another gunicorn has started":    {run("GUNICORN_PID=40"), master, false, false},
		"a helper of one that unicorn has started": {run("UNICORN_FD=3"), master, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			all := map[int]kin{tc.pid: tc.kin, old: {parent: us, group: group, dead: true}, us: {parent: 1, group: 1}}
			if tc.work {
				w := worker
				w.parent = tc.pid
				all[1<<30] = w
			}
			want := 0
			if tc.is {
				want = tc.pid
			}
			if got := heir(all, group, old, map[int]bool{old: true}); got != want {
				t.Errorf("it is %d, want %d", got, want)
			}
			if got := heir(all, group, old, map[int]bool{tc.pid: true}); got != 0 {
				t.Errorf("one of ours is: %d", got)
			}
			another := maps.Clone(all)
			if another[heirOfGunicorn] = master; tc.is && tc.pid != heirOfGunicorn && heir(another, group, old, nil) != 0 {
				t.Error("one of two is")
			}
		})
	}
}
