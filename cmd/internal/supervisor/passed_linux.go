package supervisor

import (
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// passedSockets returns the sockets that whoever started us has opened for us, by
// sd_listen_fds(3), once: nobody else finds them.
func passedSockets() (files []*os.File, names []string) {
	n, err := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	ours := os.Getenv("LISTEN_PID") == strconv.Itoa(os.Getpid())
	named := strings.Split(os.Getenv("LISTEN_FDNAMES"), ":")
	for _, name := range []string{"LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"} {
		_ = os.Unsetenv(name) // it fails for no name like these
	}
	if err != nil || !ours {
		return nil, nil
	}
	for i := range n {
		if _, err := unix.FcntlInt(uintptr(firstExtra+i), unix.F_GETFD, 0); err != nil {
			break // there are no more, whatever their number
		}
		name := "unknown" // as sd_listen_fds_with_names(3) has it
		if i < len(named) && named[i] != "" {
			name = named[i]
		}
		if fd := firstExtra + i; isSocket(fd) {
			files, names = append(files, inherited(fd, name)), append(names, name)
		}
	}
	return files, names
}

func isSocket(fd int) bool {
	_, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	return err == nil
}
