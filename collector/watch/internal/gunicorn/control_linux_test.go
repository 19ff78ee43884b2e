package gunicorn

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-exporter/prefork_exporter/collector/internal/procfs"
	"golang.org/x/sys/unix"
)

// standIn plays the master: this process. It answers each connection as told and keeps
// what it was asked.
type standIn struct {
	listener net.Listener
	group    sync.WaitGroup
	done     chan struct{}

	mu    sync.Mutex
	asked []string
	conns int
}

// play has a stand-in listen. answer gets the number of the connection, from 0.
func play(t *testing.T, l net.Listener, answer func(conn net.Conn, n int, request string)) *standIn {
	t.Helper()
	p := &standIn{listener: l, done: make(chan struct{})}
	p.group.Go(func() {
		for n := 0; ; n++ {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			p.group.Go(func() { p.serve(conn, n, answer) })
		}
	})
	t.Cleanup(p.stop)
	return p
}

func (p *standIn) stop() {
	_ = p.listener.Close()
	close(p.done)
	p.group.Wait()
}

func (p *standIn) serve(conn net.Conn, n int, answer func(net.Conn, int, string)) {
	defer func() { _ = conn.Close() }()
	defer context.AfterFunc(p.over(), func() { _ = conn.Close() })()
	request, err := readFrame(conn)
	p.mu.Lock()
	p.conns++
	if err == nil {
		p.asked = append(p.asked, string(request))
	}
	p.mu.Unlock()
	if err == nil {
		answer(conn, n, string(request))
	}
}

// over returns a context that ends with the stand-in.
func (p *standIn) over() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	p.group.Go(func() {
		<-p.done
		cancel()
	})
	return ctx
}

func (p *standIn) heard() (conns int, asked []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.conns, slices.Clone(p.asked)
}

func listen(t *testing.T) (net.Listener, string) {
	t.Helper()
	path := t.TempDir() + "/ctl"
	l, err := net.Listen("unix", path)
	must(t, err)
	t.Cleanup(func() { _ = l.Close() })
	return l, path
}

// recorded answers as real gunicorn did.
func recorded(t *testing.T) func(net.Conn, int, string) {
	return func(conn net.Conn, _ int, request string) {
		for _, topic := range []string{"stats", "workers", "config"} {
			if strings.Contains(request, `"command":"show `+topic+`"`) {
				_, _ = conn.Write(golden(t, "show-"+topic))
			}
		}
	}
}

// newControl returns a control that waits for an answer for as long as a test does.
func newControl(proc procfs.FS, master int, paths []string) *Control {
	c := NewControl(proc, master, paths)
	c.patience = longest
	return c
}

// Whatever is called, the server gets one of three requests, which change nothing.
func TestControlAsksThreeQuestionsAndNothingElse(t *testing.T) {
	l, path := listen(t)
	p := play(t, l, recorded(t))
	c := newControl(proc, os.Getpid(), []string{path})
	if s, err := c.Stats(t.Context()); err != nil || s.Workers != 2 {
		t.Errorf("Stats = %+v, %v", s, err)
	}
	if w, err := c.Workers(t.Context()); err != nil || len(w) != 2 {
		t.Errorf("Workers = %+v, %v", w, err)
	}
	if s, err := c.Config(t.Context()); err != nil || s.Workers.Value != 2 {
		t.Errorf("Config = %+v, %v", s, err)
	}
	conns, asked := p.heard()
	want := []string{
		`{"id":1,"command":"show stats","args":[]}`,
		`{"id":1,"command":"show workers","args":[]}`,
		`{"id":1,"command":"show config","args":[]}`,
	}
	if conns != 3 || !slices.Equal(asked, want) {
		t.Errorf("asked %q over %d connections, want %q over 3", asked, conns, want)
	}
}

