package writer

import (
	"math"
	"runtime/debug"
	"sync/atomic"
)

// cell is where a sample has its value and its time stamp: the bits of float64s
// in the mapping of a file, or in memory when there is no room.
//
// A page of the mapping is gone when another program cuts the file. The access
// then panics, as the runtime is asked to let it, and survive puts memory in the
// place of the mapping. That access is lost, as all that the file had, and it
// leaves its goroutine with panics for faults. The guard is most of what a method
// here costs over its atomic instruction: written out in each, without a result
// and with nothing kept for the panic, it costs least.
type cell struct {
	value, stamp *uint64
	file         *file
}

// inc adds 1.
func (c *cell) inc() {
	done := false
	defer func() {
		if !done {
			c.file.survive(recover())
		}
	}()
	was := debug.SetPanicOnFault(true)
	if !tryAdd(c.value, 1) {
		addContended(c.value, 1)
	}
	debug.SetPanicOnFault(was)
	done = true
}

// add adds v.
func (c *cell) add(v float64) {
	done := false
	defer func() {
		if !done {
			c.file.survive(recover())
		}
	}()
	was := debug.SetPanicOnFault(true)
	if !tryAdd(c.value, v) {
		addContended(c.value, v)
	}
	debug.SetPanicOnFault(was)
	done = true
}

// set sets the value.
func (c *cell) set(v float64) {
	done := false
	defer func() {
		if !done {
			c.file.survive(recover())
		}
	}()
	was := debug.SetPanicOnFault(true)
	atomic.StoreUint64(c.value, math.Float64bits(v))
	debug.SetPanicOnFault(was)
	done = true
}

// setStamp sets the time stamp, in seconds since the epoch.
func (c *cell) setStamp(unix float64) {
	stamp := cell{value: c.stamp, file: c.file}
	stamp.set(unix)
}

// load returns the value.
func (c *cell) load() (v float64) {
	done := false
	defer func() {
		if !done {
			c.file.survive(recover())
		}
	}()
	was := debug.SetPanicOnFault(true)
	v = math.Float64frombits(atomic.LoadUint64(c.value))
	debug.SetPanicOnFault(was)
	done = true
	return v
}

// tryAdd adds to the float64 whose bits p has, unless another core is faster.
func tryAdd(p *uint64, v float64) bool {
	old := atomic.LoadUint64(p)
	return atomic.CompareAndSwapUint64(p, old, math.Float64bits(math.Float64frombits(old)+v))
}

// addContended adds after another core was faster. It stands back, longer each
// time: to move a cache line between cores costs more than many additions.
func addContended(p *uint64, v float64) {
	const first, last = 1 << 11, 1 << 14
	for wait := first; ; wait = min(2*wait, last) {
		for range wait {
			pause()
		}
		if tryAdd(p, v) {
			return
		}
	}
}

// pause takes about a nanosecond.
//
//go:noinline
func pause() {}
