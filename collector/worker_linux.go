package collector

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
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
	const utime, stime, threads, start, rss = 14 - 3, 15 - 3, 20 - 3, 22 - 3, 24 - 3
	if end < 0 || len(fields) <= rss {
		return p, fmt.Errorf("read a process's stat: %d fields behind its name", len(fields))
	}
	for field, to := range map[int]*float64{utime: &p.userSeconds, stime: &p.systemSeconds, threads: &p.threads, rss: &p.residentBytes} {
		if *to, err = strconv.ParseFloat(string(fields[field]), 64); err != nil {
			return p, fmt.Errorf("read a process's stat: %w", err)
		}
	}
	p.userSeconds, p.systemSeconds = p.userSeconds/ticksPerSecond, p.systemSeconds/ticksPerSecond
	p.residentBytes *= pageSize
	p.startTicks, err = strconv.ParseUint(string(fields[start]), 10, 64)
	return p, err
}
