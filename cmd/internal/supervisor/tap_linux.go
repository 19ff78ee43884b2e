package supervisor

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// tap is a pipe in the place of one that a server would write to. What comes out goes on
// there, all of it and in order, and to who looks on as far as there is room: nobody waits
// for that. The server waits for who reads behind us, as it would without us, and learns
// when nobody does any more.
type tap struct {
	in, out int
	side    int // of who looks on; never blocks
	wake    int // an eventfd: what is in the pipe by then is the last of the server's
	told    int // gets a byte for each move of that, and ends with it; never blocks

	last   bool // and left bytes are still to go on
	left   int
	gap    bool // there was no room for what came last
	copies bool // the kernel cannot move between these two
}

// tapEnds are the other ends of a tap.
type tapEnds struct {
	Server *os.File // the server writes to
	View   *os.File // who looks on reads
	wake   *os.File // has it finish
	told   *os.File // tells that it does
}

// gapMark is what who looks on reads in the place of bytes that it has missed. What is
// before and behind it, up to the ends of their lines, are parts.
const gapMark = 0

const (
	tapChunk = 64 << 10 // as much as a pipe has room for
	tapRoom  = 1 << 20  // that of who looks on: a line may take a page of it
)

// openTap puts a tap before the descriptor out, which is one of a pipe, and stays the
// caller's.
func openTap(out int) (t *tap, ends *tapEnds, err error) {
	var before unix.Stat_t
	if err := unix.Fstat(out, &before); err != nil {
		return nil, nil, fmt.Errorf("look at the server's output: %w", err)
	}
	var way, side, told [2]int
	err = errors.Join(unix.Pipe2(way[:], unix.O_CLOEXEC), unix.Pipe2(side[:], unix.O_CLOEXEC), unix.Pipe2(told[:], unix.O_CLOEXEC|unix.O_NONBLOCK))
	if err != nil {
		return nil, nil, fmt.Errorf("make a pipe for the server's output: %w", err)
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		return nil, nil, fmt.Errorf("make an event for the server's output: %w", err)
	}
	// Whoever could open the pipe by a name such as /dev/stderr still can, and also a worker
	// that has another user by now.
	_ = unix.Fchown(way[1], int(before.Uid), int(before.Gid))
	_ = unix.Fchmod(way[1], before.Mode&0o777|0o222)
	_, _ = unix.FcntlInt(uintptr(side[1]), unix.F_SETPIPE_SZ, tapRoom) // it is a favour
	_ = unix.SetNonblock(side[1], true)
	file := func(fd int, name string) *os.File { return os.NewFile(uintptr(fd), name) }
	return &tap{in: way[0], out: out, side: side[1], wake: wake, told: told[1]},
		&tapEnds{Server: file(way[1], "server"), View: file(side[0], "view"), wake: file(wake, "wake"), told: file(told[0], "told")}, nil
}

// close closes what is the tap's own.
func (t *tap) close() {
	for _, fd := range []int{t.in, t.side, t.told} {
		_ = unix.Close(fd)
	}
}

// run hands on until nobody writes or nobody reads any more.
func (t *tap) run() {
	defer t.close() // the server's next write fails
	for t.await() {
		n := t.show()
		if err := t.pass(n); err != nil {
			return
		}
	}
}

// await waits until there is something to hand on. It says whether that makes sense.
func (t *tap) await() bool {
	for {
		t.tell()
		files := []unix.PollFd{{Fd: int32(t.in), Events: unix.POLLIN}, {Fd: int32(t.out)}, {Fd: int32(t.wake), Events: unix.POLLIN}}
		if t.last {
			files = files[:2]
		}
		_, err := unix.Poll(files, -1)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return false
		case !t.last && files[2].Revents != 0:
			t.last, t.left = true, t.waiting()
			continue
		}
		return files[0].Revents&unix.POLLIN != 0 // else nobody writes any more, or nobody reads
	}
}

// tell tells how the last of the server's goes on.
func (t *tap) tell() {
	switch {
	case !t.last || t.told < 0:
	case t.left > 0:
		_, _ = unix.Write(t.told, []byte{1})
	default:
		_ = unix.Close(t.told)
		t.told = -1
	}
}

// waiting returns how much is in the pipe.
func (t *tap) waiting() int {
	n, _ := unix.IoctlGetInt(t.in, unix.TIOCINQ)
	return n
}

// show shows what is in the pipe as far as there is room, and returns how much has to go
// on before it may show more.
func (t *tap) show() int {
	if !t.gap || t.mark() {
		n, err := unix.Tee(t.in, t.side, tapChunk, unix.SPLICE_F_NONBLOCK)
		if t.gap = err != nil || n <= 0; !t.gap {
			return int(n)
		}
	}
	return min(tapChunk, t.waiting())
}

// mark tells of a gap, if there is room for that.
func (t *tap) mark() bool {
	n, _ := unix.Write(t.side, []byte{gapMark})
	return n == 1
}

// pass has so many bytes go on.
func (t *tap) pass(n int) error {
	for n > 0 {
		moved, err := t.move(n)
		switch {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EPIPE) || t.copies && err != nil:
			return err
		case err != nil:
			t.copies = true
		case moved == 0:
			return errors.New("nobody writes any more")
		}
		n -= moved
		t.left -= moved
	}
	return nil
}

// move has up to n bytes go on.
func (t *tap) move(n int) (moved int, err error) {
	if t.copies {
		return t.copy(n)
	}
	spliced, err := unix.Splice(t.in, nil, t.out, nil, n, 0)
	return max(0, int(spliced)), err
}

// copy has up to n bytes go on where the kernel cannot move them.
func (t *tap) copy(n int) (moved int, err error) {
	chunk := make([]byte, min(n, tapChunk))
	n, err = unix.Read(t.in, chunk)
	for chunk = chunk[:max(0, n)]; err == nil && moved < len(chunk); {
		n, err = unix.Write(t.out, chunk[moved:])
		switch moved += max(0, n); {
		case errors.Is(err, unix.EAGAIN): // somebody else who has it does not want to wait
			_, err = unix.Poll([]unix.PollFd{{Fd: int32(t.out), Events: unix.POLLOUT}}, -1)
		case errors.Is(err, unix.EINTR):
			err = nil
		}
	}
	return moved, err
}
