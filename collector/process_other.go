//go:build !linux

package collector

import "errors"

// process is what the kernel tells of this process.
type process struct {
	cpuSeconds                float64
	residentBytes, totalBytes float64
	openFiles, maxFiles       float64
}

var errNoProcess = errors.New("process metrics are read on Linux only")

func readProcess() (process, error) { return process{}, errNoProcess }

func startTime() (float64, error) { return 0, errNoProcess }
