package supervisor

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// shimName is what this program is called when it is to become a worker that
// inherits sockets: only a process itself knows its id, which LISTEN_PID has to be.
const shimName = "prefork_exporter: worker"

// exitShim is with what a worker ends whose program cannot be run, as with a shell.
const exitShim = 126

// Shim becomes the worker that the arguments of this process name, if it was called
// as the shim, or hands on what a server writes, if it was called for that. It returns
// when it was called for neither. It must be called before anything else.
func Shim() {
	if len(os.Args) == 2 && os.Args[0] == tapName {
		n, _ := strconv.Atoi(os.Args[1])
		runTaps(n)
		os.Exit(0)
	}
	if len(os.Args) < 3 || os.Args[0] != shimName {
		return
	}
	path, args := os.Args[1], os.Args[2:]
	env := append(os.Environ(), "LISTEN_PID="+strconv.Itoa(os.Getpid()))
	err := syscall.Exec(path, args, env)
	fmt.Fprintf(os.Stderr, "prefork_exporter: run %s: %v\n", strings.Join(args, " "), err)
	os.Exit(exitShim)
}
