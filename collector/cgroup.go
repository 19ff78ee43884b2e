package collector

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
)

// Cgroup exposes the control group of a server: what it may have, and what happened when
// it wanted more. A worker that was killed for memory could not tell of it, and one that
// is too slow is often only held back.
type Cgroup struct {
	finder groupFinder

	kills, memory, limit, throttled, feature Descriptor
}

// CgroupOptions say which control group is watched.
type CgroupOptions struct {
	Mounted string // directory at or under which control groups are mounted
	// Process returns the process whose group is watched; 0: it is not there for now. Nil:
	// that of this process.
	Process func() int
}

// NewCgroup returns the collector of a control group.
func NewCgroup(o CgroupOptions) *Cgroup { return newCgroup(os.DirFS("/"), o) }

func newCgroup(files fs.FS, o CgroupOptions) *Cgroup {
	return &Cgroup{
		finder:    groupFinder{files: files, mounted: path.Clean(o.Mounted), process: o.Process},
		kills:     Describe("prefork_cgroup_oom_kills_total"),
		memory:    Describe("prefork_cgroup_memory_bytes"),
		limit:     Describe("prefork_cgroup_memory_limit_bytes"),
		throttled: Describe("prefork_cgroup_cpu_throttled_seconds_total"),
		feature:   Describe("prefork_feature_available"),
	}
}

// Describe implements [Collector].
func (c *Cgroup) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []Descriptor{c.kills, c.memory, c.limit, c.throttled, c.feature} {
		ch <- d.Desc
	}
}

// Update implements [Collector]. The group is looked up each time, for a process may be
// moved. What cannot be read is left out, and a feature says why: that is no failure.
func (c *Cgroup) Update(_ context.Context, out *Output) error {
	c.tell(out, "cgroup_memory", c.addMemory(out))
	c.tell(out, "cgroup_cpu", c.addCPU(out))
	return nil
}

func (c *Cgroup) tell(out *Output, feature string, err error) {
	reason := ""
	if err != nil {
		reason = err.Error()
	}
	out.Add(gauge(c.feature, boolean(err == nil), feature, reason))
}

// addMemory adds what can be read, and returns the first error.
func (c *Cgroup) addMemory(out *Output) error {
	g, err := c.finder.find("memory")
	if err != nil {
		return err
	}
	names := g.version.memoryFiles()
	used, usedErr := g.number(names.usage)
	if usedErr == nil {
		out.Add(gauge(c.memory, float64(used)))
	}
	limit, limited, limitErr := g.limit(names.limit)
	if limited {
		out.Add(gauge(c.limit, float64(limit)))
	}
	kills, killsErr := g.count(names.kills, "oom_kill")
	if killsErr == nil {
		out.Add(counter(c.kills, float64(kills)))
	}
	return firstOf(usedErr, limitErr, killsErr)
}

func (c *Cgroup) addCPU(out *Output) error {
	g, err := c.finder.find("cpu")
	if err != nil {
		return err
	}
	key, perSecond := g.version.throttled()
	n, err := g.count("cpu.stat", key)
	if err == nil {
		out.Add(counter(c.throttled, float64(n)/perSecond))
	}
	return err
}

// OOMKills counts the processes of the group that the kernel has killed for want of memory.
func (c *Cgroup) OOMKills() (n int64, ok bool) {
	g, err := c.finder.find("memory")
	if err != nil {
		return 0, false
	}
	kills, err := g.count(g.version.memoryFiles().kills, "oom_kill")
	return int64(kills), err == nil
}

func firstOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// cgroupVersion is the version of a hierarchy: 1 or 2.
type cgroupVersion int

// memoryFiles are the names of files. The file kills has a line oom_kill in both versions.
type memoryFiles struct{ usage, limit, kills string }

func (v cgroupVersion) memoryFiles() memoryFiles {
	if v == 1 {
		return memoryFiles{"memory.usage_in_bytes", "memory.limit_in_bytes", "memory.oom_control"}
	}
	return memoryFiles{"memory.current", "memory.max", "memory.events"}
}

// throttled returns the line of cpu.stat, and its unit.
func (v cgroupVersion) throttled() (key string, perSecond float64) {
	if v == 1 {
		return "throttled_time", 1e9
	}
	return "throttled_usec", 1e6
}

// group is a control group in one hierarchy. The texts of its errors are few, since they
// become values of a label: they have no path.
type group struct {
	files   fs.FS
	dir     string
	version cgroupVersion
}

// read returns what a file has. The root has none of those that we read, and without its
// controller no group has.
func (g group) read(name string) (string, error) {
	b, err := fs.ReadFile(g.files, path.Join(g.dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("the control group has no %s: it is the root, or lacks the controller", name)
	}
	if err != nil {
		return "", errors.New(withNumber(name+" of the control group cannot be read", err))
	}
	return strings.TrimSpace(string(b)), nil
}

func (g group) number(name string) (uint64, error) {
	text, err := g.read(name)
	if err != nil {
		return 0, err
	}
	return parseNumber(name, text)
}

func parseNumber(name, text string) (uint64, error) {
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s of the control group has no number", name)
	}
	return n, nil
}

// unlimited is less than what version 1 has where there is no limit, which is as many
// whole pages as fit in 63 bits, and more than there is memory.
const unlimited = 1 << 62

func (g group) limit(name string) (n uint64, limited bool, err error) {
	text, err := g.read(name)
	if err != nil || text == "max" {
		return 0, false, err
	}
	n, err = parseNumber(name, text)
	return n, err == nil && n < unlimited, err
}

// count returns the number in the line of a file that begins with key.
func (g group) count(name, key string) (uint64, error) {
	text, err := g.read(name)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(line, key+" "); ok {
			return parseNumber(name, strings.TrimSpace(value))
		}
	}
	return 0, fmt.Errorf("%s of the control group has no %s", name, key)
}
