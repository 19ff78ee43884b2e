package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"time"
)

// birthPoint is the state of a master after its workers ended and were born so often.
type birthPoint struct {
	births    int // that were followed by an end
	perSecond float64
	files     int
	memory    memory
	pss       int64
	sidecar   int64 // its RSS
}

// measureBirths has workers end at once, and looks at the master at the start, after a tenth and at the end.
// No backoff would let them come so fast if they failed. They say that they have served enough instead, after
// which a slot waits for 100 ms. The master is looked at while all workers live: each costs a descriptor.
func (b *bench) measureBirths(ctx context.Context) (err error) {
	socket := filepath.Join(b.ws.scratch, "births")
	m, err := b.startMaster(ctx, mostWorkers, []string{"--ready-after=100ms"}, b.ws.program("newborn"), socket, "ends")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.close()) }()
	point := birthPoint{perSecond: math.NaN()} // none yet
	for _, births := range []int{0, b.options.births / 10, b.options.births} {
		more := births - point.births
		if more <= 0 && births > 0 {
			continue // of a short run: those that came last were more
		}
		if more > 0 {
			if err := m.bear(ctx, socket, more, &point); err != nil {
				return err
			}
		}
		if err := m.lookAt(ctx, &point); err != nil {
			return err
		}
		b.report.births = append(b.report.births, point)
	}
	return nil
}

// bear lets the workers end, until so many more are born.
func (m *master) bear(ctx context.Context, socket string, more int, point *birthPoint) (err error) {
	births, err := hearBirths(ctx, socket)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, births.close()) }()
	began := time.Now()
	for range more {
		if _, err := births.next(patience); err != nil {
			return err
		}
	}
	point.perSecond = float64(more) / time.Since(began).Seconds()
	last, err := births.last()
	point.births += more + last
	return err
}

// lookAt measures the master at rest. All births that were heard of must have ended, and be counted.
func (m *master) lookAt(ctx context.Context, point *birthPoint) error {
	seen, err := m.await(ctx, "workers at rest", m.rests)
	if err != nil {
		return err
	}
	if ended := seen.sum("prefork_worker_exits_total"); int(ended) != point.births {
		return fmt.Errorf("%v ends of workers counted, and %d heard of", ended, point.births)
	}
	point.sidecar = int64(seen["prefork_exporter_process_resident_memory_bytes"])
	if point.memory, err = m.memory(); err != nil {
		return err
	}
	if point.pss, err = proportionalMemory(m.pid()); err != nil {
		return err
	}
	point.files, err = openFiles(m.pid())
	return err
}
