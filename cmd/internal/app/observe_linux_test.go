package app

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// master is a program that listens, and writes a pidfile, and nothing more.
type master struct {
	t       *testing.T
	dir     string // of metric files: its environment has it
	pidfile string
	address string // empty: it listens nowhere
	cmd     *exec.Cmd
}

func newMaster(t *testing.T) *master {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return &master{t: t, dir: t.TempDir(), pidfile: filepath.Join(t.TempDir(), "pid"), address: l.Addr().String()}
}

// start starts it, or starts it again.
func (m *master) start(env ...string) {
	m.t.Helper()
	python, err := exec.LookPath("/usr/bin/python3")
	switch {
	case err == nil:
	case os.Getenv("PREFORK_REQUIRE_PEERS") != "":
		m.t.Fatalf("want python3: %v", err)
	default:
		m.t.Skipf("want python3: %v", err)
	}
	host, port, err := net.SplitHostPort(m.address)
	if err != nil {
		m.t.Fatal(err)
	}
	m.cmd = exec.Command(python, "-c", `import os, signal, socket, sys
s = socket.socket()
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind((sys.argv[1], int(sys.argv[2])))
s.listen(7)
with open(sys.argv[3] + '.new', 'w') as f:
    f.write(str(os.getpid()))
os.rename(sys.argv[3] + '.new', sys.argv[3])
signal.pause()`, host, port, m.pidfile)
	m.cmd.Env = slices.Concat(env, []string{"PROMETHEUS_MULTIPROC_DIR=" + m.dir})
	m.cmd.Stderr = os.Stderr
	if err := m.cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(m.stop)
	eventually(m.t, "a pidfile", func() bool {
		text, err := os.ReadFile(m.pidfile)
		return err == nil && string(text) == strconv.Itoa(m.cmd.Process.Pid)
	})
}

func (m *master) stop() {
	if m.cmd != nil {
		_ = m.cmd.Process.Signal(syscall.SIGKILL)
		_ = m.cmd.Wait()
		m.cmd = nil
	}
}

// scrape returns the series and their values.
func scrape(t *testing.T, a *App) map[string]string {
	t.Helper()
	series := map[string]string{}
	for line := range strings.Lines(ask(t, newClient(), "GET", a.url("/metrics")).body) {
		if at := strings.LastIndexByte(line, ' '); at > 0 && line[0] != '#' {
			series[line[:at]] = strings.TrimSpace(line[at:])
		}
	}
	return series
}

// shows waits until series have values; an empty one: there is no such series.
func shows(t *testing.T, a *App, want map[string]string) {
	t.Helper()
	var got map[string]string
	defer func() {
		if t.Failed() {
			for name, value := range want {
				t.Logf("%s = %q, want %q", name, got[name], value)
			}
		}
	}()
	eventually(t, "the series", func() bool {
		all := scrape(t, a)
		got = map[string]string{}
		for name := range want {
			got[name] = all[name]
		}
		return cmp.Equal(got, want)
	})
}

// configOf returns a config file of targets.
func configOf(t *testing.T, targets ...string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "c.yml")
	writeFile(t, file, "targets: ["+strings.Join(targets, ", ")+"]\n")
	return file
}

func (m *master) target(app string) string {
	return fmt.Sprintf("{name: %s, labels: {app: %s}, master: {pidfile: %q}}", app, app, m.pidfile)
}

func TestTwoMastersAreTwoTargets(t *testing.T) {
	shop, blog := newMaster(t), newMaster(t)
	writeCounter(t, shop.dir, "jobs_total", 3)
	writeCounter(t, blog.dir, "jobs_total", 5)
	o := testOptions(t)
	o.Directories, o.StateDir = nil, t.TempDir()
	o.ConfigFile = configOf(t, shop.target("shop"), blog.target("blog"))
	a := startApp(t, o)
	queue := func(m *master, app string) string {
		return fmt.Sprintf(`prefork_listen_queue_limit{listener="tcp://%s",app=%q}`, m.address, app)
	}
	shows(t, a, map[string]string{
		"prefork_up": "0",
		`prefork_feature_available{feature="multiproc",reason="the master is not there"}`:               "0",
		`prefork_feature_available{feature="listen_queue",reason="the server is not there",app="shop"}`: "0",
		`prefork_scrape_collector_success{collector="listen"}`:                                          "1",
	})
	shop.start()
	shows(t, a, map[string]string{
		"prefork_up": "0", `jobs_total{app="shop"}`: "3", `jobs_total{app="blog"}`: "", queue(shop, "shop"): "7",
		`prefork_feature_available{feature="multiproc",reason=""}`: "1",
	})
	blog.start()
	both := map[string]string{
		"prefork_up": "1", `jobs_total{app="shop"}`: "3", `jobs_total{app="blog"}`: "5", queue(shop, "shop"): "7", queue(blog, "blog"): "7",
		queue(shop, "blog"): "", queue(blog, "shop"): "",
		`prefork_scrape_collector_success{collector="listen"}`: "1", `prefork_scrape_collector_success{collector="cgroup"}`: "1",
	}
	shows(t, a, both)

	shop.stop()
	shows(t, a, map[string]string{"prefork_up": "0", `jobs_total{app="shop"}`: "3", queue(shop, "shop"): ""})
	shop.start()
	shows(t, a, both)
}

