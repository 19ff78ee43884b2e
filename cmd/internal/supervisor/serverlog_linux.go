package supervisor

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// serverLog is what a server writes to our stdout and stderr, and what its sidecar sees of
// that. A regular file is read where it is, so that the server keeps it. A pipe has a tap
// before it. Every other place is the server's alone: what it does with a terminal, or with
// the socket of a journal, it would not do with a pipe.
type serverLog struct {
	Stdout, Stderr *os.File // of the server

	views []*os.File // what the sidecar reads
	blind string     // why it does not see all; empty: it does
	taps  []*tap     // until they are at work
	ends  []*tapEnds
}

// openServerLog returns what a server writes to that shall write to stdout and stderr, of
// which the sidecar sees what it can. Where both are one file, all comes in its order.
// start has taps work, which are its own from then on.
func openServerLog(stdout, stderr *os.File, start func([]*tap) error) *serverLog {
	l := &serverLog{}
	l.Stdout = l.watch(stdout)
	if sameFile(stdout, stderr) {
		l.Stderr = l.Stdout
	} else {
		l.Stderr = l.watch(stderr)
	}
	if len(l.taps) == 0 || start(l.taps) == nil {
		return l
	}
	_ = l.close()
	return &serverLog{Stdout: stdout, Stderr: stderr, blind: "nobody can be started who would hand it on"}
}

func sameFile(a, b *os.File) bool {
	one, err := a.Stat()
	other, otherErr := b.Stat()
	return err == nil && otherErr == nil && os.SameFile(one, other)
}

// watch returns what the server writes to in the place of f.
func (l *serverLog) watch(f *os.File) (server *os.File) {
	fd := int(f.Fd())
	switch kind := outputOf(fd); kind {
	case "file":
		view, err := fileView(fd)
		if err != nil {
			l.blind = "the server's log file cannot be read"
			return f
		}
		l.views = append(l.views, view)
		return f
	case "pipe":
		t, ends, err := openTap(fd)
		if err != nil {
			l.blind = "the kernel gives no pipe"
			return f
		}
		l.taps, l.ends, l.views = append(l.taps, t), append(l.ends, ends), append(l.views, ends.View)
		return ends.Server
	default:
		l.blind = "the server writes to a " + kind
		return f
	}
}

// outputOf returns what kind of file a descriptor is. A pipe is one without a name: one
// with a name may get another reader.
func outputOf(fd int) string {
	var s unix.Stat_t
	if err := unix.Fstat(fd, &s); err != nil {
		return "descriptor that is closed"
	}
	switch s.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return "file"
	case unix.S_IFSOCK:
		return "socket"
	case unix.S_IFIFO:
		const pipeFS = 0x50495045 // PIPEFS_MAGIC of the kernel
		var fs unix.Statfs_t
		if err := unix.Fstatfs(fd, &fs); err == nil && fs.Type == pipeFS {
			return "pipe"
		}
		return "named pipe"
	}
	if _, err := unix.IoctlGetTermios(fd, unix.TCGETS); err == nil {
		return "terminal"
	}
	return "device"
}

// fileView opens a file to read what comes from now on.
func fileView(fd int) (*os.File, error) {
	view, err := os.Open("/proc/self/fd/" + strconv.Itoa(fd))
	if err != nil {
		return nil, fmt.Errorf("read the server's log: %w", err)
	}
	if _, err := view.Seek(0, io.SeekEnd); err != nil {
		return nil, errors.Join(fmt.Errorf("read the server's log: %w", err), view.Close())
	}
	return view, nil
}

// ServerLogVariable is the variable that tells a sidecar where it can read what the server
// writes: descriptors, and why those are not all.
const ServerLogVariable = "PREFORK_SERVER_LOG"

// variable tells of the views of which the first has that descriptor.
func (l *serverLog) variable(first int) string {
	var words []string
	for i := range l.views {
		words = append(words, strconv.Itoa(first+i))
	}
	if l.blind != "" {
		words = append(words, l.blind)
	}
	return ServerLogVariable + "=" + strings.Join(words, ",")
}

