package main

import (
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseMemory(t *testing.T) {
	for name, tc := range map[string]struct {
		in   string
		want memory
		ok   bool
	}{
		"as the kernel writes it":  {"Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n", memory{1 << 20, 2 << 20}, true},
		"a process without memory": {"Name:\tkthreadd\n", memory{}, false},
		"a number that is none":    {"VmHWM:\tmuch kB\nVmRSS:\t1 kB\n", memory{}, false},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := parseMemory(strings.NewReader(tc.in))
			if got != tc.want || (err == nil) != tc.ok {
				t.Errorf("parseMemory = %v, %v; want %v, ok %v", got, err, tc.want, tc.ok)
			}
		})
	}
}

func TestProcessorModel(t *testing.T) {
	for in, want := range map[string]string{
		"processor\t: 0\nmodel name\t: A: B\nmodel name\t: C\n": "A: B",
		"": "model unknown",
	} {
		if got := processorModel(in); got != want {
			t.Errorf("model of %q = %q, want %q", in, got, want)
		}
	}
}

func TestOwnProcess(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("reads /proc")
	}
	pid := os.Getpid()
	before, err := cpuTime(pid)
	if err != nil {
		t.Fatal(err)
	}
	for after := before; after == before; {
		if after, err = cpuTime(pid); err != nil {
			t.Fatal(err)
		}
	}
	if m, err := memoryOf(pid); err != nil || m.rss == 0 || m.peak < m.rss/2 {
		t.Errorf("memory = %v, %v", m, err)
	}
	if pss, err := proportionalMemory(pid); err != nil || pss == 0 {
		t.Errorf("proportional memory = %d, %v", pss, err)
	}
	if n, err := openFiles(pid); err != nil || n < 3 {
		t.Errorf("descriptors = %d, %v", n, err)
	}
}

func TestParseCPULimit(t *testing.T) {
	for in, want := range map[string]int{
		"100m": 100, "0.5": 500, "2": 2000, "": 0, "m": 0, "1m": 0, "-1": 0, "NaN": 0, "Inf": 0, "fast": 0,
	} {
		got, err := parseCPULimit(in)
		if got != want || (err == nil) != (want > 0) {
			t.Errorf("parseCPULimit(%q) = %d, %v; want %d", in, got, err, want)
		}
	}
}

func TestCPUGroupParents(t *testing.T) {
	const (
		v2mount = "30 1 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
		v1mount = "31 1 0:27 / /sys/fs/cgroup/cpu rw shared:4 - cgroup cgroup rw,cpu,cpuacct\n" +
			"32 1 0:28 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n"
	)
	for name, tc := range map[string]struct {
		mounts, own string
		want        []cpuGroup
	}{
		"version 2, upwards from the own group": {v2mount, "0::/user.slice/a.scope\n", []cpuGroup{
			{"/sys/fs/cgroup/user.slice/a.scope", 2}, {"/sys/fs/cgroup/user.slice", 2}, {"/sys/fs/cgroup", 2},
		}},
		"version 1, the cpu controller's group": {v1mount, "5:cpuset:/x\n4:cpu,cpuacct:/a\n",
			[]cpuGroup{{"/sys/fs/cgroup/cpu/a", 1}}},
		"both, version 2 first": {v1mount + "33 1 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n",
			"4:cpu:/\n0::/\n", []cpuGroup{{"/sys/fs/cgroup/unified", 2}, {"/sys/fs/cgroup/cpu", 1}}},
		"none":                   {"", "0::/\n", nil},
		"lines that are cut off": {"30 1 0:26 / - cgroup2\n", "0:\n", nil},
	} {
		t.Run(name, func(t *testing.T) {
			got := cpuGroupParents(tc.mounts, tc.own)
			if diff := cmp.Diff(tc.want, got, cmp.AllowUnexported(cpuGroup{})); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestParseThrottled(t *testing.T) {
	got, err := parseThrottled("usage_usec 5\nnr_periods 30\nnr_throttled 7\nthrottled_usec 9\n")
	if got != 7 || err != nil {
		t.Errorf("= %d, %v; want 7", got, err)
	}
	if _, err := parseThrottled("nr_periods 30\n"); err == nil {
		t.Error("no error for a file that does not say")
	}
}
