package exits

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What linux/pidfd.h has of PIDFD_GET_INFO. The struct has grown since it was published
// with 64 bytes, and the number of the call has its size in it: every kernel takes that
// of the first, and leaves out what does not fit.
//
//	 0  mask       u64   which fields are wanted, then which are there
//	 8  …                control group, ids and users
//	60  exit_code  s32   as wait(2) tells it
const (
	infoSize     = 64
	infoCall     = 3<<30 | infoSize<<16 | 0xff<<8 | 11 // _IOWR(0xff, 11, 64 bytes)
	infoMask     = 0
	infoExitCode = 60
	infoExit     = 1 << 3 // PIDFD_INFO_EXIT, since Linux 6.15
)

var errNoStatus = errors.New("the pidfd has no exit status")

// infoStatus asks a pidfd how its process has ended, which it knows once its parent has
// waited for it. (The first releases of Linux 6.15 tell the end of the first thread, where
// that has ended before the others.)
func infoStatus(pidfd int) (unix.WaitStatus, error) {
	var b [infoSize]byte
	binary.NativeEndian.PutUint64(b[infoMask:], infoExit)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(pidfd), infoCall, uintptr(unsafe.Pointer(&b[0])))
	if errno != 0 {
		return 0, os.NewSyscallError("PIDFD_GET_INFO", errno)
	}
	return parseInfo(b)
}

func parseInfo(b [infoSize]byte) (unix.WaitStatus, error) {
	if binary.NativeEndian.Uint64(b[infoMask:])&infoExit == 0 {
		return 0, errNoStatus
	}
	return unix.WaitStatus(binary.NativeEndian.Uint32(b[infoExitCode:])), nil
}

// probeWithin bounds the end of a thread, which takes no time.
const probeWithin = 5000 // in ms

// probeInfo finds out whether a pidfd tells an exit status, by one of a thread of ours that
// ends: what kernels claim to know differs between versions, and sandboxes refuse.
func probeInfo() error {
	opened := make(chan error)
	pidfd := -1
	go onThread(func() {
		var err error
		pidfd, err = unix.PidfdOpen(unix.Gettid(), unix.O_EXCL) // PIDFD_THREAD, since Linux 6.9
		opened <- os.NewSyscallError("pidfd_open", err)
	})
	if err := <-opened; err != nil {
		return err
	}
	defer func() { _ = unix.Close(pidfd) }()
	if err := awaitHangup(pidfd); err != nil {
		return err
	}
	_, err := infoStatus(pidfd)
	return err
}

func awaitHangup(fd int) error {
	for {
		fds := []unix.PollFd{{Fd: int32(fd)}} // hanging up is always told
		n, err := unix.Poll(fds, probeWithin)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return os.NewSyscallError("poll", err)
		case n == 0:
			return fmt.Errorf("wait for a thread to end: %w", os.ErrDeadlineExceeded)
		default:
			return nil
		}
	}
}

// onThread calls f on a thread that ends then, as one does whose goroutine returns while it
// is locked to it.
func onThread(f func()) {
	runtime.LockOSThread()
	if unix.Gettid() != unix.Getpid() {
		f()
		return
	}
	// The first thread never ends. No other goroutine gets it while this one holds it.
	done := make(chan struct{})
	go func() {
		defer close(done)
		onThread(f)
	}()
	<-done
	runtime.UnlockOSThread()
}
