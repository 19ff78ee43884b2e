package collector

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
)

// memoryGroup makes a control group under our own, so that nothing leaves the limits that
// hold for us. The test is skipped where that cannot be.
func memoryGroup(t *testing.T, limit int) string {
	t.Helper()
	own, err := NewCgroup(CgroupOptions{Mounted: "/sys/fs/cgroup"}).finder.find("memory")
	if err != nil {
		t.Skipf("needs control groups for memory: %v", err)
	}
	if own.version != 1 {
		t.Skip("needs control groups of version 1: in version 2 a group with processes cannot have others below it")
	}
	dir := filepath.Join("/", own.dir, fmt.Sprintf("prefork_test_%d", os.Getpid()))
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Skipf("needs a control group of its own, which root may make: %v", err)
	}
	t.Cleanup(func() {
		if err := os.Remove(dir); err != nil { // rmdir: its files go with it
			t.Error(err)
		}
	})
	writeGroup(t, dir, "memory.swappiness", 0) // or it would swap before it is killed
	writeGroup(t, dir, "memory.limit_in_bytes", limit)
	return dir
}

func writeGroup(t *testing.T, dir, file string, n int) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, file), []byte(strconv.Itoa(n)), 0); err != nil {
		t.Fatal(err)
	}
}

// glutton waits for a line, has a child that wants more memory than the group may have,
// prints how that ended, and waits for the end. Were there no limit, another one ends it.
const glutton = `read begin; (ulimit -v 1048576; echo 500 >/proc/self/oom_score_adj; exec tail /dev/zero); echo $?; read end`

func TestAKillForMemoryIsCounted(t *testing.T) {
	const limit = 16 << 20
	dir := memoryGroup(t, limit)
	cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", glutton)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Wait()
	})
	writeGroup(t, dir, "cgroup.procs", cmd.Process.Pid)
	c := NewCgroup(CgroupOptions{Mounted: "/sys/fs/cgroup", Process: func() int { return cmd.Process.Pid }})
	for _, want := range []struct{ name, value string }{
		{"prefork_cgroup_oom_kills_total", "0"}, {"prefork_cgroup_memory_limit_bytes", "1.6777216e+07"},
		{`prefork_feature_available{feature="cgroup_memory",reason=""}`, "1"},
	} {
		if got := valueOf(t, c, want.name); got != want.value {
			t.Errorf("before: %s %q, want %s", want.name, got, want.value)
		}
	}
	if _, err := io.WriteString(in, "begin\n"); err != nil {
		t.Fatal(err)
	}
	if status, err := bufio.NewReader(stdout).ReadString('\n'); status != "137\n" {
		t.Fatalf("the child ended with %q, %v; want 137, which is SIGKILL", status, err)
	}
	if got := valueOf(t, c, "prefork_cgroup_oom_kills_total"); got != "1" {
		t.Errorf("%q kills, want 1", got)
	}
	if used, err := strconv.ParseFloat(valueOf(t, c, "prefork_cgroup_memory_bytes"), 64); err != nil || used <= 0 || used > limit {
		t.Errorf("%v bytes, %v; want some, and no more than %d", used, err, limit)
	}
}
