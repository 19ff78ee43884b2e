package supervisor

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// tapAtWork is a tap that hands on within the test's own process.
type tapAtWork struct {
	*tap
	*tapEnds
	done chan struct{} // closed when nothing goes on any more
}

// newTap returns a tap before w, which is not at work yet.
func newTap(t *testing.T, w *os.File) *tapAtWork {
	t.Helper()
	one, ends, err := openTap(int(w.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	return &tapAtWork{one, ends, make(chan struct{})}
}

func (w *tapAtWork) work(t *testing.T) {
	t.Helper()
	go func() {
		defer close(w.done)
		w.run()
	}()
	t.Cleanup(func() {
		_ = w.Server.Close() // it may be already
		<-w.done
		_, _, _ = w.View.Close(), w.tapEnds.wake.Close(), w.tapEnds.told.Close()
	})
}

// log is the log of a server with one tap.
func (w *tapAtWork) log() *serverLog { return &serverLog{ends: []*tapEnds{w.tapEnds}} }

// tapped returns a tap before w, which is at work.
func tapped(t *testing.T, w *os.File) *tapAtWork {
	t.Helper()
	one := newTap(t, w)
	one.work(t)
	return one
}

// counter counts what it reads.
type counter struct{ n atomic.Int64 }

func (c *counter) Write(b []byte) (int, error) {
	c.n.Add(int64(len(b)))
	return len(b), nil
}

// await waits until so much was read.
func (c *counter) await(n int) {
	for c.n.Load() < int64(n) {
		time.Sleep(time.Millisecond) // nobody tells
	}
}

// counting counts what comes out of r.
func counting(r io.Reader) *counter {
	c := new(counter)
	go func() { _, _ = io.Copy(c, r) }()
	return c
}

// awaitFull waits until a pipe has no room, or hardly any.
func awaitFull(t *testing.T, r *os.File) {
	t.Helper()
	for n := 0; n < 60<<10; time.Sleep(time.Millisecond) { // nobody tells
		var err error
		if n, err = unix.IoctlGetInt(int(r.Fd()), unix.TIOCINQ); err != nil {
			t.Fatal(err)
		}
	}
}

// pipePair returns a pipe whose ends block.
func pipePair(t *testing.T) (r, w *os.File) {
	t.Helper()
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	r, w = os.NewFile(uintptr(fds[0]), "r"), os.NewFile(uintptr(fds[1]), "w")
	t.Cleanup(func() { _, _ = r.Close(), w.Close() })
	return r, w
}

func send(t *testing.T, f *os.File, b []byte) {
	t.Helper()
	if _, err := f.Write(b); err != nil {
		t.Fatal(err)
	}
}

// seen returns what who looks on can read by now.
func seen(t *testing.T, view *os.File) []byte {
	t.Helper()
	n, err := unix.IoctlGetInt(int(view.Fd()), unix.TIOCINQ)
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(view, b); err != nil {
		t.Fatal(err)
	}
	return b
}

// What has no room is missing as a whole, and its place is marked.
func TestWhoLooksOnKnowsWhatItHasMissed(t *testing.T) {
	r, w := pipePair(t)
	one := tapped(t, w)
	out := counting(r)
	const much = 3 << 20
	send(t, one.Server, bytes.Repeat([]byte("x"), much))
	out.await(much)
	first := seen(t, one.View)
	if len(first) == 0 || len(first) >= much || len(bytes.Trim(first, "x")) > 0 {
		t.Errorf("it has seen %d of %d bytes", len(first), much)
	}
	send(t, one.Server, []byte("tail\n"))
	out.await(much + 5)
	if got := string(seen(t, one.View)); got != "\x00tail\n" {
		t.Errorf("then it sees %q", got)
	}
	send(t, one.Server, []byte("more\n"))
	out.await(much + 10)
	if got := string(seen(t, one.View)); got != "more\n" {
		t.Errorf("and %q", got)
	}
}

// The kernel moves nothing into a file to append to.
func TestWhatTheKernelCannotMoveIsCopied(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	one := tapped(t, f)
	want := strings.Repeat("0123456789\n", 20000)
	send(t, one.Server, []byte(want))
	_ = one.Server.Close()
	<-one.done
	if got, err := os.ReadFile(path); err != nil || string(got) != want {
		t.Errorf("%d bytes, %v; want the %d that were written", len(got), err, len(want))
	}
}

// Somebody else who has the pipe may have made it so.
func TestAPipeThatDoesNotBlockIsWaitedFor(t *testing.T) {
	for name, copies := range map[string]bool{"moved": false, "copied": true} {
		t.Run(name, func(t *testing.T) {
			r, w := pipePair(t)
			if err := unix.SetNonblock(int(w.Fd()), true); err != nil {
				t.Fatal(err)
			}
			one := newTap(t, w)
			one.copies = copies
			one.work(t)
			want := bytes.Repeat([]byte("0123456789\n"), 20000)
			go func() {
				_, _ = one.Server.Write(want)
				_ = one.Server.Close()
			}()
			awaitFull(t, r)
			got := make([]byte, len(want))
			if _, err := io.ReadFull(r, got); err != nil || !bytes.Equal(got, want) {
				t.Errorf("other bytes came out, %v", err)
			}
		})
	}
}

// The next write fails: nobody has to write in vain before.
func TestTheEndOfAReaderIsKnownAtOnce(t *testing.T) {
	r, w := pipePair(t)
	one := tapped(t, w)
	_ = r.Close()
	<-one.done
	if _, err := one.Server.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) {
		t.Errorf("a write: %v, want EPIPE", err)
	}
}

// A process that the server has left behind may hold the pipe, and write on: that goes on,
// too, but is not waited for.
func TestOnlyWhatWasWrittenBeforeTheEndIsWaitedFor(t *testing.T) {
	for name, before := range map[string]int{"much": 1 << 20, "nothing": 0} {
		t.Run(name, func(t *testing.T) {
			r, w := pipePair(t)
			one := tapped(t, w)
			out := counting(r)
			held, err := unix.FcntlInt(one.Server.Fd(), unix.F_DUPFD_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			left := os.NewFile(uintptr(held), "left behind")
			defer func() { _ = left.Close() }()
			send(t, one.Server, make([]byte, before))
			stop, over := make(chan struct{}), make(chan struct{})
			go func() {
				defer close(over)
				for written := before; ; written++ {
					select {
					case <-stop:
						out.await(written)
						return
					default:
						_, _ = left.Write([]byte("x"))
					}
				}
			}()
			one.log().finish(nil)
			if n := int(out.n.Load()); n < before-1<<16 { // the reader may still have that before it
				t.Errorf("it has waited for %d bytes of %d", n, before)
			}
			close(stop)
			<-over
		})
	}
}

// Nobody reads: somebody is in a hurry.
func TestTheEndDoesNotWaitForAReaderForEver(t *testing.T) {
	r, w := pipePair(t)
	one := tapped(t, w)
	go func() { _, _ = one.Server.Write(make([]byte, 1<<20)) }()
	awaitFull(t, r)
	hurry := make(chan os.Signal, 2)
	hurry <- syscall.SIGHUP // means nothing here
	hurry <- syscall.SIGTERM
	one.log().finish(hurry)
	if len(hurry) > 0 {
		t.Error("it did not hear that somebody is in a hurry")
	}
	_ = r.Close()
}

// The tap is at work until nobody writes any more, and tells when it has done what was
// to be waited for.
func TestATapTellsHowItGoesOn(t *testing.T) {
	r, w := pipePair(t)
	one := newTap(t, w)
	send(t, one.Server, []byte("last words")) // which nobody hands on yet
	if _, err := one.tapEnds.wake.Write([]byte{1, 0, 0, 0, 0, 0, 0, 0}); err != nil {
		t.Fatal(err)
	}
	one.work(t)
	if told, err := io.ReadAll(one.tapEnds.told); err != nil || len(told) == 0 {
		t.Errorf("it told %d times, %v", len(told), err)
	}
	send(t, one.Server, []byte(", and more"))
	_ = one.Server.Close()
	<-one.done
	_ = w.Close()
	if got, err := io.ReadAll(r); err != nil || string(got) != "last words, and more" {
		t.Errorf("%q, %v", got, err)
	}
}

// A server writes where it would have, without us.
func TestATapThatCannotWorkIsNone(t *testing.T) {
	_, w := pipePair(t)
	l := openServerLog(w, w, func([]*tap) error { return errors.New("no process") })
	if l.Stdout != w || l.Stderr != w || len(l.views) > 0 || l.blind == "" {
		t.Errorf("%+v", l)
	}
}

func TestWhatASidecarIsTold(t *testing.T) {
	r, w := pipePair(t)
	defer func() { _ = r.Close() }()
	file, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = null.Close() }()
	path := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	fifo, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = fifo.Close() }()
	peer, socket, err := socketPair()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = socket.Close(), peer.Close() }()
	for name, tc := range map[string]struct {
		stdout, stderr *os.File
		want           string
		same           bool // for the server, its streams are one file
	}{
		"a pipe and a file":     {w, file, "7,8", false},
		"a pipe for both":       {w, w, "7", true},
		"a file for both":       {file, file, "7", true},
		"a file and no file":    {file, null, "7,the server writes to a device", false},
		"no file and no file":   {null, null, "the server writes to a device", true},
		"a pipe with a name":    {fifo, w, "7,the server writes to a named pipe", false},
		"a socket":              {socket, socket, "the server writes to a socket", true},
		"no file, and one then": {null, file, "7,the server writes to a device", false},
	} {
		t.Run(name, func(t *testing.T) {
			var group sync.WaitGroup
			l := openServerLog(tc.stdout, tc.stderr, func(taps []*tap) error {
				for _, one := range taps {
					group.Go(one.run)
				}
				return nil
			})
			if got := l.variable(7); got != ServerLogVariable+"="+tc.want {
				t.Errorf("%q, want %q", got, tc.want)
			}
			if same := l.Stdout == l.Stderr; same != tc.same {
				t.Errorf("one file for both: %v, want %v", same, tc.same)
			}
			l.finish(nil)
			group.Wait()
			if err := l.close(); err != nil {
				t.Error(err)
			}
		})
	}
	if views, blind := OpenServerLog("the server writes to a socket"); len(views) > 0 || blind != "the server writes to a socket" {
		t.Errorf("%v, %q", views, blind)
	}
	if views, blind := OpenServerLog(""); len(views) > 0 || blind != "" {
		t.Errorf("%v, %q", views, blind)
	}
}
