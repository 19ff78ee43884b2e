package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// period is the kernel's default: a limit of 100m is 10 ms in each.
const period = 100 * time.Millisecond

// parseCPULimit reads a limit as Kubernetes writes it, 100m or 0.5, into thousandths of a processor.
func parseCPULimit(s string) (int, error) {
	number, scale := s, 1000.0
	if m, ok := strings.CutSuffix(s, "m"); ok {
		number, scale = m, 1
	}
	v, err := strconv.ParseFloat(number, 64)
	if err != nil {
		return 0, fmt.Errorf("limit %q: want processors, such as 100m or 0.5", s)
	}
	milli := int(math.Round(v * scale))
	if milli < 10 || milli > 1_000_000 {
		return 0, fmt.Errorf("limit %q: want at least 10m, the least that the kernel takes", s)
	}
	return milli, nil
}

// cpuGroup is a control group with a CPU limit, made by makeCPUGroup.
type cpuGroup struct {
	path    string
	version int
}

// makeCPUGroup makes a group where this process may: below its own group or one above it.
func makeCPUGroup(milli int) (*cpuGroup, error) {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("find control groups: %w", err)
	}
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil, fmt.Errorf("find control groups: %w", err)
	}
	errs := []error{errors.New("no control group that can limit CPU is writable")}
	for _, parent := range cpuGroupParents(string(mounts), string(own)) {
		g := &cpuGroup{filepath.Join(parent.path, fmt.Sprintf("prefork-bench-%d", os.Getpid())), parent.version}
		if err := g.make(parent.path, milli); err != nil {
			errs = append(errs, err)
			continue
		}
		return g, nil
	}
	return nil, errors.Join(errs...)
}

// cpuGroupParents lists the directories in which a group with a limit might be made, best first: with version
// 2 the own group and those above it, with version 1 the own group of the cpu controller.
func cpuGroupParents(mountinfo, cgroup string) []cpuGroup {
	var parents []cpuGroup
	v2, v1 := mountedGroups(mountinfo)
	for line := range strings.Lines(cgroup) {
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(fields) != 3 {
			continue
		}
		controllers, path := strings.Split(fields[1], ","), fields[2]
		switch {
		case fields[1] == "" && v2 != "":
			for at := path; ; at = filepath.Dir(at) {
				parents = append(parents, cpuGroup{filepath.Join(v2, at), 2})
				if at == "/" || at == "." {
					break
				}
			}
		case slices.Contains(controllers, "cpu") && v1 != "":
			parents = append(parents, cpuGroup{filepath.Join(v1, path), 1})
		}
	}
	slices.SortStableFunc(parents, func(a, b cpuGroup) int { return b.version - a.version })
	return parents
}

// mountedGroups finds the mount points of version 2 and of version 1's cpu controller; either may be "".
func mountedGroups(mountinfo string) (v2, v1 string) {
	for line := range strings.Lines(mountinfo) {
		place, kind, ok := strings.Cut(strings.TrimSpace(line), " - ")
		fields, source := strings.Fields(place), strings.Fields(kind)
		if !ok || len(fields) < 5 || len(source) < 3 {
			continue
		}
		switch {
		case source[0] == "cgroup2":
			v2 = fields[4]
		case source[0] == "cgroup" && slices.Contains(strings.Split(source[2], ","), "cpu"):
			v1 = fields[4]
		}
	}
	return v2, v1
}

// make makes the group. It changes nothing outside: where version 2 does not hand the controller down
// already, the group is of no use.
func (g *cpuGroup) make(parent string, milli int) error {
	quota := strconv.Itoa(int(period.Microseconds()) * milli / 1000)
	length := strconv.FormatInt(period.Microseconds(), 10)
	settings := [][2]string{{"cpu.cfs_period_us", length}, {"cpu.cfs_quota_us", quota}}
	if g.version == 2 {
		given, err := os.ReadFile(filepath.Join(parent, "cgroup.subtree_control"))
		if err != nil {
			return fmt.Errorf("limit CPU: %w", err)
		}
		if !slices.Contains(strings.Fields(string(given)), "cpu") {
			return fmt.Errorf("limit CPU: %s does not hand down the cpu controller", parent)
		}
		settings = [][2]string{{"cpu.max", quota + " " + length}}
	}
	if err := os.Mkdir(g.path, 0o755); err != nil {
		return fmt.Errorf("limit CPU: %w", err)
	}
	for _, s := range settings {
		if err := os.WriteFile(filepath.Join(g.path, s[0]), []byte(s[1]), 0); err != nil {
			return errors.Join(fmt.Errorf("limit CPU: %w", err), os.Remove(g.path))
		}
	}
	return nil
}

