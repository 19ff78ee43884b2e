package middleware

import (
	"cmp"
	"log/slog"
	"math/rand/v2"
	"os"
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

	// Drain is for how long answers then tell their clients to close the connection,
	// before Retire is called: a request on a connection that closes would be lost.
	// Zero: a second.
	Drain time.Duration

	// Retire has the worker stop, without cutting off what it is serving. It is
	// called once, on a goroutine of its own. The parent has been told the reason
	// before Drain: max_requests, max_lifetime or max_memory. Nil: the process gets a
	// SIGTERM, as from a supervisor that stops it, which it has to handle.
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
	drain    time.Duration
	retire   func(reason string)
	retiring atomic.Bool

	count  atomic.Int64
	looked atomic.Int64 // when memory was looked at, in nanoseconds since began
	began  time.Time
}

func newRetirement(l Limits) *retirement {
	r := &retirement{memory: l.Memory, drain: cmp.Or(l.Drain, time.Second), retire: l.Retire, began: time.Now()}
	if r.retire == nil {
		r.retire = func(string) { _ = syscall.Kill(os.Getpid(), syscall.SIGTERM) }
	}
	if l.Requests > 0 {
		r.requests = int64(upTo(l.Requests, l.RequestsJitter))
	}
	if l.Lifetime > 0 {
		time.AfterFunc(upTo(l.Lifetime, l.LifetimeJitter), func() { r.begin(maxLifetime) })
	}
	return r
}

// upTo returns least, or up to jitter more, where there is such a number.
func upTo[N int | time.Duration](least, jitter N) N {
	if jitter > 0 {
		return max(least, least+rand.N(jitter))
	}
	return least
}

// begun says whether the worker retires.
func (r *retirement) begun() bool { return r.retiring.Load() }

// served counts a request. About once a second it looks at the memory, and tells.
func (r *retirement) served(now time.Time, tell func(now time.Time, memory int64)) {
	if r.requests > 0 && r.count.Add(1) >= r.requests {
		r.begin(maxRequests)
	}
	if !r.due(now) {
		return
	}
	memory := residentMemory()
	tell(now, memory)
	if r.memory > 0 && memory >= r.memory {
		r.begin(maxMemory)
	}
}

// due says once a second that it is time to look at the memory.
func (r *retirement) due(now time.Time) bool {
	last, age := r.looked.Load(), now.Sub(r.began).Nanoseconds()
	return (last == 0 || age-last >= int64(time.Second)) && r.looked.CompareAndSwap(last, age)
}

// begin retires the worker, if it does not already.
func (r *retirement) begin(reason string) {
	if !r.retiring.CompareAndSwap(false, true) {
		return
	}
	go func() {
		if err := notify.Stopping(reason); err != nil {
			slog.Default().Warn("a worker retires unannounced", "reason", reason, "err", err)
		}
		time.Sleep(r.drain)
		r.retire(reason)
	}()
}
