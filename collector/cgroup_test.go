package collector

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
)

// fixtureCgroup watches the group of this process in a tree of testdata.
func fixtureCgroup(name string) *Cgroup { return fixtureCgroupOf(name, CgroupOptions{}) }

func fixtureCgroupOf(name string, o CgroupOptions) *Cgroup {
	if o.Mounted == "" {
		o.Mounted = "/sys/fs/cgroup"
	}
	return newCgroup(os.DirFS(filepath.Join("testdata", "cgroup", name)), o)
}

func TestAControlGroupIsExposed(t *testing.T) {
	for _, name := range []string{"v2", "v1", "hybrid"} {
		t.Run(name, func(t *testing.T) { golden(t, "cgroup_"+name+".txt", collect(t, fixtureCgroup(name), "")) })
	}
}

// values returns the samples of a collector, without what the families begin with.
func values(t *testing.T, c Collector) string {
	t.Helper()
	var b strings.Builder
	for line := range strings.Lines(collect(t, c, "")) {
		if !strings.HasPrefix(line, "#") {
			b.WriteString(strings.TrimPrefix(line, "prefork_"))
		}
	}
	return b.String()
}

func TestWhatIsNotKnownOfAControlGroupIsAbsent(t *testing.T) {
	const (
		memoryKnown   = "feature_available{feature=\"cgroup_memory\",reason=\"\"} 1\n"
		cpuKnown      = "feature_available{feature=\"cgroup_cpu\",reason=\"\"} 1\n"
		memoryUnknown = "feature_available{feature=\"cgroup_memory\",reason=\""
		cpuUnknown    = "feature_available{feature=\"cgroup_cpu\",reason=\""
	)
	for name, tc := range map[string]struct {
		fixture string
		options CgroupOptions
		want    string
	}{
		"a container without limits": {
			"v2_unlimited", CgroupOptions{Process: func() int { return 7 }},
			"cgroup_cpu_throttled_seconds_total 0\ncgroup_memory_bytes 4096\ncgroup_oom_kills_total 0\n" + cpuKnown + memoryKnown,
		},
		"the group of another container": {
			"v2_unlimited", CgroupOptions{},
			cpuUnknown + "the control group is not in what is mounted at --path.cgroupfs\"} 0\n" +
				memoryUnknown + "the control group is not in what is mounted at --path.cgroupfs\"} 0\n",
		},
		"a process that is not there": {
			"v2_unlimited", CgroupOptions{Process: func() int { return 8 }},
			cpuUnknown + "the control group of the process cannot be read: no such file or directory\"} 0\n" +
				memoryUnknown + "the control group of the process cannot be read: no such file or directory\"} 0\n",
		},
		"a server that is not there": {
			"v2_unlimited", CgroupOptions{Process: func() int { return 0 }},
			cpuUnknown + "the server is not there\"} 0\n" + memoryUnknown + "the server is not there\"} 0\n",
		},
		"a directory where nothing is mounted": {
			"v2", CgroupOptions{Mounted: "/sys/fs/cgrou"},
			cpuUnknown + "no control groups for cpu are mounted at --path.cgroupfs\"} 0\n" +
				memoryUnknown + "no control groups for memory are mounted at --path.cgroupfs\"} 0\n",
		},
		"the root": {
			"root", CgroupOptions{},
			cpuUnknown + "cpu.stat of the control group has no throttled_usec\"} 0\n" +
				memoryUnknown + "the control group has no memory.current: it is the root, or lacks the controller\"} 0\n",
		},
		"no control groups": {
			"none", CgroupOptions{},
			cpuUnknown + "the process is in no control group for cpu\"} 0\n" +
				memoryUnknown + "the process is in no control group for memory\"} 0\n",
		},
		"garbage": {
			"garbage", CgroupOptions{},
			cpuUnknown + "cpu.stat of the control group has no number\"} 0\n" +
				memoryUnknown + "memory.current of the control group has no number\"} 0\n",
		},
		"a kernel that does not count its kills": {
			"v1_old", CgroupOptions{},
			"cgroup_memory_bytes 1.048576e+06\ncgroup_memory_limit_bytes 2.097152e+06\n" +
				cpuUnknown + "the process is in no control group for cpu\"} 0\n" +
				memoryUnknown + "memory.oom_control of the control group has no oom_kill\"} 0\n",
		},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, values(t, fixtureCgroupOf(tc.fixture, tc.options))); diff != "" {
				t.Errorf("exposed (-want +got):\n%s", diff)
			}
		})
	}
}