func TestAMasterThatIsStartedAgainGoesOnWithItsTotals(t *testing.T) {
	m := newMaster(t)
	writeCounter(t, m.dir, "jobs_total", 3)
	o := testOptions(t)
	o.Directories, o.Master = nil, Master{PIDFile: m.pidfile}
	a := startApp(t, o)
	m.start()
	shows(t, a, map[string]string{"jobs_total": "3"})
	must(t, os.Rename(filepath.Join(m.dir, "counter_1.db"), filepath.Join(m.dir, "counter_2.db")))
	writeCounter(t, m.dir, "jobs_total", 4)
	shows(t, a, map[string]string{"jobs_total": "7"})
	must(t, os.Remove(filepath.Join(m.dir, "counter_2.db")))
	shows(t, a, map[string]string{"jobs_total": "7"})
	m.stop()
	shows(t, a, map[string]string{"jobs_total": "7", "prefork_up": "0"})
	m.start()
	shows(t, a, map[string]string{"jobs_total": "7", "prefork_up": "1"})
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestTheOrderInWhichADirectoryIsLookedFor(t *testing.T) {
	flag, ambient, home := t.TempDir(), t.TempDir(), t.TempDir()
	usual := filepath.Join(home, homeDirectory)
	must(t, os.Mkdir(usual, 0o700))
	for name, tc := range map[string]struct {
		change  func(o *Options, m *master)
		without bool // the master's environment names none
		want    func(m *master) string
	}{
		"the flag": {func(o *Options, _ *master) {
			o.Directories, o.AmbientDirectory, o.Home = []Directory{{Path: flag}}, ambient, home
		}, false, func(*master) string { return flag }},
		"then the environment": {func(o *Options, _ *master) { o.AmbientDirectory, o.Home = ambient, home }, false, func(*master) string { return ambient }},
		"then the master's":    {func(o *Options, _ *master) { o.Home = home }, false, func(m *master) string { return m.dir }},
		"then the home":        {func(o *Options, _ *master) { o.Home = home }, true, func(*master) string { return usual }},
		"then nothing":         {func(*Options, *master) {}, true, func(*master) string { return "" }},
		"for a target of the file, the home never": {func(o *Options, m *master) {
			o.Home, o.Master, o.ConfigFile = home, Master{}, configOf(t, m.target("shop"))
		}, true, func(*master) string { return "" }},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMaster(t)
			o := testOptions(t)
			o.Directories, o.Master = nil, Master{PIDFile: m.pidfile}
			tc.change(&o, m)
			a := startApp(t, o)
			if tc.without {
				m.dir = ""
			}
			m.start()
			eventually(t, "the master", a.mastersThere)
			eventually(t, "a search", func() bool {
				w := a.observed()[0]
				_, found := w.search.source()
				return !w.searches() || found || strings.Contains(w.search.reason(), "names no metric directory")
			})
			a.reloading.Lock()
			defer a.reloading.Unlock()
			got := ""
			for _, s := range a.sources() {
				got += s.Path
			}
			if want := tc.want(m); got != want {
				t.Errorf("merged: %q, want %q", got, want)
			}
		})
	}
}

func TestTargetsComeAndGoWithAReload(t *testing.T) {
	shop, blog := newMaster(t), newMaster(t)
	writeCounter(t, shop.dir, "jobs_total", 3)
	writeCounter(t, blog.dir, "jobs_total", 5)
	shop.start()
	blog.start()
	o := testOptions(t)
	o.Directories = nil
	o.ConfigFile = configOf(t, shop.target("shop"))
	a := startApp(t, o)
	shows(t, a, map[string]string{`jobs_total{app="shop"}`: "3", `jobs_total{app="blog"}`: ""})
	before := a.observed()[0]

	write := func(targets ...string) { writeFile(t, o.ConfigFile, "targets: ["+strings.Join(targets, ", ")+"]\n") }
	write(blog.target("blog"), shop.target("shop"))
	must(t, a.Reload())
	shows(t, a, map[string]string{
		`jobs_total{app="shop"}`: "3", `jobs_total{app="blog"}`: "5",
		fmt.Sprintf(`prefork_listen_queue_limit{listener="tcp://%s",app="blog"}`, blog.address): "7",
	})
	if !slices.Contains(a.observed(), before) {
		t.Error("a target that stays was begun anew")
	}
	write(blog.target("blog"))
	must(t, a.Reload())
	shows(t, a, map[string]string{
		`jobs_total{app="shop"}`: "", `jobs_total{app="blog"}`: "5",
		fmt.Sprintf(`prefork_listen_queue_limit{listener="tcp://%s",app="shop"}`, shop.address): "",
	})
	write("{master: {}}")
	if err := a.Reload(); err == nil {
		t.Error("a bad file is no error")
	}
	shows(t, a, map[string]string{`jobs_total{app="blog"}`: "5"})
}

