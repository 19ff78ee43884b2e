package e2e

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// startTo starts the program around a server, with its output where it says.
func startTo(t *testing.T, stdout, stderr *os.File, server []string, flags ...string) *exporter {
	t.Helper()
	web := freeAddress(t)
	cmd := command(slices.Concat([]string{"run", "--web.listen-address=" + web}, flags, []string{"--"}, server)...)
	cmd.Stdout, cmd.Stderr = stdout, stderr
	p := newProcess(t, cmd)
	p.stdout, p.stderr = create(t, p.stdout).Name(), create(t, p.stderr).Name() // they stay empty
	p.launch(t, nil)
	return &exporter{process: p, client: newClient(t, "tcp", web), address: web}
}

// sidecar returns the process id of ours.
func (e *exporter) sidecar(t *testing.T) (pid int) {
	t.Helper()
	await(t, "the sidecar", func() bool {
		for _, pid = range e.children(t) {
			if args, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); strings.HasPrefix(string(args), "prefork_exporter: sidecar\x00") {
				return true
			}
		}
		return false
	})
	return pid
}

// inPieces writes two files to stdout and stderr, bit by bit, and ends with 5.
const inPieces = `
import os, sys
streams = [(fd, memoryview(open(path, 'rb').read())) for fd, path in zip((1, 2), sys.argv[1:])]
at, size = 0, 1
while any(at < len(data) for _, data in streams):
    for fd, data in streams:
        piece = data[at:at + size]
        while piece:
            try:
                piece = piece[os.write(fd, piece):]
            except OSError: # it is closed
                break
    at, size = at + size, size * 7 % 9973 + 1
os._exit(5)
`

// randomFiles returns two files of a megabyte and what is in them.
func randomFiles(t *testing.T) (paths [2]string, data [2][]byte) {
	t.Helper()
	random := rand.NewChaCha8(sha256.Sum256([]byte(t.Name())))
	for i := range paths {
		data[i] = make([]byte, 1<<20+i)
		_, err := random.Read(data[i])
		must(t, err)
		paths[i] = filepath.Join(t.TempDir(), strconv.Itoa(i))
		must(t, os.WriteFile(paths[i], data[i], 0o600))
	}
	return paths, data
}

// drain reads all that comes.
func drain(r io.Reader) <-chan []byte {
	all := make(chan []byte, 1)
	go func() {
		b, _ := io.ReadAll(r)
		all <- b
	}()
	return all
}

// Whatever a server writes to, what it writes is what comes out.
func TestWhatAServerWritesPassesUnaltered(t *testing.T) {
	need(t, pythonPeers()...)
	// each returns where the server shall write, and what came out when it has ended
	places := map[string]func(t *testing.T) (*os.File, func() []byte){
		"pipe": func(t *testing.T) (*os.File, func() []byte) {
			r, w := openPipe(t)
			all := drain(r)
			return w, func() []byte {
				_ = w.Close()
				return <-all
			}
		},
		"socket": func(t *testing.T) (*os.File, func() []byte) {
			fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			must(t, err)
			r, w := os.NewFile(uintptr(fds[0]), "ours"), os.NewFile(uintptr(fds[1]), "theirs")
			t.Cleanup(func() { _, _ = r.Close(), w.Close() })
			all := drain(r)
			return w, func() []byte {
				_ = w.Close()
				return <-all
			}
		},
		"named pipe": func(t *testing.T) (*os.File, func() []byte) {
			path := filepath.Join(t.TempDir(), "fifo")
			must(t, unix.Mkfifo(path, 0o600))
			w, err := os.OpenFile(path, os.O_RDWR, 0)
			must(t, err)
			r, err := os.Open(path)
			must(t, err)
			t.Cleanup(func() { _, _ = r.Close(), w.Close() })
			all := drain(r)
			return w, func() []byte {
				_ = w.Close()
				return <-all
			}
		},
		"file": func(t *testing.T) (*os.File, func() []byte) { return intoFile(t, 0) },
		"file to append to": func(t *testing.T) (*os.File, func() []byte) {
			return intoFile(t, os.O_APPEND)
		},
		"device": func(t *testing.T) (*os.File, func() []byte) {
			f, err := os.OpenFile(os.DevNull, os.O_WRONLY|os.O_APPEND, 0)
			must(t, err)
			return f, nil
		},
	}
	for name, place := range places {
		for _, mode := range []string{"auto", "off"} {
			t.Run(name+", "+mode, func(t *testing.T) {
				paths, data := randomFiles(t)
				stdout, out := place(t)
				stderr, errOut := place(t)
				e := startTo(t, stdout, stderr, []string{pythonPath, "-c", inPieces, paths[0], paths[1]}, "--log.level=error", "--server-log="+mode)
				if status := e.status(t); status != 5 {
					t.Errorf("status %d, want 5", status)
				}
				for i, read := range []func() []byte{out, errOut} {
					if read == nil {
						continue
					}
					if got := read(); !bytes.Equal(got, data[i]) {
						t.Errorf("descriptor %d: %d bytes came out, which are not the %d that went in", i+1, len(got), len(data[i]))
					}
				}
			})
		}
	}
	t.Run("closed", func(t *testing.T) { // as a shell starts us with >&- 2>&-
		paths, _ := randomFiles(t)
		cmd := exec.Command("sh", "-c", `exec "$@" >&- 2>&-`, "sh", program, "run", "--web.listen-address="+freeAddress(t), "--",
			pythonPath, "-c", inPieces, paths[0], paths[1])
		if p := start(t, cmd); p.status(t) != 5 {
			t.Errorf("status %d, want 5", p.status(t))
		}
	})
}

