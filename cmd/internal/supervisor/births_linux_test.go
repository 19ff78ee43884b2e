package supervisor

import (
	"os"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// TestAttackManyBirths starts ten thousand workers that end at once, with PREFORK_ATTACK=1.
func TestAttackManyBirths(t *testing.T) {
	births := int64(300)
	if os.Getenv("PREFORK_ATTACK") == "1" {
		births = 10_000
	}
	s := spawner(t)
	reached := make(chan bool)
	var told atomic.Bool
	v := New(Options{
		Workers: 2, Backoff: Backoff{}, StopTimeout: time.Second, ReadyAfter: time.Hour, StartTimeout: time.Hour, Logger: discard(),
		Launch: func(b Birth) (Process, error) { return s.Launch(Command{Args: []string{"true"}}, b) },
		Report: func(r Report) {
			if r.Births >= births && told.CompareAndSwap(false, true) {
				close(reached)
			}
		},
	})
	before, memory := descriptors(t), heap()
	over := make(chan error, 1)
	began := time.Now()
	go func() { over <- v.Run(t.Context()) }()
	<-reached
	spent := time.Since(began)
	if err := v.Obey(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	if err := <-over; err != nil {
		t.Error(err)
	}
	if after := descriptors(t); after > before+2 { // the poller's
		t.Errorf("%d descriptors after %d births, and %d before", after, births, before)
	}
	if more := int64(heap()) - int64(memory); more > 1<<20 {
		t.Errorf("%d bytes more on the heap after %d births", more, births)
	}
	t.Logf("%d births, %v from one to the next", births, spent/time.Duration(births))
}

// heap returns the bytes of living objects.
func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
