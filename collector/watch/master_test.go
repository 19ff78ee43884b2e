package watch

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// fakeProc is a made-up /proc.
type fakeProc struct {
	t   *testing.T
	dir string
}

// fake is a process in it.
type fake struct {
	pid, parent int
	start       uint64
	state       string // empty: S
	session     int
	forked      bool
	user        int
	args        string // blanks separate them
	cgroup      string
}

const (
	kernelThread = "-" // as arguments: it has none
	testUser     = 1000
	testGroup    = "/shop.slice/shop.service"
)

// newFakeProc returns one in which this process is a child of 900.
func newFakeProc(t *testing.T) fakeProc {
	p := fakeProc{t, t.TempDir()}
	p.put(fake{pid: os.Getpid(), parent: 900, start: 5, args: "prefork_exporter --master.process gunicorn", user: testUser, cgroup: testGroup})
	p.put(fake{pid: 900, parent: 1, start: 4, args: "sh -c gunicorn", user: testUser, cgroup: testGroup})
	p.put(fake{pid: 1, start: 1, args: "init gunicorn", user: testUser, cgroup: testGroup})
	p.inNamespace("pid:[4026532000]")
	return p
}

func (p fakeProc) inNamespace(name string) {
	p.t.Helper()
	link := filepath.Join(p.dir, fmt.Sprint(os.Getpid()), "ns", "pid")
	must(p.t, os.MkdirAll(filepath.Dir(link), 0o755))
	_ = os.Remove(link)
	must(p.t, os.Symlink(name, link))
}

func (p fakeProc) put(f fake) {
	p.t.Helper()
	dir := filepath.Join(p.dir, fmt.Sprint(f.pid))
	must(p.t, os.MkdirAll(dir, 0o755))
	if f.state == "" {
		f.state = "S"
	}
	if f.args == "" {
		f.args = "server"
	}
	flags := 0x400000
	if f.forked {
		flags |= 0x40
	}
	stat := fmt.Sprintf("%d (a) b) %s %d %d %d 0 -1 %d %s %d 0 0 0 0\n", f.pid, f.state, f.parent, f.session, f.session, flags,
		"0 0 0 0 1 2 3 4 20 0 1 0", f.start)
	must(p.t, os.WriteFile(filepath.Join(dir, "stat"), []byte(stat), 0o600))
	status := fmt.Sprintf("Name:\ta\nUid:\t%d\t%d\t%d\t%d\nGid:\t1\t1\t1\t1\nvoluntary_ctxt_switches:\t1\nnonvoluntary_ctxt_switches:\t2\n",
		f.user, f.user, f.user, f.user)
	must(p.t, os.WriteFile(filepath.Join(dir, "status"), []byte(status), 0o600))
	must(p.t, os.WriteFile(filepath.Join(dir, "cmdline"), []byte(strings.TrimPrefix(strings.ReplaceAll(f.args, " ", "\x00")+"\x00", kernelThread+"\x00")), 0o600))
	must(p.t, os.WriteFile(filepath.Join(dir, "cgroup"), []byte("3:cpu,cpuacct:/other\n0::"+f.cgroup+"\n"), 0o600))
}

