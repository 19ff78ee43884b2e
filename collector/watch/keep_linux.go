package watch

import (
	"maps"
	"os"
	"time"

	"github.com/prefork-exporter/prefork_exporter/collector/internal/procfs"
)

// slotKeeper has the slots outlive the exporter. It is for one goroutine.
type slotKeeper struct {
	slots *slots
	file  string // empty: they do not
	proc  procfs.FS

	boot  string              // which run of the machine this is
	saved map[identity]string // what the file has
	since time.Time           // when the exporter began to look for who lives still
}

func (k *slotKeeper) load() error {
	if k.file == "" {
		return nil
	}
	k.boot = k.proc.BootID()
	err := k.slots.load(k.file, k.boot)
	k.saved, k.since = maps.Clone(k.slots.of), time.Now()
	return err
}

// save writes what has changed. Who had a slot and is not there after a moment has left it.
func (k *slotKeeper) save(living map[identity]*member) error {
	if k.file == "" {
		return nil
	}
	if time.Since(k.since) > calm {
		k.slots.keep(living)
	}
	if maps.Equal(k.saved, k.slots.of) {
		return nil
	}
	k.saved = maps.Clone(k.slots.of)
	return k.slots.save(k.file, k.boot)
}

// memoryKills finds out when the kernel kills processes for want of memory.
type memoryKills struct {
	read  func() (int64, bool) // how many it has killed so far; nil: nobody knows
	last  int64
	known bool
}

// news returns how many more it has killed than when it was asked before.
func (k *memoryKills) news() int {
	if k.read == nil {
		return 0
	}
	n, ok := k.read()
	if !ok {
		k.known = false
		return 0
	}
	more := n - k.last
	if !k.known || more < 0 {
		more = 0 // of another group, perhaps
	}
	k.last, k.known = n, true
	return int(min(more, 1000))
}

// pageSize returns the bytes of a page of memory.
func pageSize() float64 { return float64(os.Getpagesize()) }