func TestWhereAControlGroupIs(t *testing.T) {
	const (
		v2       = "32 31 0:29 / /sys/fs/cgroup rw shared:9 - cgroup2 cgroup2 rw\n"
		bound    = "32 31 0:29 /docker/a /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
		outer    = "32 31 0:29 /.. /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
		cpuset   = "33 31 0:30 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n"
		cpu      = "33 31 0:30 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpuacct,cpu\n"
		blank    = `33 31 0:30 / /sys/fs/cgroup/a\040b rw - cgroup cgroup rw,cpu` + "\n"
		host     = "34 31 0:29 / /host/cgroup rw - cgroup2 cgroup2 rw\n"
		docker   = "32 31 0:29 /docker /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
		inner    = "34 32 0:29 /docker/app /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
		odd      = `32 31 0:29 /a\040b /sys/fs/cgroup rw - cgroup2 cgroup2 rw` + "\n"
		notThere = "the control group is not in what is mounted at --path.cgroupfs"
		notMount = "no control groups for cpu are mounted at --path.cgroupfs"
	)
	for name, tc := range map[string]struct {
		groups, mounts, want string
	}{
		"under the root of the mount":                        {"0::/app\n", v2, "sys/fs/cgroup/app"},
		"the root of its namespace":                          {"0::/\n", v2, "sys/fs/cgroup"},
		"the part that is mounted":                           {"0::/docker/a\n", bound, "sys/fs/cgroup"},
		"below the part that is mounted":                     {"0::/docker/a/app\n", bound, "sys/fs/cgroup/app"},
		"beside the part that is mounted":                    {"0::/docker/ab\n", bound, notThere},
		"above the part that is mounted":                     {"0::/docker\n", bound, notThere},
		"outside of our namespace":                           {"0::/../app\n", v2, notThere},
		"outside of our namespace, in a wider mount":         {"0::/../app\n", outer, "sys/fs/cgroup/app"},
		"our namespace's root, whose name in it nobody says": {"0::/\n", outer, notThere},
		"farther out than what is mounted":                   {"0::/../../app\n", outer, notThere},
		"a directory that is gone":                           {"0::/gone (deleted)\n", v2, notThere},
		"version 1 before version 2":                         {"0::/app\n2:cpu,cpuacct:/one\n", v2 + cpu, "sys/fs/cgroup/cpu/one"},
		"version 1 that is not mounted":                      {"2:cpu,cpuacct:/one\n0::/app\n", v2, notMount},
		"version 2 that is not mounted":                      {"0::/app\n", cpu, notMount},
		"a controller whose name begins alike":               {"2:cpuset:/\n0::/app\n", v2 + cpuset, "sys/fs/cgroup/app"},
		"a colon in the path":                                {"0::/a:b\n", v2, "sys/fs/cgroup/a:b"},
		"a blank in the mount point":                         {"2:cpu:/\n", blank, "sys/fs/cgroup/a b"},
		"a blank in the path":                                {"0::/a b/app\n", odd, "sys/fs/cgroup/app"},
		"a mount elsewhere":                                  {"0::/app\n", host, notMount},
		"a mount that a later one hides":                     {"0::/docker/app\n", docker + inner, "sys/fs/cgroup"},
		"an earlier mount, where a later one lacks it":       {"0::/app\n", v2 + bound, "sys/fs/cgroup/app"},
		"a path that is none":                                {"0::app\n", v2, "the process is in no control group for cpu"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := &fstest.MapFile{Mode: fs.ModeDir}
			files := fstest.MapFS{
				"proc/self/cgroup": {Data: []byte(tc.groups)}, "proc/self/mountinfo": {Data: []byte(tc.mounts)},
				"sys/fs/cgroup/app": dir, "sys/fs/cgroup/a:b": dir, "sys/fs/cgroup/a b": dir, "host/cgroup/app": dir, "sys/fs/app": dir,
				"sys/fs/cgroup/cpu/one": dir, "sys/fs/cgroup/cpuset": dir,
			}
			g, err := groupFinder{files: files, mounted: "/sys/fs/cgroup"}.find("cpu")
			got := g.dir
			if err != nil {
				got = err.Error()
			}
			if got != tc.want {
				t.Errorf("%q, want %q", got, tc.want)
			}
		})
	}
}

// denying is a file system one file of which may not be read.
type denying struct {
	fs.FS
	name string
}

func (d denying) Open(name string) (fs.File, error) {
	if name == d.name {
		return nil, &fs.PathError{Op: "open", Path: name, Err: syscall.EACCES}
	}
	return d.FS.Open(name)
}

func TestWhatMayNotBeReadIsAbsentAlone(t *testing.T) {
	const app = "sys/fs/cgroup/system.slice/app.service/"
	for file, tc := range map[string]struct{ absent, reason string }{
		app + "memory.current": {"prefork_cgroup_memory_bytes", "memory.current of the control group cannot be read: permission denied"},
		app + "memory.max":     {"prefork_cgroup_memory_limit_bytes", "memory.max of the control group cannot be read: permission denied"},
		app + "memory.events":  {"prefork_cgroup_oom_kills_total", "memory.events of the control group cannot be read: permission denied"},
		app + "cpu.stat":       {"prefork_cgroup_cpu_throttled_seconds_total", "cpu.stat of the control group cannot be read: permission denied"},
		"proc/self/mountinfo":  {"prefork_cgroup_", "the mounts cannot be read: permission denied"},
	} {
		c := newCgroup(denying{os.DirFS("testdata/cgroup/v2"), file}, CgroupOptions{Mounted: "/sys/fs/cgroup/"})
		got := collect(t, c, "")
		if strings.Contains(got, "\n"+tc.absent) || !strings.Contains(got, `reason="`+tc.reason+`"} 0`) {
			t.Errorf("without %s:\n%s", file, got)
		}
		if left := strings.Count(got, "\nprefork_cgroup_"); left != 3 && tc.absent != "prefork_cgroup_" {
			t.Errorf("without %s %d families are left, want 3", file, left)
		}
	}
}