func intoFile(t *testing.T, how int) (*os.File, func() []byte) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "log")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|how, 0o600)
	must(t, err)
	t.Cleanup(func() { _ = f.Close() })
	return f, func() []byte {
		b, err := os.ReadFile(path)
		must(t, err)
		return b
	}
}

// Where stdout and stderr are one file, lines stay in the order in which they were written.
func TestOneFileForBothStreamsKeepsTheirOrder(t *testing.T) {
	const script = `i=0; while [ $i -lt 2000 ]; do echo o$i; echo e$i >&2; i=$((i+1)); done`
	var want strings.Builder
	for i := range 2000 {
		fmt.Fprintf(&want, "o%d\ne%d\n", i, i)
	}
	r, w := openPipe(t)
	all := drain(r)
	e := startTo(t, w, w, []string{"sh", "-c", script}, "--log.level=error")
	e.status(t)
	_ = w.Close()
	if got := string(<-all); got != want.String() {
		t.Errorf("%d bytes in another order than the %d that were written", len(got), want.Len())
	}
}

// It is stopped, or killed again and again, while the server writes as fast as it can.
func TestASidecarThatIsInTroubleCostsTheServerNothing(t *testing.T) {
	need(t, pythonPeers()...)
	const much = 20 << 20
	script := fmt.Sprintf(`read go; head -c %d /dev/zero; exit 4`, much)
	for name, trouble := range map[string]syscall.Signal{"stopped": syscall.SIGSTOP, "killed": syscall.SIGKILL} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			gate := filepath.Join(dir, "gate")
			must(t, unix.Mkfifo(gate, 0o600))
			r, w := openPipe(t)
			all := drain(r)
			e := startTo(t, w, create(t, filepath.Join(dir, "stderr")), []string{"sh", "-c", "exec <" + gate + "; " + script})
			must(t, syscall.Kill(e.sidecar(t), trouble))
			must(t, os.WriteFile(gate, []byte("go\n"), 0))
			if status := e.status(t); status != 4 {
				t.Errorf("status %d, want 4", status)
			}
			_ = w.Close()
			if n := len(<-all); n != much {
				t.Errorf("%d bytes, want %d", n, much)
			}
		})
	}
}

// blocked says whether a process waits for room in a pipe.
func blocked(pid int) bool {
	where, _ := os.ReadFile(fmt.Sprintf("/proc/%d/wchan", pid))
	return strings.Contains(string(where), "pipe_write")
}

// Who does not read keeps the server waiting, and nobody else; and loses nothing.
func TestAReaderWhoTakesItsTimeKeepsOnlyTheServerWaiting(t *testing.T) {
	need(t, pythonPeers()...)
	paths, data := randomFiles(t)
	r, w := openPipe(t)
	e := startTo(t, w, create(t, filepath.Join(t.TempDir(), "stderr")), []string{pythonPath, "-c", inPieces, paths[0]})
	sidecar := e.sidecar(t)
	await(t, "the server to wait", func() bool { return slices.ContainsFunc(e.children(t), blocked) })
	e.awaitPage(t, e.process, "/-/healthy")
	(&ward{exporter: e}).tells(t, 0, "prefork_master_signals_total", "signal", "USR1")
	if now := e.sidecar(t); now != sidecar {
		t.Errorf("the sidecar was replaced: %d after %d", now, sidecar)
	}
	_ = w.Close()
	if got := <-drain(r); !bytes.Equal(got, data[0]) {
		t.Errorf("%d bytes came out, which are not the %d that went in", len(got), len(data[0]))
	}
	if status := e.status(t); status != 5 {
		t.Errorf("status %d, want 5", status)
	}
}

