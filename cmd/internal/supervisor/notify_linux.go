package supervisor

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Ear hears what workers say by the protocol of sd_notify(3). The kernel tells who
// speaks.
type Ear struct {
	conn *net.UnixConn
	path string
	once sync.Once
	mu   sync.Mutex // held by who hears

	marks   atomic.Int64
	waiting sync.Map // of channels, by mark
}

// Flush waits until all that was said so far has been handed on: what a process said
// before it ended counts before its end. It gives up after a moment.
func (e *Ear) Flush() {
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: e.path, Net: "unixgram"})
	if err != nil {
		return
	}
	defer func() { _ = conn.Close() }()
	mark := strconv.FormatInt(e.marks.Add(1), 10)
	done := make(chan struct{})
	e.waiting.Store(mark, done)
	defer e.waiting.Delete(mark)
	const moment = 200 * time.Millisecond
	_ = conn.SetDeadline(time.Now().Add(moment))
	if _, err := conn.Write([]byte(markPrefix + mark)); err != nil {
		return
	}
	select {
	case <-done:
	case <-time.After(moment):
	}
}

// markPrefix begins what Flush says to itself.
const markPrefix = "X_PREFORK_MARK="

// marked says whether words are a mark, and lets go who waits for it.
func (e *Ear) marked(pid int, words string) bool {
	mark, ok := strings.CutPrefix(words, markPrefix)
	if !ok || pid != os.Getpid() {
		return false
	}
	if done, ok := e.waiting.LoadAndDelete(mark); ok {
		close(done.(chan struct{}))
	}
	return true
}

// maxWords is more than anybody says at once.
const maxWords = 4096

// maxSocketPath is what unix(7) has room for, and an end.
const maxSocketPath = 107

// NewEar listens at a path, which must be free.
func NewEar(path string) (*Ear, error) {
	if len(path) > maxSocketPath {
		return nil, fmt.Errorf("listen to workers: %s is longer than the %d bytes of a socket's path: want a shorter $TMPDIR", path, maxSocketPath)
	}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return nil, fmt.Errorf("listen to workers: %w", err)
	}
	raw, err := conn.SyscallConn()
	if err == nil {
		var inner error
		err = raw.Control(func(fd uintptr) { inner = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PASSCRED, 1) })
		err = errors.Join(err, inner)
	}
	if err != nil {
		return nil, fmt.Errorf("listen to workers: %w", errors.Join(err, conn.Close(), os.Remove(path)))
	}
	return &Ear{conn: conn, path: path}, nil
}

// adoptEar goes on with the socket of another ear, which is closed.
func adoptEar(path string, socket *os.File) (*Ear, error) {
	conn, err := net.FileConn(socket)
	if err := errors.Join(err, socket.Close()); err != nil {
		return nil, fmt.Errorf("listen to workers: %w", err)
	}
	unixConn, ok := conn.(*net.UnixConn)
	if !ok {
		return nil, errors.Join(errors.New("listen to workers: this is no unix socket"), conn.Close())
	}
	return &Ear{conn: unixConn, path: path}, nil
}

// Close ends Listen, and takes the path away.
func (e *Ear) Close() (err error) {
	e.once.Do(func() {
		if err = os.Remove(e.path); errors.Is(err, os.ErrNotExist) {
			err = nil
		}
		err = errors.Join(err, e.conn.Close())
	})
	return err
}

// Listen hands on what is said, with the process id of who says it, until Close.
func (e *Ear) Listen(hear func(pid int, said Said)) {
	raw, err := e.conn.SyscallConn()
	if err != nil {
		return
	}
	words, control := make([]byte, maxWords), make([]byte, 256)
	for err == nil {
		err = raw.Read(func(fd uintptr) (done bool) {
			e.mu.Lock()
			defer e.mu.Unlock()
			n, cn, _, _, err := unix.Recvmsg(int(fd), words, control, unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
			if err != nil {
				return !errors.Is(err, unix.EAGAIN)
			}
			if pid, ok := speaker(control[:cn]); ok && !e.marked(pid, string(words[:n])) {
				hear(pid, understand(string(words[:n])))
			}
			return true
		})
	}
}

// Pause has Listen hand on nothing more when it returns: what is said waits in the
// socket. Resume has to follow, unless whoever has a copy of the socket goes on.
func (e *Ear) Pause() { e.mu.Lock() }

// Resume goes on.
func (e *Ear) Resume() { e.mu.Unlock() }

// speaker returns the process id in the credentials that came with a message. Files
// that came with it, which nobody asked for, are closed.
func speaker(control []byte) (pid int, ok bool) {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return 0, false
	}
	for _, m := range messages {
		if c, err := unix.ParseUnixCredentials(&m); err == nil {
			pid, ok = int(c.Pid), true
		}
		if files, err := unix.ParseUnixRights(&m); err == nil {
			for _, fd := range files {
				_ = unix.Close(fd)
			}
		}
	}
	return pid, ok
}

// understand reads assignments, one in a line. Those that nobody knows are ignored.
func understand(words string) (said Said) {
	for line := range strings.Lines(words) {
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		switch name {
		case "READY":
			said.Ready = said.Ready || value == "1"
		case "WATCHDOG":
			said.Alive = said.Alive || value == "1"
		case "STOPPING":
			said.Stopping = said.Stopping || value == "1"
		case "X_PREFORK_REASON":
			said.Reason = Reason(value)
		}
	}
	return said
}
