package gunicorn

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/prefork-exporter/prefork_exporter/collector/internal/procfs"
)

// StartOf reads how a master was started. What may not be read is left out. A
// configuration file that has been deleted since cannot be seen.
func StartOf(proc procfs.FS, master int) (Start, error) {
	args, err := proc.Args(master)
	if err != nil {
		return Start{}, fmt.Errorf("read how gunicorn was started: %w", err)
	}
	s := Start{Args: args}
	variables, err := environ(proc, master)
	if err != nil {
		return s, nil
	}
	s.Environ = true
	s.CmdArgs, s.WebConcurrency = variables["GUNICORN_CMD_ARGS"], variables["WEB_CONCURRENCY"]
	s.XDGRuntimeDir, s.HomeDir = variables["XDG_RUNTIME_DIR"], variables["HOME"]
	s.NoConfigFile = noConfigFile(proc, master, variables["PWD"])
	return s, nil
}

// environ returns the variables that a process was started with.
func environ(proc procfs.FS, pid int) (map[string]string, error) {
	b, err := os.ReadFile(proc.Path(pid, "environ"))
	return parseEnviron(string(b)), err
}

// parseEnviron takes the first of several of a name, as Python does.
func parseEnviron(text string) map[string]string {
	variables := map[string]string{}
	for pair := range strings.SplitSeq(text, "\x00") {
		name, value, _ := strings.Cut(pair, "=")
		if _, ok := variables[name]; !ok {
			variables[name] = value
		}
	}
	return variables
}

// noConfigFile says whether gunicorn found none by itself, in the directory that it was
// started in: the present one, unless PWD says that it was another. Without PWD, as in many
// containers, a file that has the master change its directory is not seen.
func noConfigFile(proc procfs.FS, master int, pwd string) bool {
	now := proc.Path(master, "cwd") + "/"
	if _, err := os.Lstat(now + "gunicorn.conf.py"); !errors.Is(err, fs.ErrNotExist) {
		return false
	}
	is, err := os.Stat(now) // there is a directory, and it may be read
	if err != nil || pwd == "" {
		return err == nil
	}
	was, err := os.Stat(proc.Path(master, "root") + "/" + pwd)
	return err == nil && os.SameFile(is, was)
}
