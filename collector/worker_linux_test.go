package collector

import (
	"os"
	"testing"

	"github.com/prefork-exporter/prefork_exporter/collector/watch"
)

func TestWhatTheKernelTellsOfAProcess(t *testing.T) {
	line := "7 (a ) b (c) S 1 7 7 0 -1 4194304 100 0 0 0 250 50 30 10 20 0 3 0 4242 1000000 500 18446744073709551615 0 0\n"
	got, err := parseStat([]byte(line), 4096)
	if want := (workerProcess{residentBytes: 500 * 4096, used: watch.Used{User: 2.8, System: .6}, threads: 3}); err != nil || got != want {
		t.Errorf("%+v, %v; want %+v", got, err, want)
	}
	for _, broken := range []string{"", "7", "7 (x)", "7 (x) S 1", "7 (x) S 1 7 7 0 -1 4194304 100 0 0 0 a 50 0 0 20 0 3 0 4242 1 5"} {
		if got, err := parseStat([]byte(broken), 4096); err == nil {
			t.Errorf("%q: %+v, want an error", broken, got)
		}
	}
	self, err := readWorker(os.Getpid())
	if err != nil || self.residentBytes < 1<<20 || self.threads < 1 {
		t.Errorf("this process: %+v, %v", self, err)
	}
	if _, err := readWorker(1 << 30); err == nil {
		t.Error("a process that is not there was read")
	}
}
