package middleware

import (
	"bytes"
	"os"
	"strconv"
)

// residentMemory returns the bytes of memory that this process has; zero if nobody knows.
func residentMemory() int64 {
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	fields := bytes.Fields(b) // proc_pid_statm(5): size, resident, …, in pages
	if len(fields) < 2 {
		return 0
	}
	pages, err := strconv.ParseInt(string(fields[1]), 10, 64)
	if err != nil {
		return 0
	}
	return pages * int64(os.Getpagesize())
}