// OpenServerLog returns what ServerLogVariable tells: where a sidecar reads what the server
// writes, and why that is not all. It must be called once.
func OpenServerLog(value string) (views []*os.File, blind string) {
	for word := range strings.SplitSeq(value, ",") {
		fd, err := strconv.Atoi(word)
		if err != nil {
			blind = word
			continue
		}
		_ = unix.SetNonblock(fd, true) // then a read can be interrupted
		views = append(views, inherited(fd, "server log"))
	}
	return views, blind
}

// finish waits until what the server has written by now is where it belongs: as long as
// somebody reads that at all, and nobody is in a hurry.
func (l *serverLog) finish(hurry <-chan os.Signal) {
	for _, e := range l.ends {
		_ = e.Server.Close()
		_, _ = e.wake.Write([]byte{1, 0, 0, 0, 0, 0, 0, 0}) // as eventfd(2) wants it
	}
	for _, e := range l.ends {
		e.finish(hurry)
	}
}

// tapPatience is how long who reads what a server has written may do nothing when that has ended.
const tapPatience = 3 * time.Second

func (e *tapEnds) finish(hurry <-chan os.Signal) {
	over := make(chan struct{})
	go func() {
		defer close(over)
		for b := make([]byte, 1<<10); ; {
			_ = e.told.SetReadDeadline(time.Now().Add(tapPatience))
			if _, err := e.told.Read(b); err != nil {
				return
			}
		}
	}()
	for {
		select {
		case <-over:
			return
		case s := <-hurry:
			if stops(s) {
				return
			}
		}
	}
}

// close closes what is ours. Taps go on while somebody writes.
func (l *serverLog) close() (err error) {
	for _, view := range l.views {
		err = errors.Join(err, view.Close())
	}
	for _, e := range l.ends {
		_ = e.Server.Close() // it may be already
		err = errors.Join(err, e.wake.Close(), e.told.Close())
	}
	return err
}

// tapName is what this program is called when it is to run taps.
const tapName = "prefork_exporter: log"

// startTaps has another process run taps: it outlives us as long as somebody writes. Else
// the end of ours would be that of the server's pipe, which not each of them survives: a
// worker of uWSGI that cannot log would try for ever.
func startTaps(taps []*tap) error {
	cmd := &exec.Cmd{Path: ourself, Args: []string{tapName, strconv.Itoa(len(taps))}, Env: []string{}, Dir: "/", SysProcAttr: &syscall.SysProcAttr{Setpgid: true}}
	var theirs []*os.File
	for _, t := range taps {
		for _, fd := range t.descriptors() {
			dup, err := unix.FcntlInt(uintptr(*fd), unix.F_DUPFD_CLOEXEC, firstExtra)
			if err != nil {
				return errors.Join(fmt.Errorf("hand on the server's output: %w", err), closeAll(theirs))
			}
			theirs = append(theirs, os.NewFile(uintptr(dup), "tap"))
		}
		t.close()
	}
	cmd.ExtraFiles = theirs
	err := cmd.Start()
	if err == nil {
		err = cmd.Process.Release() // it is reaped as an orphan is
	}
	return errors.Join(err, closeAll(theirs))
}

// descriptors are those that another process needs.
func (t *tap) descriptors() []*int { return []*int{&t.in, &t.out, &t.side, &t.wake, &t.told} }

// runTaps runs taps whose descriptors it has inherited. Only the end of who writes ends it.
func runTaps(n int) {
	signal.Ignore(syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGPIPE)
	var group sync.WaitGroup
	next := firstExtra
	for range n {
		var t tap
		for _, fd := range t.descriptors() {
			*fd = next
			unix.CloseOnExec(next)
			next++
		}
		group.Go(t.run)
	}
	group.Wait()
}
