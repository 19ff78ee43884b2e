package app

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

func TestWhatOnlyTheStartHasNeededLeavesMemory(t *testing.T) {
	before := residentFiles(t)
	leaveProgram()
	if after := residentFiles(t); after >= before {
		t.Errorf("%d KiB of files are resident, %d before", after, before)
	}
}

// residentFiles returns the KiB of files that are in the memory of this process.
func residentFiles(t *testing.T) (kib int) {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	must(t, err)
	for line := range strings.Lines(string(status)) {
		if n, _ := fmt.Sscanf(line, "RssFile: %d kB", &kib); n == 1 {
			return kib
		}
	}
	t.Skip("the kernel does not tell what files are in memory")
	return 0
}