func (p fakeProc) remove(pid int) {
	p.t.Helper()
	must(p.t, os.RemoveAll(filepath.Join(p.dir, fmt.Sprint(pid))))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// finds checks what a finder finds: the process, or the reason why not.
func finds(t *testing.T, f Finder, pid int, reason string) {
	t.Helper()
	got, err := f.Find()
	var why *NoMasterError
	if err != nil && !errors.As(err, &why) {
		t.Fatalf("Find: %v: want a NoMasterError", err)
	}
	text := ""
	if why != nil {
		text = why.Error()
	}
	if got != pid || text != reason {
		t.Errorf("Find = %d, %q (%v), want %d, %q", got, text, why, pid, reason)
	}
	if regexp.MustCompile(`[0-9/]`).MatchString(text) {
		t.Errorf("the reason %q has a number or a path in it", text)
	}
}

func TestAProcessByItsID(t *testing.T) {
	p := newFakeProc(t)
	f := FindPID(p.dir, 50)
	finds(t, f, 0, "there is no process of that id")
	p.put(fake{pid: 50, start: 100})
	finds(t, f, 50, "")
	p.put(fake{pid: 50, start: 100, args: "another program", state: "T"})
	finds(t, f, 50, "")
	p.put(fake{pid: 50, start: 100, state: "Z"})
	finds(t, f, 0, "the master has ended")
	p.remove(50)
	finds(t, f, 0, "the master has ended")
	p.put(fake{pid: 50, start: 200})
	finds(t, f, 0, "the master has ended")
}

func TestProcessesThatAreNoMaster(t *testing.T) {
	p := newFakeProc(t)
	finds(t, FindPID(p.dir, os.Getpid()), 0, "the process id is the exporter's own")
	finds(t, FindPID(p.dir, 1), 1, "") // that of a container
	finds(t, FindPID(p.dir, 900), 900, "")
	p.put(fake{pid: 2, args: kernelThread})
	finds(t, FindPID(p.dir, 2), 0, "the process id is that of a thread of the kernel")
	p.inNamespace("pid:[4026531836]")
	finds(t, FindPID(p.dir, 1), 0, "the process id is that of the machine's first process")
}

func TestAChild(t *testing.T) {
	pid := 0
	f := FindChild(func() int { return pid })
	finds(t, f, 0, "the server is not running")
	pid = 7
	finds(t, f, 7, "")
}

func TestAProcessByItsCommandLine(t *testing.T) {
	const two = "several processes match that have no matching parent"
	master := fake{pid: 50, parent: 1, start: 100, session: 50, args: "python gunicorn app:app", user: testUser, cgroup: testGroup}
	worker := func(pid, parent int) fake {
		w := master
		w.pid, w.parent, w.start, w.forked = pid, parent, 200, true
		return w
	}
	changed := func(f fake, change func(*fake)) fake {
		change(&f)
		return f
	}
	user := testUser
	for name, tc := range map[string]struct {
		pattern Pattern // the zero one: that command line and that user
		fakes   []fake
		pid     int
		reason  string
	}{
		"nobody":                    {Pattern{}, nil, 0, "no process matches"},
		"a master alone":            {Pattern{}, []fake{master}, 50, ""},
		"a master with workers":     {Pattern{}, []fake{worker(51, 50), master, worker(52, 50)}, 50, ""},
		"with a grandchild":         {Pattern{}, []fake{worker(51, 50), master, worker(52, 51)}, 50, ""},
		"whose id is higher":        {Pattern{}, []fake{worker(51, 60), changed(master, func(f *fake) { f.pid = 60 })}, 60, ""},
		"of another user":           {Pattern{}, []fake{changed(master, func(f *fake) { f.user = 0 })}, 0, "no process matches"},
		"with another command line": {Pattern{}, []fake{changed(master, func(f *fake) { f.args = "python app" })}, 0, "no process matches"},
		"that has ended":            {Pattern{}, []fake{changed(master, func(f *fake) { f.state = "Z" })}, 0, "no process matches"},
		"two masters":               {Pattern{}, []fake{master, changed(master, func(f *fake) { f.pid = 60 })}, 0, two},
		"one that is forged by another user": {
			Pattern{}, []fake{master, changed(master, func(f *fake) { f.pid, f.user = 60, 7 })}, 50, "",
		},
		"by its control group": {
			Pattern{Command: regexp.MustCompile("gunicorn"), Cgroup: "/shop.slice"},
			[]fake{master, changed(master, func(f *fake) { f.pid, f.cgroup = 60, "/shop.slices" })}, 50, "",
		},
		"by exactly its control group": {
			Pattern{Command: regexp.MustCompile("gunicorn"), Cgroup: testGroup + "/"},
			[]fake{master, changed(master, func(f *fake) { f.pid, f.cgroup = 60, "/shop.slice" })}, 50, "",
		},
		"by a control group of version 1": {
			Pattern{Command: regexp.MustCompile("gunicorn"), Cgroup: "/other"}, []fake{master}, 50, "",
		},
		"by words that a blank joins": {
			Pattern{Command: regexp.MustCompile("^python gunicorn app:app$"), User: &user}, []fake{master}, 50, "",
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := newFakeProc(t)
			for _, f := range tc.fakes {
				p.put(f)
			}
			if tc.pattern.Command == nil {
				tc.pattern = Pattern{Command: regexp.MustCompile("gunicorn"), User: &user}
			}
			f, err := FindProcess(p.dir, tc.pattern)
			must(t, err)
			finds(t, f, tc.pid, tc.reason)
		})
	}
}

