//go:build !linux

package watch

import "golang.org/x/sys/unix"

const openPath = unix.O_RDONLY | unix.O_DIRECTORY