// Its last words fill the pipe that it had without us, and ours. As in a container our end
// is that of all others.
func TestTheLastWordsOfAServerWaitForTheirReader(t *testing.T) {
	const much = 100 << 10
	r, w := openPipe(t)
	log := filepath.Join(t.TempDir(), "stderr")
	p := newProcess(t, exec.Command("unshare", "--map-root-user", "--pid", "--fork", "--mount-proc", program, "run",
		"--web.listen-address="+freeAddress(t), "--", "sh", "-c", fmt.Sprintf("head -c %d /dev/zero; exit 5", much)))
	p.cmd.Stdout, p.cmd.Stderr = w, create(t, log)
	create(t, p.stdout)
	create(t, p.stderr)
	p.launch(t, nil)
	await(t, "the end of the server", func() bool {
		said, err := os.ReadFile(log)
		return err == nil && bytes.Contains(said, []byte("the server has ended for good"))
	})
	_ = w.Close()
	if n := len(<-drain(r)); n != much {
		t.Errorf("%d bytes, want %d", n, much)
	}
	if status := p.status(t); status != 5 {
		t.Errorf("status %d, want 5", status)
	}
}

// When nobody reads any more the server gets what it would get without us.
func TestAServerLearnsThatNobodyReads(t *testing.T) {
	need(t, pythonPeers()...)
	for name, tc := range map[string]struct {
		server []string
		status int
	}{
		"by a signal": {[]string{"sh", "-c", "while :; do echo x; sleep 0.01; done"}, 128 + int(syscall.SIGPIPE)},
		"by an error": {[]string{pythonPath, "-c", `
import os, time
try:
    while True:
        os.write(1, b'x')
        time.sleep(0.01)
except BrokenPipeError:
    os._exit(6)
`}, 6},
	} {
		t.Run(name, func(t *testing.T) {
			r, w := openPipe(t)
			e := startTo(t, w, create(t, filepath.Join(t.TempDir(), "stderr")), tc.server)
			_ = w.Close()
			_, err := r.Read(make([]byte, 1))
			must(t, err)
			_ = r.Close()
			if status := e.status(t); status != tc.status {
				t.Errorf("status %d, want %d", status, tc.status)
			}
		})
	}
}

// A terminal, and what is no pipe and no file, stays the server's own.
func TestAServerOnATerminalKeepsIt(t *testing.T) {
	p, _ := onTerminal(t, program, "run", "--web.listen-address="+freeAddress(t), "--log.level=debug", "--", "sh", "-c",
		`'test -t 1 && test -t 2 && echo all are terminals; read line'`)
	for _, want := range []string{"all are terminals", `reason="the server writes to a terminal"`} {
		await(t, want, func() bool { return strings.Contains(p.output(t, p.stdout), want) })
	}
}

// Many servers open /dev/stderr by its name, some when they have another user already.
func TestAServerOpensItsStreamsByTheirNames(t *testing.T) {
	need(t, pythonPeers()...)
	if os.Getuid() != 0 {
		t.Skip("want root, to become another user")
	}
	const script = `
import os
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
for name in '/dev/stdout', '/proc/self/fd/1':
    with open(name, 'a') as f:
        f.write(name + '\n')
with open('/dev/stdout', 'w') as f:
    f.write('anew\n')
`
	r, w := openPipe(t)
	all := drain(r)
	stderr := filepath.Join(t.TempDir(), "stderr")
	e := startTo(t, w, create(t, stderr), []string{pythonPath, "-c", script})
	status := e.status(t)
	_ = w.Close()
	if got, want := string(<-all), "/dev/stdout\n/proc/self/fd/1\nanew\n"; status != 0 || got != want {
		said, _ := os.ReadFile(stderr)
		t.Errorf("status %d, %q; want %q\n%s", status, got, want, said)
	}
}