func TestAProcessByItsCommandLineOverTime(t *testing.T) {
	const orphans = "only workers of a master that has ended match"
	p, user := newFakeProc(t), testUser
	f, err := FindProcess(p.dir, Pattern{Command: regexp.MustCompile("gunicorn"), User: &user})
	must(t, err)
	put := func(pid, parent int, start uint64, session int, forked bool) {
		p.put(fake{pid: pid, parent: parent, start: start, session: session, forked: forked, args: "gunicorn", user: testUser})
	}
	put(50, 1, 100, 50, false)
	put(51, 50, 200, 50, true)
	finds(t, f, 50, "")
	put(60, 1, 300, 60, false) // another server comes
	finds(t, f, 50, "")        // but this one was found
	p.remove(60)

	p.remove(50) // killed: the worker has not noticed yet
	put(51, 1, 200, 50, true)
	finds(t, f, 0, orphans)
	put(70, 1, 400, 70, false) // the next master
	finds(t, f, 70, "")
	p.remove(51)

	put(71, 70, 500, 70, true) // a new program: it was forked …
	finds(t, f, 70, "")
	put(71, 70, 500, 70, false) // … and runs
	put(72, 71, 600, 70, true)
	finds(t, f, 70, "")
	p.remove(70)
	put(71, 1, 500, 70, false)
	finds(t, f, 71, "")

	put(73, 71, 700, 70, true) // a daemon: it was forked …
	finds(t, f, 71, "")
	put(73, 1, 700, 73, true) // … and has begun a session
	p.remove(71)
	p.remove(72)
	finds(t, f, 73, "")

	put(60, 1, 900, 60, false)
	finds(t, f, 73, "")
	put(73, 1, 800, 73, false) // another process of that id: who is the master now?
	finds(t, f, 0, "several processes match that have no matching parent")
}

func TestPatternsThatCannotBe(t *testing.T) {
	all, user := regexp.MustCompile("x"), 0
	for name, tc := range map[string]struct {
		p    Pattern
		want string
	}{
		"nothing":                         {Pattern{}, "no pattern of the command line"},
		"a command line only":             {Pattern{Command: all}, "a command line can be forged: want a user or a control group, too"},
		"the root of control groups":      {Pattern{Command: all, Cgroup: "//"}, `control group "//": want a path such as /system.slice/shop.service`},
		"a control group without a slash": {Pattern{Command: all, Cgroup: "a", User: &user}, `control group "a": want a path such as /system.slice/shop.service`},
	} {
		if _, err := FindProcess("", tc.p); err == nil || err.Error() != tc.want {
			t.Errorf("%s: %v, want %s", name, err, tc.want)
		}
	}
}

func TestTheLogHasTheDetails(t *testing.T) {
	err := noMaster("no process matches", "user %d", 7)
	for want, got := range map[string]string{
		"no process matches: user 7": slog.AnyValue(err).Resolve().String(),
		"it is not running":          slog.AnyValue(noMaster("it is not running", "")).Resolve().String(),
	} {
		if got != want {
			t.Errorf("logged as %q, want %q", got, want)
		}
	}
}

// pidFileFinder returns a finder in a made-up /proc whose machine was started an hour ago.
func pidFileFinder(p fakeProc, name string, now time.Time) *byPIDFile {
	f := FindPIDFile(p.dir, name).(*byPIDFile)
	f.boot = func() (time.Time, error) { return now.Add(-time.Hour), nil }
	return f
}

// ticks returns when a process was started, so long after the machine.
func ticks(d time.Duration) uint64 { return uint64(d / (10 * time.Millisecond)) }

func TestWhatAPIDFileMayHave(t *testing.T) {
	const none = "the pidfile has no process id"
	for name, tc := range map[string]struct {
		content string
		pid     int
		reason  string
	}{
		"a process id":              {"50", 50, ""},
		"and a line's end":          {"50\n", 50, ""},
		"and blanks":                {" \t50 \r\n", 50, ""},
		"and zeros":                 {"0050", 50, ""},
		"nothing":                   {"", 0, none},
		"a line's end only":         {"\n", 0, none},
		"a word":                    {"gunicorn", 0, none},
		"two of them":               {"50\n51\n", 0, none},
		"a negative one":            {"-50", 0, none},
		"zero":                      {"0", 0, none},
		"a number too large":        {"99999999999", 0, none},
		"zero bytes":                {"50\x00", 0, none},
		"more than is read":         {"50" + strings.Repeat(" ", 64), 0, none},
		"our own process id":        {fmt.Sprint(os.Getpid()), 0, "the process id is the exporter's own"},
		"that of a container":       {"1", 1, ""},
		"that of a kernel's thread": {"2", 0, "the process id is that of a thread of the kernel"},
		"one that is not there":     {"77", 0, "the process that the pidfile names is not there"},
		"one that has just ended":   {"60", 0, "the process that the pidfile names is not there"},
	} {
		t.Run(name, func(t *testing.T) {
			p, file := newFakeProc(t), filepath.Join(t.TempDir(), "pid")
			p.put(fake{pid: 50, start: 100, user: testUser})
			p.put(fake{pid: 60, start: 100, user: testUser, state: "Z"})
			p.put(fake{pid: 2, args: kernelThread})
			must(t, os.WriteFile(file, []byte(tc.content), 0o600))
			finds(t, pidFileFinder(p, file, time.Now()), tc.pid, tc.reason)
		})
	}
}

