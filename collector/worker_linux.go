package collector

import (
	"bytes"
	"fmt"
	"os"
	"strconv"

	"github.com/prefork-exporter/prefork_exporter/collector/watch"
)

// readWorker reads proc_pid_stat(5) once.
func readWorker(pid int) (workerProcess, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return workerProcess{}, err
	}
	return parseStat(b, float64(os.Getpagesize()))
}

// ticksPerSecond is the kernel's USER_HZ, the same on every architecture that Go has.
const ticksPerSecond = 100

func parseStat(b []byte, pageSize float64) (p workerProcess, err error) {
	// The name, in brackets, may have anything in it. The state behind it is field 3.
	end := bytes.LastIndexByte(b, ')')
	fields := bytes.Fields(b[end+1:])
	const utime, stime, cutime, cstime, threads, rss = 14 - 3, 15 - 3, 16 - 3, 17 - 3, 20 - 3, 24 - 3
	if end < 0 || len(fields) <= rss {
		return p, fmt.Errorf("read a process's stat: %d fields behind its name", len(fields))
	}
	number := func(field int) (n float64) {
		if err == nil {
			n, err = strconv.ParseFloat(string(fields[field]), 64)
		}
		return n
	}
	p = workerProcess{
		residentBytes: number(rss) * pageSize,
		threads:       number(threads),
		used: watch.Used{ // by what it has waited for, too
			User: (number(utime) + number(cutime)) / ticksPerSecond, System: (number(stime) + number(cstime)) / ticksPerSecond,
		},
	}
	if err != nil {
		return workerProcess{}, fmt.Errorf("read a process's stat: %w", err)
	}
	return p, nil
}
