package watch

import "golang.org/x/sys/unix"

// openPath opens a directory only to find others below it: that needs no permission to
// read it.
const openPath = unix.O_PATH | unix.O_DIRECTORY
