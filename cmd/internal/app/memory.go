package app

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
)

// The collector of garbage is for long-lived programs that allocate steadily.
// This one allocates nearly all it needs in its first merge, a little in each
// scrape, and sleeps in between. So it is told when to collect, unless GOGC is
// set.

// Bounds of the heap.
const (
	heapSlack = 2 << 20 // garbage that may lie around when nobody waits
	smallHeap = 8 << 20 // what the heap may grow to in any case before it is collected
)

func setGC(percent int) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(percent)
	}
}

// growFreely is for the first merge, nearly all of which stays.
func growFreely() { setGC(300) }

// saveMemory lets a large heap grow by a third between collections, not to its
// double: a scrape leaves little garbage, and memory is what the host has least
// of. live is what is in use.
func saveMemory(live uint64) {
	slack := max(live/3, heapSlack, smallHeap-min(live, smallHeap))
	setGC(int(min(100*slack/max(live, 1), 400)))
}

// collectGarbage collects what scrapes have left before one of them has to: a
// collection takes longer than most merges.
func collectGarbage() {
	heap := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(heap)
	if heap[1].Value.Uint64() < heap[0].Value.Uint64()+heapSlack {
		return
	}
	runtime.GC()
	metrics.Read(heap)
	saveMemory(heap[0].Value.Uint64())
}
