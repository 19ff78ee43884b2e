package collector

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
)

// groupFinder finds the directory of a process's control group. The kernel says twice
// where that is: /proc/PID/cgroup has the group's path in its hierarchy, mountinfo which
// part of the hierarchy is mounted where. Both paths begin at the root of our control
// group namespace, and go up from there with "..".
type groupFinder struct {
	files   fs.FS      // the root of the file system
	mounted string     // mounts that are not at or under it do not count
	process func() int // 0: it is not there for now; nil: this one
}

// find returns the group that the controller has the process in.
func (f groupFinder) find(controller string) (group, error) {
	process := "self"
	if f.process != nil {
		pid := f.process()
		if pid == 0 {
			return group{}, errors.New("the server is not there")
		}
		process = strconv.Itoa(pid)
	}
	groups, err := f.read("proc/" + process + "/cgroup")
	if err != nil {
		return group{}, errors.New(withNumber("the control group of the process cannot be read", err))
	}
	in, version, ok := groupOf(groups, controller)
	if !ok {
		return group{}, fmt.Errorf("the process is in no control group for %s", controller)
	}
	mounts, err := f.read("proc/self/mountinfo")
	if err != nil {
		return group{}, errors.New(withNumber("the mounts cannot be read", err))
	}
	dir, err := f.directory(mounts, controller, in, version)
	return group{f.files, dir, version}, err
}

func (f groupFinder) read(name string) (string, error) {
	b, err := fs.ReadFile(f.files, name)
	return string(b), err
}

// groupOf returns the path of the controller's group: cgroups(7), /proc/PID/cgroup. A
// controller that is in a hierarchy of version 1 cannot be used in that of version 2.
func groupOf(groups, controller string) (in string, v cgroupVersion, ok bool) {
	for line := range strings.Lines(groups) {
		fields := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		switch {
		case len(fields) < 3 || !strings.HasPrefix(fields[2], "/"):
		case slices.Contains(strings.Split(fields[1], ","), controller):
			return fields[2], 1, true
		case fields[0] == "0" && fields[1] == "":
			in, v, ok = fields[2], 2, true
		}
	}
	return in, v, ok
}

// directory returns where the group is mounted, as a path in f.files. A later mount may
// hide an earlier one, so it comes first.
func (f groupFinder) directory(mountinfo, controller, in string, v cgroupVersion) (string, error) {
	var mounts []cgroupMount
	for line := range strings.Lines(mountinfo) {
		if m, ok := parseMount(line); ok && m.has(controller, v) && isUnder(f.mounted, m.point) {
			mounts = append(mounts, m)
		}
	}
	if len(mounts) == 0 {
		return "", fmt.Errorf("no control groups for %s are mounted at --path.cgroupfs", controller)
	}
	for _, m := range slices.Backward(mounts) {
		rest, shown := below(m.root, in)
		dir := strings.TrimPrefix(path.Join(m.point, rest), "/")
		if info, err := fs.Stat(f.files, dir); shown && err == nil && info.IsDir() {
			return dir, nil
		}
	}
	return "", errors.New("the control group is not in what is mounted at --path.cgroupfs")
}

// isUnder says whether a clean path is at or under a directory.
func isUnder(dir, name string) bool {
	return name == dir || strings.HasPrefix(name, strings.TrimSuffix(dir, "/")+"/")
}

// cgroupMount is a mount, of control groups if it has a version.
type cgroupMount struct {
	root, point string
	version     cgroupVersion
	controllers []string // of version 1, among other options
}

func (m cgroupMount) has(controller string, v cgroupVersion) bool {
	return m.version == v && (v == 2 || slices.Contains(m.controllers, controller))
}

// parseMount reads a line of proc_pid_mountinfo(5):
//
//	32 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory
func parseMount(line string) (m cgroupMount, ok bool) {
	mount, source, _ := strings.Cut(line, " - ")
	fields, of := strings.Fields(mount), strings.Fields(source)
	if len(fields) < 6 || len(of) < 3 {
		return m, false
	}
	m = cgroupMount{root: unescape(fields[3]), point: unescape(fields[4])}
	switch of[0] {
	case "cgroup":
		m.version, m.controllers = 1, strings.Split(of[2], ",")
	case "cgroup2":
		m.version = 2
	}
	return m, true
}

// unescape returns a path of mountinfo, which has blanks, line ends and backslashes in octal.
func unescape(name string) string {
	if !strings.Contains(name, `\`) {
		return name
	}
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(name)
}

// below returns the path from a mount's root to a group, if that is in it. A ".." that
// is left on either side leads out of it, or through directories whose names nobody tells.
func below(root, in string) (rest string, ok bool) {
	from, to := components(root), components(in)
	if len(from) > len(to) || !slices.Equal(from, to[:len(from)]) {
		return "", false
	}
	to = to[len(from):]
	return path.Join(to...), !slices.Contains(to, "..")
}

func components(name string) []string {
	return strings.FieldsFunc(name, func(r rune) bool { return r == '/' })
}