func TestAPIDFileOfAnotherProcess(t *testing.T) {
	const younger = "the process that the pidfile names is younger than the file"
	for name, tc := range map[string]struct {
		age    time.Duration // of the process, when the file was written
		reason string
	}{
		"of one that was there":                   {time.Minute, ""},
		"of one that was started just before":     {0, ""},
		"whose clock is a little behind":          {-1900 * time.Millisecond, ""},
		"of one whose id a stranger has by now":   {-2100 * time.Millisecond, younger},
		"of one whose id a stranger has long had": {-time.Hour, younger},
	} {
		t.Run(name, func(t *testing.T) {
			p, file, now := newFakeProc(t), filepath.Join(t.TempDir(), "pid"), time.Now().Truncate(time.Second)
			p.put(fake{pid: 50, start: ticks(time.Hour), user: testUser}) // it is born now
			must(t, os.WriteFile(file, []byte("50"), 0o600))
			must(t, os.Chtimes(file, now, now.Add(tc.age)))
			pid := 50
			if tc.reason != "" {
				pid = 0
			}
			finds(t, pidFileFinder(p, file, now), pid, tc.reason)
		})
	}
}

func TestAPIDFileOverTime(t *testing.T) {
	p, file := newFakeProc(t), filepath.Join(t.TempDir(), "pid")
	write := func(suffix, pid string) { must(t, os.WriteFile(file+suffix, []byte(pid), 0o600)) }
	f := pidFileFinder(p, file, time.Now())
	finds(t, f, 0, "there is no pidfile")
	p.put(fake{pid: 50, start: 100})
	write("", "50")
	finds(t, f, 50, "")
	past := time.Now().Add(-2 * time.Hour)
	must(t, os.Chtimes(file, past, past)) // as a clock that is set would have it
	finds(t, f, 50, "")
	p.put(fake{pid: 50, start: 101})
	finds(t, f, 0, "the process that the pidfile names is younger than the file")

	p.put(fake{pid: 60, start: 200}) // as gunicorn does it
	write("", "50")
	write(".2", "60")
	finds(t, f, 50, "")
	p.remove(50)
	finds(t, f, 60, "")
	must(t, os.Remove(file))
	finds(t, f, 60, "")
	must(t, os.Rename(file+".2", file))
	finds(t, f, 60, "")

	must(t, os.Rename(file, file+".oldbin")) // and unicorn
	finds(t, f, 60, "")
	p.put(fake{pid: 70, start: 300})
	write("", "70")
	finds(t, f, 70, "")
}

func TestFilesThatAreNoPIDFile(t *testing.T) {
	p, dir := newFakeProc(t), t.TempDir()
	p.put(fake{pid: 50, start: 100})
	must(t, os.WriteFile(filepath.Join(dir, "real"), []byte("50"), 0o600))
	must(t, os.Symlink("real", filepath.Join(dir, "link")))
	must(t, os.Symlink("/dev/zero", filepath.Join(dir, "zero")))
	must(t, unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600))
	for name, tc := range map[string]struct {
		pid    int
		reason string
	}{
		"link": {50, ""},
		"zero": {0, "the pidfile is no regular file"},
		"fifo": {0, "the pidfile is no regular file"},
		".":    {0, "the pidfile is no regular file"},
		"none": {0, "there is no pidfile"},
	} {
		t.Run(name, func(t *testing.T) {
			finds(t, pidFileFinder(p, filepath.Join(dir, name), time.Now()), tc.pid, tc.reason)
		})
	}
}

func TestThePIDFileOfSomebodyElse(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("want root, to give files away")
	}
	for name, tc := range map[string]struct {
		owner, user int
		pid         int
		reason      string
	}{
		"root's":              {0, testUser, 50, ""},
		"the server's own":    {testUser, testUser, 50, ""},
		"somebody else's":     {7, testUser, 0, "the pidfile belongs to somebody else"},
		"a user's for root's": {testUser, 0, 0, "the pidfile belongs to somebody else"},
	} {
		t.Run(name, func(t *testing.T) {
			p, file := newFakeProc(t), filepath.Join(t.TempDir(), "pid")
			p.put(fake{pid: 50, start: 100, user: tc.user})
			must(t, os.WriteFile(file, []byte("50"), 0o600))
			must(t, os.Chown(file, tc.owner, -1))
			finds(t, pidFileFinder(p, file, time.Now()), tc.pid, tc.reason)
		})
	}
}

func FuzzParsePID(f *testing.F) {
	for _, seed := range []string{"1", "50\n", "-1", "", "0", "1 2", "\x00", "4294967297", strings.Repeat("1", 100)} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		pid, err := parsePID(b)
		if (err == nil) != (pid > 0) {
			t.Fatalf("parsePID(%q) = %d, %v", b, pid, err)
		}
		if secret := strings.Trim(string(b), "0123456789"); err != nil && len(secret) > 12 && strings.Contains(err.Error(), string(b)) {
			t.Fatalf("the error shows what the file has: %v", err)
		}
	})
}
