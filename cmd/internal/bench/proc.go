package main

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// memory is what a process has resident, in bytes. The peak comes from the kernel's high-water mark of the
// running program: ru_maxrss would count what the parent had when it started the child.
type memory struct{ rss, peak int64 }

func memoryOf(pid int) (memory, error) {
	f, err := os.Open(procPath(pid, "status"))
	if err != nil {
		return memory{}, fmt.Errorf("read memory use: %w", err)
	}
	defer f.Close()
	m, err := parseMemory(f)
	if err != nil {
		return memory{}, fmt.Errorf("read memory use: %w", err)
	}
	return m, nil
}

// parseMemory reads the VmRSS and VmHWM lines of a status file.
func parseMemory(r io.Reader) (memory, error) {
	var m memory
	if err := parseKiB(r, map[string]*int64{"VmRSS": &m.rss, "VmHWM": &m.peak}); err != nil {
		return memory{}, err
	}
	return m, nil
}

// parseKiB reads the lines of fields, in bytes. All have to be there.
func parseKiB(r io.Reader, fields map[string]*int64) error {
	missing := maps.Clone(fields)
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		name, rest, _ := strings.Cut(lines.Text(), ":")
		field := missing[name]
		if field == nil {
			continue
		}
		kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		*field = kib << 10
		delete(missing, name)
	}
	if err := lines.Err(); err != nil {
		return err
	}
	if len(missing) > 0 {
		return fmt.Errorf("no line %s: %w", strings.Join(slices.Sorted(maps.Keys(missing)), ", "), io.ErrUnexpectedEOF)
	}
	return nil
}

// proportionalMemory returns the bytes that a process has resident, those that it shares counted in part.
func proportionalMemory(pid int) (int64, error) {
	f, err := os.Open(procPath(pid, "smaps_rollup"))
	if err != nil {
		return 0, fmt.Errorf("read memory use: %w", err)
	}
	defer f.Close()
	var pss int64
	if err := parseKiB(f, map[string]*int64{"Pss": &pss}); err != nil {
		return 0, fmt.Errorf("read memory use: %w", err)
	}
	return pss, nil
}

// openFiles counts the descriptors of a process.
func openFiles(pid int) (int, error) {
	entries, err := os.ReadDir(procPath(pid, "fd"))
	if err != nil {
		return 0, fmt.Errorf("count descriptors: %w", err)
	}
	return len(entries), nil
}

func procPath(pid int, name string) string { return filepath.Join("/proc", strconv.Itoa(pid), name) }

// describeHost says where the figures come from.
func describeHost() []string {
	var u unix.Utsname
	kernel := runtime.GOOS
	if err := unix.Uname(&u); err == nil {
		kernel = unix.ByteSliceToString(u.Sysname[:]) + " " + unix.ByteSliceToString(u.Release[:])
	}
	info, _ := os.ReadFile("/proc/cpuinfo") // without it the model is unknown, which is no reason to stop
	return []string{
		"kernel: " + kernel + ", " + runtime.GOARCH,
		fmt.Sprintf("processors: %d, %s", runtime.NumCPU(), processorModel(string(info))),
		"Go: " + runtime.Version(),
	}
}

func processorModel(cpuinfo string) string {
	for line := range strings.Lines(cpuinfo) {
		if name, model, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(model)
		}
	}
	return "model unknown"
}