func TestTheFirstMasterNeedsARestart(t *testing.T) {
	o := testOptions(t)
	o.ConfigFile = configOf(t)
	a := startApp(t, o)
	writeFile(t, o.ConfigFile, "targets: [{labels: {app: shop}, master: {pid: 7}}]")
	err := a.Reload()
	checkError(t, err, "reload: a master where no target had one: want a restart of the exporter")
	if got := len(a.observed()); got != 1 {
		t.Errorf("%d targets are observed, want that of the flags as before", got)
	}
}

func TestWhatIsObserved(t *testing.T) {
	const pid, labels = "master: {pid: 7}", "labels: {app: shop}"
	for name, tc := range map[string]struct {
		change  func(o *Options)
		targets []string
		want    []string // their places
		err     string
	}{
		"the flags' target alone":        {func(*Options) {}, nil, []string{"--multiproc.dir"}, ""},
		"that of the flags, by a master": {func(o *Options) { o.Directories, o.Master.PID = nil, 7 }, nil, []string{"--master.pid"}, ""},
		"that of the file, with a master": {
			func(o *Options) { o.Directories = nil }, []string{"{" + labels + ", " + pid + "}"}, []string{"targets[0]"}, "",
		},
		"none of the file without": {
			func(o *Options) { o.Directories = nil }, []string{"{" + labels + ", multiproc: {dirs: [/a]}}"}, []string{"the flags"}, "",
		},
		"both": {
			func(o *Options) { o.Directories, o.QueueAddresses = nil, []string{":8000"} },
			[]string{"{" + labels + ", listen: [':80']}"}, []string{"the flags", "targets[0]"}, "",
		},
		"both, with the same labels": {
			func(o *Options) { o.Directories, o.QueueAddresses = nil, []string{":8000"} },
			[]string{"{listen: [':80']}"}, nil, "c.yml:1: targets[0]: labels {}: those of the flags, too: want labels that differ",
		},
	} {
		t.Run(name, func(t *testing.T) {
			o := testOptions(t)
			tc.change(&o)
			c, err := parseConfig("c.yml", []byte("targets: ["+strings.Join(tc.targets, ", ")+"]\n"))
			must(t, err)
			all, err := o.targets(c)
			must(t, err)
			watched, err := o.observedTargets(all)
			checkError(t, err, tc.err)
			var got []string
			for _, w := range watched {
				got = append(got, w.place[strings.LastIndexByte(w.place, ':')+1:])
			}
			for i := range got {
				got[i] = strings.TrimSpace(got[i])
			}
			if tc.err == "" && !slices.Equal(got, tc.want) {
				t.Errorf("observed: %q, want %q", got, tc.want)
			}
		})
	}
}

func TestTheStateOfAWatcherHasAPlaceOfItsOwn(t *testing.T) {
	a := &App{o: Options{StateDir: "/state", Listen: []string{":1"}}}
	shop := target{name: "targets[0]", labels: map[string]string{"app": "shop"}, master: Master{PIDFile: "/a"}}
	other := func(change func(t *target)) target {
		t := shop
		change(&t)
		return t
	}
	for name, tc := range map[string]struct {
		t    target
		same bool
	}{
		"elsewhere in the file":  {other(func(t *target) { t.name, t.place = "targets[1]", "c.yml:9" }), true},
		"with another kind":      {other(func(t *target) { t.master.Kind, t.master.Timeout = "puma", 7 }), true},
		"with another directory": {other(func(t *target) { t.directories = []placed{{}} }), true},
		"with other labels":      {other(func(t *target) { t.labels = map[string]string{"app": "blog"} }), false},
		"with another pidfile":   {other(func(t *target) { t.master.PIDFile = "/b" }), false},
		"that is started beside": {other(func(t *target) { t.started = true }), false},
	} {
		if got := a.stateFile(tc.t) == a.stateFile(shop); got != tc.same {
			t.Errorf("a target %s has the same file: %t, want %t", name, got, tc.same)
		}
	}
	if at := a.stateFile(shop); filepath.Dir(at) != "/state" {
		t.Errorf("state in %s", at)
	}
	if at := (&App{}).stateFile(shop); at != "" {
		t.Errorf("state in %s, though nobody has named a directory", at)
	}
}
