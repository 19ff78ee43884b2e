package middleware

import (
	"log/slog"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prefork-exporter/prefork_exporter/registry/notify"
)

// Limits say when a worker has served enough. What is zero does not limit it.
type Limits struct {
	// Requests is after how many requests, and up to RequestsJitter more: drawn
	// once, so that workers that began together do not stop together.
	Requests, RequestsJitter int

	// Lifetime is after how long, and up to LifetimeJitter more.
	Lifetime, LifetimeJitter time.Duration

	// Memory is with how many bytes of resident memory. It is looked at after a
	// request, once a second at most.
	Memory int64

	// Retire has the worker stop, without cutting off what it is serving. It is
	// called once, on a goroutine of its own, when the parent has been told the
	// reason: max_requests, max_lifetime or max_memory. Nil: the process gets a
	// SIGTERM, as from a supervisor that stops it.
	Retire func(reason string)
}

// The reasons, as prefork_worker_restart_total has them.
const (
	maxRequests = "max_requests"
	maxLifetime = "max_lifetime"
	maxMemory   = "max_memory"
)

// retirement watches the limits of one worker.
type retirement struct {
	requests int64
	memory   int64
	retire   func(reason string)
	once     sync.Once

	count  atomic.Int64
	looked atomic.Int64 // when memory was looked at, in nanoseconds since began
	began  time.Time
}

func newRetirement(l Limits) *retirement {
	r := &retirement{memory: l.Memory, retire: l.Retire, began: time.Now()}
	if r.retire == nil {
		r.retire = func(string) { _ = syscall.Kill(os.Getpid(), syscall.SIGTERM) }
	}
	if l.Requests > 0 {
		r.requests = int64(l.Requests) + rand.Int64N(int64(max(l.RequestsJitter, 0))+1)
	}
	if l.Lifetime > 0 {
		time.AfterFunc(l.Lifetime+rand.N(max(l.LifetimeJitter, 0)+1), func() { r.now(maxLifetime) })
	}
	return r
}

// served counts a request.
func (r *retirement) served() {
	if r.requests > 0 && r.count.Add(1) >= r.requests {
		r.now(maxRequests)
	}
	if r.memory > 0 && r.due() && residentMemory() >= r.memory {
		r.now(maxMemory)
	}
}

// due says once a second that it is time to look at the memory.
func (r *retirement) due() bool {
	last, now := r.looked.Load(), time.Since(r.began).Nanoseconds()
	return (last == 0 || now-last >= int64(time.Second)) && r.looked.CompareAndSwap(last, now)
}

// now retires the worker, if it has not.
func (r *retirement) now(reason string) {
	r.once.Do(func() {
		go func() {
			if err := notify.Stopping(reason); err != nil {
				slog.Default().Warn("a worker retires unannounced", "reason", reason, "err", err)
			}
			r.retire(reason)
		}()
	})
}