// A peer that misbehaves costs the time there is, and nothing else.
func TestControlOfAPeerThatMisbehaves(t *testing.T) {
	length := func(n uint32) string { return string(binary.BigEndian.AppendUint32(nil, n)) }
	whole := string(golden(t, "show-stats"))
	says := func(text string) func(*standIn, net.Conn, int) {
		return func(_ *standIn, conn net.Conn, _ int) { _, _ = io.WriteString(conn, text) }
	}
	saysAndHangs := func(text string) func(*standIn, net.Conn, int) {
		return func(p *standIn, conn net.Conn, _ int) {
			_, _ = io.WriteString(conn, text)
			<-p.done
		}
	}
	tooLate := os.ErrDeadlineExceeded
	for name, tc := range map[string]struct {
		does func(p *standIn, conn net.Conn, n int)
		text string // of the error; empty: it is answered
		is   error
	}{
		"answers":                        {says(whole), "", nil},
		"answers, and goes on talking":   {says(whole + whole), "", nil},
		"answers bit by bit":             {func(_ *standIn, conn net.Conn, _ int) { trickle(conn, whole) }, "", nil},
		"ends two connections first":     {func(_ *standIn, conn net.Conn, n int) { _, _ = io.WriteString(conn, whole[:len(whole)*min(n/2, 1)]) }, "", nil},
		"hangs":                          {saysAndHangs(""), "the answer", tooLate},
		"hangs after the length":         {saysAndHangs(whole[:4]), "the answer", tooLate},
		"hangs in the answer":            {saysAndHangs(whole[:50]), "the answer", tooLate},
		"lies about the length":          {saysAndHangs(length(1<<20) + whole[4:]), "the answer", tooLate},
		"ends all connections":           {says(""), "length of the answer", io.EOF},
		"ends in the answer":             {says(whole[:50]), "read the answer", io.ErrUnexpectedEOF},
		"answers with too much":          {saysAndHangs(length(16<<20) + strings.Repeat("a", 1<<16)), "want at most", nil},
		"answers with nothing":           {says(length(0)), "decode the answer", nil},
		"answers with garbage":           {says(length(4) + "\x00\xff{]"), "decode the answer", nil},
		"answers with no object":         {says(string(frame(`[1]`))), "decode the answer", nil},
		"answers with a deep object":     {says(string(frame(strings.Repeat("[", 1<<20)))), "decode the answer", nil},
		"answers with deep data":         {says(string(frame(string(ok(strings.Repeat("[", 9000) + strings.Repeat("]", 9000)))))), "decode the answer", nil},
		"answers another request":        {says(string(frame(`{"id":2,"status":"ok","data":{}}`))), "another request", nil},
		"answers no request":             {says(string(frame(`{"status":"ok","data":{}}`))), "another request", nil},
		"answers with an error":          {says(string(golden(t, "error"))), "Unknown show target", nil},
		"answers without a status":       {says(string(frame(`{"id":1,"data":{}}`))), `status ""`, nil},
		"answers without data":           {says(string(frame(`{"id":1,"status":"ok"}`))), "decode the answer", nil},
		"answers with a very long error": {says(string(frame(`{"id":1,"status":"e","error":"` + strings.Repeat("e", 1<<19) + `"}`))), "want ok", nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, path := listen(t)
			var p *standIn
			ready := make(chan struct{})
			p = play(t, l, func(conn net.Conn, n int, _ string) {
				<-ready
				tc.does(p, conn, n)
			})
			close(ready)
			c := newControl(proc, os.Getpid(), []string{path})
			if tc.is != nil {
				c.patience = time.Second // it will be used up
			}
			got, err := c.Stats(t.Context())
			if tc.text == "" {
				if err != nil || got.Workers != 2 {
					t.Errorf("Stats = %+v, %v", got, err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tc.text) || tc.is != nil && !errors.Is(err, tc.is) {
				t.Errorf("error %.300v, want %q, %v", err, tc.text, tc.is)
			}
			if err != nil && len(err.Error()) > 500 {
				t.Errorf("an error of %d bytes", len(err.Error()))
			}
		})
	}
}

func trickle(conn net.Conn, text string) {
	for i := range len(text) {
		_, _ = io.WriteString(conn, text[i:i+1])
	}
}

func TestControlOfAPathWhereNobodyAnswers(t *testing.T) {
	refuses := t.TempDir() + "/ctl"
	l, err := net.Listen("unix", refuses)
	must(t, err)
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	must(t, l.Close())
	_, silent := listen(t) // it accepts nothing
	plain := t.TempDir() + "/file"
	must(t, os.WriteFile(plain, nil, 0o644))
	l, answers := listen(t)
	play(t, l, recorded(t))

	for name, tc := range map[string]struct {
		master int
		paths  []string
		want   error // nil: it is answered
	}{
		"no path":                         {os.Getpid(), nil, fs.ErrNotExist},
		"no file":                         {os.Getpid(), []string{"/no/such/ctl"}, fs.ErrNotExist},
		"a socket that nobody listens at": {os.Getpid(), []string{refuses}, unix.ECONNREFUSED},
		"a file that is no socket":        {os.Getpid(), []string{plain}, unix.ECONNREFUSED},
		"nobody accepts":                  {os.Getpid(), []string{silent}, os.ErrDeadlineExceeded},
		"a socket after no file":          {os.Getpid(), []string{"/no/such/ctl", answers}, nil},
		"a socket after a deaf one":       {os.Getpid(), []string{refuses, answers}, nil},
		"no master":                       {1 << 30, []string{answers}, fs.ErrNotExist},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newControl(proc, tc.master, tc.paths)
			if tc.want != nil {
				c.patience = patience
			}
			_, err := c.Stats(t.Context())
			if !errors.Is(err, tc.want) {
				t.Errorf("error %v, want %v", err, tc.want)
			}
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := newControl(proc, os.Getpid(), []string{answers}).Stats(ctx); !errors.Is(err, context.Canceled) && !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("error %v of a call that is over", err)
	}
}

// What a fork of the master may cause is tried again, and nothing else.
func TestControlTriesAgain(t *testing.T) {
	for err, want := range map[error]bool{
		unix.ENOENT: true, unix.ECONNREFUSED: true, unix.EAGAIN: true, unix.EPIPE: true, unix.ECONNRESET: true,
		io.EOF: true, io.ErrUnexpectedEOF: true,
		unix.EACCES: false, ErrNotMaster: false, os.ErrDeadlineExceeded: false, context.Canceled: false,
	} {
		if got := isPassing(fmt.Errorf("ask: %w", err)); got != want {
			t.Errorf("isPassing(%v) = %v", err, got)
		}
	}
}

func TestControlOfASocketThatIsMadeAnew(t *testing.T) {
	l, path := listen(t)
	first := play(t, l, func(net.Conn, int, string) {})
	done := make(chan error)
	go func() {
		_, err := newControl(proc, os.Getpid(), []string{path}).Stats(t.Context())
		done <- err
	}()
	await(t, "a question", func() bool { conns, _ := first.heard(); return conns > 0 })
	must(t, l.Close()) // and the file is gone
	again, err := net.Listen("unix", path)
	must(t, err)
	play(t, again, recorded(t))
	must(t, <-done)
}

func TestControlFindsTheSocketByTheMastersNames(t *testing.T) {
	dir := t.TempDir()
	deep := dir + "/" + strings.Repeat("d", 150)
	must(t, os.Mkdir(deep, 0o755))
	must(t, os.Symlink(deep, dir+"/link"))
	at, err := os.Open(deep)
	must(t, err)
	t.Cleanup(func() { must(t, at.Close()) })
	l, err := net.Listen("unix", fmt.Sprintf("/proc/self/fd/%d/ctl", at.Fd())) // a longer name cannot be bound
	must(t, err)
	play(t, l, recorded(t))
	here, err := os.Getwd()
	must(t, err)
	relative, err := filepath.Rel(here, deep)
	must(t, err)
	for name, path := range map[string]string{
		"a long name":      deep + "/ctl",
		"an absolute link": dir + "/link/ctl",
		"a relative name":  relative + "/ctl",
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := newControl(proc, os.Getpid(), []string{path}).Stats(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

// chrooted is a master with another root, where an absolute link leads to its socket.
const chrooted = `
import os, socket, sys
answer = open(sys.argv[2], 'rb').read()
os.chroot(sys.argv[1])
os.chdir('/')
os.mkdir('/real')
os.symlink('/real', '/link')
with socket.socket(socket.AF_UNIX) as l:
    l.bind('/real/ctl')
    l.listen()
    open('/listens', 'w').close()
    while True:
        s = l.accept()[0]
        s.recv(1000)
        s.sendall(answer)
        s.close()
`

func TestControlOfAMasterWithAnotherRoot(t *testing.T) {
	needRoot(t)
	need(t, pythonPath, "python3")
	dir := t.TempDir()
	cmd := exec.Command(pythonPath, "-c", chrooted, dir, "testdata/show-stats.frame")
	must(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	await(t, "the master", func() bool { return exists(dir + "/listens") })
	for _, path := range []string{"/link/ctl", "real/ctl", "/../../link/ctl"} {
		if s, err := newControl(proc, cmd.Process.Pid, []string{path}).Stats(t.Context()); err != nil || s.Workers != 2 {
			t.Errorf("Stats by %s = %+v, %v", path, s, err)
		}
	}
}

// To a process that is not the master nothing is said.
func TestControlTalksToTheMasterOnly(t *testing.T) {
	other := exec.Command("/bin/sleep", "60")
	must(t, other.Start())
	t.Cleanup(func() { _ = other.Process.Kill(); _ = other.Wait() })
	l, path := listen(t)
	p := play(t, l, recorded(t))
	if _, err := newControl(proc, other.Process.Pid, []string{path}).Stats(t.Context()); !errors.Is(err, ErrNotMaster) {
		t.Errorf("error %v, want %v", err, ErrNotMaster)
	}
	await(t, "the connection to be refused", func() bool { conns, _ := p.heard(); return conns == 1 })
	if _, asked := p.heard(); len(asked) > 0 {
		t.Errorf("asked %q of another process", asked)
	}
}

func TestControlTalksToNoOtherUser(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	must(t, os.Chmod(dir, 0o777))
	must(t, os.Chmod(filepath.Dir(dir), 0o755))
	path := dir + "/ctl"
	l := listenAs(t, nobody, path)
	p := play(t, l, recorded(t))
	if _, err := newControl(proc, os.Getpid(), []string{path}).Stats(t.Context()); !errors.Is(err, ErrNotMaster) {
		t.Errorf("error %v, want %v", err, ErrNotMaster)
	}
	await(t, "the connection to be refused", func() bool { conns, _ := p.heard(); return conns == 1 })
}

// listenAs listens with another effective user, which only this thread has, and only meanwhile.
func listenAs(t *testing.T, uid int, path string) net.Listener {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	become := func(uid int) {
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), uintptr(uid), ^uintptr(0)); errno != 0 {
			t.Fatal(errno)
		}
	}
	become(uid)
	defer become(0)
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Error(err)
		return nil
	}
	return l
}

func TestControlKnowsTheMaster(t *testing.T) {
	c := &Control{master: 7}
	for name, tc := range map[string]struct {
		peer unix.Ucred
		want error
	}{
		"the master":                            {unix.Ucred{Pid: 7, Uid: 33}, nil},
		"the master, when it was root":          {unix.Ucred{Pid: 7, Uid: 0}, nil},
		"the master, by another user":           {unix.Ucred{Pid: 7, Uid: 34}, ErrNotMaster},
		"another process of its user":           {unix.Ucred{Pid: 8, Uid: 33}, ErrNotMaster},
		"another process of root's":             {unix.Ucred{Pid: 8, Uid: 0}, ErrNotMaster},
		"a process that is not in view of ours": {unix.Ucred{Pid: 0, Uid: 33}, ErrNotMaster},
	} {
		t.Run(name, func(t *testing.T) {
			if err := c.check(tc.peer, 33); !errors.Is(err, tc.want) {
				t.Errorf("check = %v, want %v", err, tc.want)
			}
		})
	}
}

// Gunicorn before 25.1 has no control socket. What a later one says is what can be seen.
func TestControlOfARealServer(t *testing.T) {
	s := start(t, launch{args: []string{"--workers", "1", "--timeout", "60"}})
	worker := s.workers(1)[0]
	how, err := StartOf(proc, s.pid)
	must(t, err)
	paths := how.ControlSockets(SettingsOf(how))
	c := NewControl(proc, s.pid, paths)
	if !isYoung(t) {
		if _, err := c.Stats(t.Context()); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Stats of an old gunicorn: %v, want that there is no socket at %q", err, paths)
		}
		return
	}
	await(t, "the control socket", func() bool { _, err := c.Stats(t.Context()); return err == nil })
	settings, err := c.Config(t.Context())
	must(t, err)
	same(t, settings, defaults(values{"timeout": "60", "control_socket": s.dir + "/gunicorn.ctl"}))

	h := s.heartbeat(worker)
	s.keepBusy("gate")
	sign := signOf(t, h)
	before := time.Now()
	list, err := c.Workers(t.Context())
	must(t, err)
	after := time.Now()
	const hundredth = 10*time.Millisecond + rounding // it tells no more of a second
	if len(list) != 1 || list[0].PID != worker || !list[0].LastSign.Known ||
		sign.Before(before.Add(-list[0].LastSign.Value-hundredth)) || sign.After(after.Add(-list[0].LastSign.Value+hundredth)) {
		t.Errorf("Workers = %+v; the heartbeat of %d is of %v, and it is %v", list, worker, sign, after)
	}
	must(t, syscall.Kill(worker, syscall.SIGKILL))
	await(t, "a new worker", func() bool { // each answer comes, though the socket goes and comes
		stats, err := c.Stats(t.Context())
		must(t, err)
		return stats == Stats{Uptime: stats.Uptime, PID: s.pid, Workers: 1, Target: 1, Spawned: 2}
	})
}