// wrap returns what to put before a command so that all of it runs in the group, its start included.
func (g *cpuGroup) wrap() []string {
	return []string{"/bin/sh", "-c", `echo $$ >"$0" && exec "$@"`, filepath.Join(g.path, "cgroup.procs")}
}

// throttled returns in how many periods the group had to wait so far.
func (g *cpuGroup) throttled() (int, error) {
	b, err := os.ReadFile(filepath.Join(g.path, "cpu.stat"))
	if err != nil {
		return 0, fmt.Errorf("read the state of the CPU limit: %w", err)
	}
	return parseThrottled(string(b))
}

func parseThrottled(stat string) (int, error) {
	for line := range strings.Lines(stat) {
		if name, value, _ := strings.Cut(strings.TrimSpace(line), " "); name == "nr_throttled" {
			return strconv.Atoi(value)
		}
	}
	return 0, errors.New("read the state of the CPU limit: no nr_throttled")
}

// remove deletes the group. Its last process may still be on its way out.
func (g *cpuGroup) remove() error {
	var err error
	for range 100 {
		if err = os.Remove(g.path); !errors.Is(err, syscall.EBUSY) {
			return err
		}
		time.Sleep(10 * time.Millisecond)
	}
	return err
}

const (
	limitedScrapes  = 100
	limitedInterval = 500 * time.Millisecond
	hopeless        = 10 * time.Second // so late, it does not keep up, and more would only show how long we tried
)

// limited measures scrapes of D2 and D3 under a CPU limit, where a burst of work costs whole periods.
func (b *bench) limited(ctx context.Context) error {
	if b.options.cpuLimit == "" {
		return nil
	}
	for _, name := range []string{"D2", "D3"} {
		dirs := b.dirs[name]
		if len(dirs) == 0 {
			continue
		}
		b.say("%s: scrapes under a CPU limit of %s", name, b.options.cpuLimit)
		if err := b.limit(ctx, name, dirs[0]); err != nil {
			return fmt.Errorf("%s: CPU limit: %w", name, err)
		}
	}
	return nil
}

func (b *bench) limit(ctx context.Context, name string, dir directory) (err error) {
	milli, err := parseCPULimit(b.options.cpuLimit)
	if err != nil {
		return err
	}
	g, err := makeCPUGroup(milli)
	if err != nil {
		b.report.limited = append(b.report.limited, limitResult{dataset: name, impossible: err})
		return nil
	}
	defer func() { err = errors.Join(err, g.remove()) }()
	e, err := startExporter(ctx, b.binary, dir.path, b.ws.scratch, g.wrap()...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.close()) }()
	r := limitResult{dataset: name, files: dir.peer.files, version: g.version}
	if r.first, err = e.scrape(ctx, gzipped); err != nil {
		return err
	}
	before, err := g.throttled()
	if err != nil {
		return err
	}
	if r.walls, err = b.steadily(ctx, e, dir); err != nil {
		return err
	}
	after, err := g.throttled()
	r.throttled = after - before
	b.report.limited = append(b.report.limited, r)
	return err
}

// steadily scrapes at a fixed rate, with gzip as Prometheus asks for. Time runs from when a scrape was due,
// so that one that is held up by the one before it counts in full; it gives up when they pile up.
func (b *bench) steadily(ctx context.Context, e *exporter, dir directory) (walls []time.Duration, err error) {
	w, err := openWorkers(dir.path, b.options.changing)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	due := time.Now()
	for range limitedScrapes {
		due = due.Add(limitedInterval)
		w.advance()
		if err := waitUntil(ctx, due); err != nil {
			return nil, err
		}
		if _, err := e.scrape(ctx, gzipped); err != nil {
			return nil, err
		}
		walls = append(walls, time.Since(due))
		if walls[len(walls)-1] > hopeless {
			break
		}
	}
	return walls, nil
}

func waitUntil(ctx context.Context, due time.Time) error {
	select {
	case <-time.After(time.Until(due)):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
