package supervisor

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// ResidentMemory returns the bytes of memory that a process has.
func ResidentMemory(pid int) (int64, bool) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/statm")
	if err != nil {
		return 0, false
	}
	fields := bytes.Fields(b) // proc_pid_statm(5): size, resident, …, in pages
	if len(fields) < 2 {
		return 0, false
	}
	pages, err := strconv.ParseInt(string(fields[1]), 10, 64)
	return pages * int64(os.Getpagesize()), err == nil
}

// OOMKills returns a function that counts the processes of our control group that the
// kernel has killed for want of memory.
func OOMKills() func() (int64, bool) {
	groups, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return func() (int64, bool) { return 0, false }
	}
	path := memoryEvents(string(groups), "/sys/fs/cgroup")
	return func() (int64, bool) { return readOOMKills(path) }
}

// memoryEvents returns the file that counts them: of version 2 where that has one,
// else of version 1.
func memoryEvents(groups, root string) string {
	var path string
	for line := range strings.Lines(groups) {
		_, rest, _ := strings.Cut(strings.TrimSpace(line), ":")
		controllers, group, _ := strings.Cut(rest, ":")
		switch {
		case controllers == "" && exists(filepath.Join(root, group, "memory.events")):
			return filepath.Join(root, group, "memory.events")
		case strings.Contains(","+controllers+",", ",memory,"):
			path = filepath.Join(root, "memory", group, "memory.oom_control")
		}
	}
	return path
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// readOOMKills reads the line oom_kill.
func readOOMKills(path string) (int64, bool) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, false
	}
	for line := range strings.Lines(string(b)) {
		if count, ok := strings.CutPrefix(line, "oom_kill "); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(count), 10, 64)
			return n, err == nil
		}
	}
	return 0, false
}
