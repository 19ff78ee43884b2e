package gunicorn

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/prefork-exporter/prefork_exporter/collector/internal/procfs"
	"golang.org/x/sys/unix"
)

// The master stops answering around each fork, mostly for some milliseconds: its thread has
// to end, and the socket is made anew.
const (
	patience = 500 * time.Millisecond
	pause    = 10 * time.Millisecond
)

// Control asks a master by its control socket, which gunicorn has since 25.1. It can ask
// three questions and nothing else. Its methods are safe for concurrent use; each makes its
// own connection and takes half a second at most.
//
// Their errors wrap [fs.ErrPermission] if this user may not, [fs.ErrNotExist] if there is
// no such socket or no such process, and [ErrNotMaster] if another process listens there.
type Control struct {
	proc     procfs.FS
	master   int
	paths    []string
	patience time.Duration
}

// NewControl returns a control of a master whose socket is at one of the paths: by the
// names that files have for the master, and relative to its working directory.
func NewControl(proc procfs.FS, master int, paths []string) *Control {
	return &Control{proc, master, paths, patience}
}

// Stats asks for the statistics.
func (c *Control) Stats(ctx context.Context) (Stats, error) {
	var a statsAnswer
	if err := c.ask(ctx, stats, &a); err != nil {
		return Stats{}, err
	}
	return a.stats()
}

// Workers asks for the workers, the oldest first.
func (c *Control) Workers(ctx context.Context) ([]ControlWorker, error) {
	var a workersAnswer
	if err := c.ask(ctx, workers, &a); err != nil {
		return nil, err
	}
	return a.list()
}

// Config asks for the settings, wherever they come from.
func (c *Control) Config(ctx context.Context) (Settings, error) {
	var a configAnswer
	if err := c.ask(ctx, config, &a); err != nil {
		return Settings{}, err
	}
	return a.settings()
}

// ask repeats a question until it is answered or the time is over.
func (c *Control) ask(ctx context.Context, t topic, data any) error {
	ctx, cancel := context.WithTimeout(ctx, c.patience)
	defer cancel()
	status, err := c.proc.Status(c.master)
	if err != nil {
		return fmt.Errorf("ask the control socket: %w", err)
	}
	var passing error
	for {
		answer, err := c.try(ctx, t, status.UID)
		if err == nil {
			err = decodeAnswer(answer, data)
		}
		switch {
		case err == nil:
			return nil
		case isPassing(err):
			passing = err
		case passing != nil && isTimeout(err):
			err = passing // it says more than that the time is over
		}
		if !isPassing(err) || !wait(ctx) {
			return fmt.Errorf("ask the control socket: %w", err)
		}
	}
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

// isPassing tells what a fork of the master may be the cause of.
func isPassing(err error) bool {
	for _, passing := range []error{
		fs.ErrNotExist, unix.ECONNREFUSED, unix.EAGAIN, unix.ECONNRESET, unix.EPIPE, io.EOF, io.ErrUnexpectedEOF,
	} {
		if errors.Is(err, passing) {
			return true
		}
	}
	return false
}

// wait waits a little, and says whether there is time left.
func wait(ctx context.Context) bool {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// try asks once.
func (c *Control) try(ctx context.Context, t topic, uid int) ([]byte, error) {
	conn, err := c.dial(ctx, uid)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	if _, err := conn.Write(frame(t.request())); err != nil {
		return nil, err
	}
	return readFrame(conn)
}

// dial connects to the first path that the master listens at. A path where another
// process does says more than one where nobody does.
func (c *Control) dial(ctx context.Context, uid int) (net.Conn, error) {
	failed := fs.ErrNotExist
	for _, path := range c.paths {
		conn, err := c.dialPath(ctx, path, uid)
		if err == nil {
			return conn, nil
		}
		if isPassing(failed) {
			failed = err
		}
	}
	return nil, failed
}

// dialPath connects by the file's descriptor: no name is too long so, and the file may be
// in another mount namespace.
func (c *Control) dialPath(ctx context.Context, path string, uid int) (net.Conn, error) {
	file, err := c.open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", "/proc/self/fd/"+strconv.Itoa(int(file.Fd())))
	if err != nil {
		return nil, err
	}
	peer, err := peerOf(conn.(syscall.Conn))
	if err == nil {
		err = c.check(peer, uid)
	}
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return conn, nil
}

// check refuses whoever is not the master: nothing is said to it, and nothing it says is
// believed. The kernel tells who began to listen, and by which user.
func (c *Control) check(peer unix.Ucred, uid int) error {
	if int(peer.Pid) != c.master || int(peer.Uid) != uid && peer.Uid != 0 {
		return ErrNotMaster
	}
	return nil
}

func peerOf(conn syscall.Conn) (peer unix.Ucred, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return peer, err
	}
	asked := raw.Control(func(fd uintptr) {
		var p *unix.Ucred
		if p, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			peer = *p
		}
	})
	return peer, errors.Join(asked, err)
}

// open opens the socket's file by the name that it has for the master, without access to
// it. Absolute links on the way are the master's, too; kernels before 5.6 take them for
// ours, and then somebody else answers, or nobody.
func (c *Control) open(path string) (*os.File, error) {
	if !filepath.IsAbs(path) {
		return os.OpenFile(c.proc.Path(c.master, "cwd")+"/"+path, unix.O_PATH, 0)
	}
	root, err := os.OpenFile(c.proc.Path(c.master, "root"), unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = root.Close() }()
	name := strings.TrimLeft(path, "/")
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	fd, err := unix.Openat2(int(root.Fd()), name, &how)
	if errors.Is(err, unix.ENOSYS) {
		fd, err = unix.Openat(int(root.Fd()), name, unix.O_PATH|unix.O_CLOEXEC, 0)
	}
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}
