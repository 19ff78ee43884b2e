//go:build !linux

package main

import (
	"errors"
	"time"
)

// cpuTime needs Linux, and so does the whole command; elsewhere it only compiles.
func cpuTime(int) (time.Duration, error) {
	return 0, errors.New("read a CPU clock: want Linux")
}

func describeFileSystem(string) string { return "file system unknown" }
