package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// memoryGroup makes a control group of version 1 under our own, which root may do.
func memoryGroup(t *testing.T) string {
	t.Helper()
	groups, err := os.ReadFile("/proc/self/cgroup")
	must(t, err)
	_, own, ok := strings.Cut(string(groups), ":memory:")
	if !ok {
		t.Skip("needs control groups of version 1 for memory")
	}
	own, _, _ = strings.Cut(own, "\n")
	dir := filepath.Join("/sys/fs/cgroup/memory", own, fmt.Sprintf("prefork_e2e_%d", os.Getpid()))
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Skipf("needs a control group of its own, which root may make: %v", err)
	}
	t.Cleanup(func() {
		await(t, "the end of a control group", func() bool { return syscall.Rmdir(dir) == nil })
	})
	return dir
}

// The master alone is moved. Its sidecar stays in our group, and tells of the master's.
func TestTheControlGroupIsThatOfTheMaster(t *testing.T) {
	const limit = 1 << 30
	dir := memoryGroup(t)
	m := startMaster(t, 1)
	must(t, os.WriteFile(filepath.Join(dir, "memory.limit_in_bytes"), []byte(strconv.Itoa(limit)), 0))
	must(t, os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(m.cmd.Process.Pid)), 0))
	got := m.scrape(t).samples
	for s, want := range map[string]float64{
		series("prefork_cgroup_memory_limit_bytes"):                                   limit,
		series("prefork_cgroup_oom_kills_total"):                                      0,
		series("prefork_feature_available", "feature", "cgroup_memory", "reason", ""): 1,
		series("prefork_scrape_collector_success", "collector", "cgroup"):             1,
	} {
		if v, ok := got[s]; !ok || v != want {
			t.Errorf("%s is %v, %v; want %v", s, v, ok, want)
		}
	}
	if used, ok := got[series("prefork_cgroup_memory_bytes")]; !ok || used > limit {
		t.Errorf("the group has %v bytes, %v", used, ok)
	}
}
