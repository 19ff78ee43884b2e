package collector

import (
	"fmt"
	"math"
	"strconv"

	"github.com/prefork-exporter/prefork_exporter/multiproc"
	"github.com/prefork-exporter/prefork_exporter/registry"
)

// AnnouncedSlot returns the slot that a worker announces in its own file in one of the
// directories, by [registry.WorkerSlot]; false: it announces none, or its file cannot be read.
func AnnouncedSlot(sources []multiproc.Source, pid int) (slot string, ok bool) {
	for _, s := range sources {
		file, err := s.Inspect(fmt.Sprintf("gauge_liveall_%d.db", pid))
		if err != nil {
			continue // most workers have none
		}
		for _, e := range file.Entries {
			if e.Err == nil && e.Sample == registry.WorkerSlot && isSlot(e.Value) {
				return strconv.Itoa(int(e.Value)), true
			}
		}
	}
	return "", false
}

// isSlot says whether a value may be the number of a worker.
func isSlot(v float64) bool {
	const most = 1 << 16
	return v >= 0 && v < most && v == math.Trunc(v)
}
