package watch

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/prefork-exporter/prefork_exporter/collector/internal/procfs"
)

// FindPIDFile returns a finder of the process that a file names, which is read anew each
// time. While a program takes the place of another (USR2), that is:
//
//   - of gunicorn the old master, for the new one writes NAME.2 and takes NAME over when
//     the old one has ended: from then on the new one, wherever it stands;
//   - of unicorn the new master as soon as it has written NAME, and until then the old
//     one, which has moved its own to NAME.oldbin.
//
// A file may be older than the process that has the id now: who came later than the file
// is a stranger. Whoever may write the file says which process is watched, so its owner has
// to be root, our own user or the process's. Empty proc: /proc.
func FindPIDFile(proc, name string) Finder {
	return &byPIDFile{view: newView(proc), name: name, boot: procfs.Boot}
}

type byPIDFile struct {
	view
	name string
	boot func() (time.Time, error)

	mu    sync.Mutex
	found identity // was not a stranger when it was found
}

// Find implements [Finder]. Its error is about the first file.
func (f *byPIDFile) Find() (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var first error
	for _, suffix := range []string{"", ".2", ".oldbin"} {
		found, err := f.named(f.name + suffix)
		if err == nil {
			f.found = found
			return found.PID, nil
		}
		if first == nil {
			first = err
		}
	}
	return 0, first
}

// named returns the process that a file names.
func (f *byPIDFile) named(name string) (identity, error) {
	file, err := readPIDFile(name)
	if err != nil {
		return identity{}, err
	}
	pid, err := parsePID(file.content)
	if err != nil {
		return identity{}, noMaster("the pidfile has no process id", "%s: %s", name, err)
	}
	if err := f.refuse(pid); err != nil {
		return identity{}, err
	}
	s, ok := f.alive(pid)
	if !ok {
		return identity{}, noMaster("the process that the pidfile names is not there", "%s: %d", name, pid)
	}
	who := identity{pid, s.Start}
	if who == f.found {
		return who, nil
	}
	if err := f.runs(pid); err != nil {
		return identity{}, err
	}
	return who, f.check(name, file, s)
}

// check says why the process that has the id is not the one that the file means.
func (f *byPIDFile) check(name string, file pidFile, s procfs.Stat) error {
	boot, err := f.boot()
	if err != nil {
		return noMaster("the age of a process cannot be told", "%s", err)
	}
	const slack = 2 * time.Second // of clocks that are set, and of file systems
	if born := s.Born(boot); born.After(file.changed.Add(slack)) {
		return noMaster("the process that the pidfile names is younger than the file", "%s: %d was started at %s, the file was written at %s",
			name, s.PID, born.Format(time.RFC3339), file.changed.Format(time.RFC3339))
	}
	status, err := f.Status(s.PID)
	if err != nil {
		return noMaster("the process that the pidfile names is not there", "%s: %s", name, err)
	}
	switch file.owner {
	case 0, os.Geteuid(), status.UID:
		return nil
	}
	return noMaster("the pidfile belongs to somebody else", "%s: user %d: want root, %d, or %d, whose process it names",
		name, file.owner, os.Geteuid(), status.UID)
}

// pidFile is what was read of one.
type pidFile struct {
	content []byte
	changed time.Time
	owner   int // user id
}

// longestPIDFile is more than a process id, blanks and a line's end.
const longestPIDFile = 64

// readPIDFile reads a regular file, and not one that is too long. Links are followed: to
// write them takes what it takes to write the file.
func readPIDFile(name string) (pidFile, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return pidFile{}, noMaster("there is no pidfile", "%s", name)
	}
	if err != nil {
		return pidFile{}, noMaster("the pidfile cannot be read", "%s", err)
	}
	defer func() { _ = f.Close() }()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return pidFile{}, noMaster("the pidfile cannot be read", "%s: %s", name, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return pidFile{}, noMaster("the pidfile is no regular file", "%s", name)
	}
	content, err := io.ReadAll(io.LimitReader(f, longestPIDFile+1))
	if err != nil {
		return pidFile{}, noMaster("the pidfile cannot be read", "%s", err)
	}
	return pidFile{content, time.Unix(st.Mtim.Unix()), int(st.Uid)}, nil
}

// parsePID reads a process id, which may have blanks around it. Its error does not show what
// else is there: it might be a secret that somebody has linked to.
func parsePID(content []byte) (int, error) {
	text := bytes.TrimSpace(content)
	switch {
	case len(content) > longestPIDFile:
		return 0, fmt.Errorf("more than %d bytes: want one process id", longestPIDFile)
	case len(text) == 0:
		return 0, errors.New("nothing: want one process id")
	case bytes.ContainsFunc(text, func(r rune) bool { return r < '0' || r > '9' }):
		return 0, fmt.Errorf("%d bytes that are no number: want one process id", len(text))
	}
	pid, err := strconv.ParseInt(string(text), 10, 32)
	if err != nil || pid < 1 {
		return 0, fmt.Errorf("%s: want a process id", text)
	}
	return int(pid), nil
}
