package collector

import (
	"bytes"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/prefork-exporter/prefork_exporter/collector/internal/procfs"
)

// process is what the kernel tells of this process.
type process struct {
	cpuSeconds                float64
	residentBytes, totalBytes float64
	openFiles, maxFiles       float64
}

// readProcess asks the kernel with four calls. client_golang's collector reads
// the network's counters as well, which takes ten times as long as a small merge.
func readProcess() (process, error) {
	var p process
	var usage unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &usage); err != nil {
		return p, err
	}
	p.cpuSeconds = (time.Duration(usage.Utime.Nano()) + time.Duration(usage.Stime.Nano())).Seconds()
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return p, err
	}
	p.maxFiles = float64(limit.Cur)
	statm, err := readShort("/proc/self/statm")
	if err != nil {
		return p, err
	}
	fields := bytes.Fields(statm)
	page := float64(os.Getpagesize())
	for i, to := range []*float64{&p.totalBytes, &p.residentBytes} {
		n, err := strconv.ParseFloat(string(fields[i]), 64)
		if err != nil {
			return p, err
		}
		*to = n * page
	}
	p.openFiles, err = countFiles()
	return p, err
}

// readShort reads a small file of the kernel's. An [os.File] would be announced
// to the poller first, which takes longer than to read it.
func readShort(path string) ([]byte, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = unix.Close(fd) }()
	b := make([]byte, 256)
	n, err := unix.Read(fd, b)
	return b[:max(n, 0)], err
}

// countFiles counts the open descriptors. Since Linux 6.2 the size of the
// directory tells.
func countFiles() (float64, error) {
	info, err := os.Stat("/proc/self/fd")
	if err != nil {
		return 0, err
	}
	if info.Size() > 0 {
		return float64(info.Size()), nil
	}
	names, err := os.ReadDir("/proc/self/fd")
	return float64(len(names)), err
}

// startTime returns when this process began, in seconds since the epoch.
func startTime() (float64, error) {
	stat, err := procfs.New("/proc").Stat(os.Getpid())
	if err != nil {
		return 0, err
	}
	boot, err := procfs.Boot()
	if err != nil {
		return 0, err
	}
	return unixSeconds(stat.Born(boot)), nil
}