// Who keeps the server's streams open when it has ended keeps us not, and can write on.
func TestWhoOutlivesTheServerDoesNotKeepUs(t *testing.T) {
	r, w := openPipe(t)
	gate := filepath.Join(t.TempDir(), "gate")
	must(t, unix.Mkfifo(gate, 0o600))
	e := startTo(t, w, create(t, filepath.Join(t.TempDir(), "stderr")), []string{"setsid", "-f", "sh", "-c", `read word <` + gate + `; echo $word`})
	if status := e.status(t); status != 0 {
		t.Errorf("status %d, want 0", status)
	}
	_ = w.Close()
	must(t, os.WriteFile(gate, []byte("farewell\n"), 0))
	if got := string(<-drain(r)); got != "farewell\n" {
		t.Errorf("%q came out", got)
	}
}

func TestAServerThatIsStartedAgainWritesToTheSamePlace(t *testing.T) {
	r, w := openPipe(t)
	all := drain(r)
	dir := t.TempDir()
	e := startTo(t, w, create(t, filepath.Join(dir, "stderr")), []string{"sh", "-c",
		`echo again; test -e $0/once && exit 0; touch $0/once; exit 1`, dir}, "--restart=on-failure")
	if status := e.status(t); status != 0 {
		t.Errorf("status %d, want 0", status)
	}
	_ = w.Close()
	if got := string(<-all); got != "again\nagain\n" {
		t.Errorf("%q came out", got)
	}
}

// They write to pipes of ours, which are pipes to begin with.
func TestRealServersRunUnderUsWithPipes(t *testing.T) {
	for name, b := range breeds() {
		t.Run(name, func(t *testing.T) {
			b.start = startPiped
			w := b.run(t)
			w.awaitWorkers(t, workers, nil)
			w.isReloaded(t, b.reload)
			if b.handsOn != 0 {
				w.handsOver(t)
				w.isReloaded(t, b.reload)
			}
			w.finishes(t)
		})
	}
}

// A server that is told to stop by our end goes on to do that in order, and says so.
func TestAServerThatLogsStopsInOrderWhenWeAreKilled(t *testing.T) {
	for name, lastWords := range map[string]string{ // TERM has the others cut off requests
		"gunicorn": "Shutting down: Master", "uWSGI": "goodbye to uWSGI.", "puma": "- Gracefully shutting down workers...",
	} {
		t.Run(name, func(t *testing.T) {
			b := breeds()[name]
			b.start = startPiped
			w := b.run(t)
			w.awaitWorkers(t, workers, nil)
			answer := make(chan error, 1)
			go func() { answer <- w.ask("/wait") }()
			w.tells(t, 1, "app_requests_total", "method", "GET", "path", "/wait")
			pids := append(w.children(t), w.workers(t)...)
			w.signal(syscall.SIGKILL)
			w.status(t)
			must(t, os.WriteFile(w.gate, nil, 0o644))
			must(t, <-answer)
			awaitEnd(t, pids)
			await(t, "its last words", func() bool { return strings.Contains(w.output(t, w.stdout)+w.output(t, w.stderr), lastWords) })
		})
	}
}

// Each sidecar hears what the server says from then on, wherever that goes.
func TestTheSidecarHearsTheServer(t *testing.T) {
	const script = `while read n; do echo; echo "[2026-11-21 23:23:51 +0000] [100] [CRITICAL] WORKER TIMEOUT (pid:$n)"; done`
	for name, open := range map[string]func(t *testing.T) *os.File{
		"through a pipe": func(t *testing.T) *os.File {
			r, w := openPipe(t)
			drain(r)
			return w
		},
		"out of a file": func(t *testing.T) *os.File { return create(t, filepath.Join(t.TempDir(), "stdout")) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			gate, log := filepath.Join(dir, "gate"), filepath.Join(dir, "stderr")
			must(t, unix.Mkfifo(gate, 0o600))
			e := startTo(t, open(t), create(t, log), []string{"sh", "-c", "exec <" + gate + "; " + script}, "--log.level=debug")
			words, err := os.OpenFile(gate, os.O_WRONLY, 0)
			must(t, err)
			defer func() { _ = words.Close() }()
			for n := range 3 {
				e.awaitPage(t, e.process, "/-/healthy")
				awaitNil(t, "the sidecar to hear of it", func() error {
					_, err := fmt.Fprintln(words, 1000+n) // it may not listen yet
					must(t, err)
					said, err := os.ReadFile(log)
					must(t, err)
					if !strings.Contains(string(said), fmt.Sprintf("what=worker_timeout by=100 pid=%d ", 1000+n)) {
						return errors.New("not yet")
					}
					return nil
				})
				pid := e.sidecar(t)
				must(t, syscall.Kill(pid, syscall.SIGKILL))
				awaitEnd(t, []int{pid})
			}
		})
	}
}
