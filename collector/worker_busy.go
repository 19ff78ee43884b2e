package collector

import (
	"errors"
	"sync"
	"time"

	"github.com/prefork-exporter/prefork_exporter/collector/internal/sockdiag"
	"github.com/prefork-exporter/prefork_exporter/collector/watch"
)

// isServing says whether the server owes the client an answer: it has received data, and
// has sent none since the last of it. So a request counts from its first bytes, while it
// still arrives too, to the first bytes of its response; and to the end if the client
// ends its own side meanwhile. It does not count
//   - while the rest of a response follows its first bytes, as when it is streamed;
//   - if it has arrived in the same tick of the kernel's clock, 1 to 10 ms, as the end of
//     the response before it on this connection: what comes second cannot be told then,
//     and most often it is a response;
//   - while it waits to be accepted: the listen queue has it.
//
// A client that speaks last without asking for anything, as in a handshake of TLS without
// session tickets, counts until it is answered.
func isServing(c sockdiag.Connection) bool {
	return c.Received > 0 && (c.Sent == 0 || c.SinceReceived < c.SinceSent)
}

// What a look at the connections may cost: they come every half second, or take a five
// hundredth of the time. The kernel goes through all connections of the host for it, and
// we through descriptors.
const (
	busyEvery      = 500 * time.Millisecond
	busyRestFactor = 500
	busyPause      = time.Second // while there is no worker
	busyLongest    = 10 * time.Second
	// busyGap is how far looks may be apart: of a longer time nothing is known.
	busyGap = 2*busyLongest + time.Second
	// busyFresh is how old a look may be that a scrape is content with.
	busyFresh = 100 * time.Millisecond
)

// connectionTable is what a [sockdiag.Kernel] does. It is for one goroutine at a time.
type connectionTable interface {
	Listening() (sockdiag.Listening, error)
	Accepted(listening []sockdiag.Socket, each func(sockdiag.Connection)) error
	Sockets(pid, most int, each func(fd string, inode uint64)) (int, error)
	SocketAt(pid int, fd string) (inode uint64, ok bool)
	Close() error
}

// busySampler knows which workers are busy, and for how long they were.
type busySampler struct {
	source watch.Source
	kernel connectionTable

	mu        sync.Mutex
	listeners listenerSearch
	owners    ownerSearch
	last      busyLook

	counted         bool    // it was ever known
	busy, saturated float64 // seconds
}

// busyLook is who was busy at one time.
type busyLook struct {
	at        time.Time
	reason    string // why it is not known; empty: it is, or there was no worker
	busy      map[identity]bool
	saturated bool
}

// newBusySampler returns a sampler of a source's workers. isThere says whether a worker is
// still the process of its id.
func newBusySampler(source watch.Source, kernel connectionTable, isThere func(w watch.Worker) bool) *busySampler {
	return &busySampler{
		source: source, kernel: kernel,
		listeners: listenerSearch{ours: map[sockdiag.ID]serverListener{}, looked: map[identity]bool{}},
		owners: ownerSearch{
			kernel: kernel, isThere: isThere,
			of: map[sockdiag.ID]identity{}, strangers: map[sockdiag.ID]time.Time{}, hot: map[identity][]string{},
		},
	}
}

// Close lets go of what is open.
func (b *busySampler) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.kernel.Close()
}

// tick looks, and returns how long to rest.
func (b *busySampler) tick() time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	began := time.Now()
	b.sample()
	rest := busyEvery
	if len(b.last.busy) == 0 {
		rest = busyPause
	}
	return max(rest, min(busyRestFactor*time.Since(began), busyLongest))
}

// busyState is what a scrape has.
type busyState struct {
	busyLook
	counted                       bool
	busySeconds, saturatedSeconds float64
}

// now returns who is busy, by a look that is new or that others had a moment ago.
func (b *busySampler) now() busyState {
	b.mu.Lock()
	defer b.mu.Unlock()
	if time.Since(b.last.at) >= busyFresh {
		b.sample()
	}
	return busyState{b.last, b.counted, b.busy, b.saturated}
}

// sample looks, and counts the time since the last look with the mean of both.
func (b *busySampler) sample() {
	before := b.last
	b.last = b.look()
	if b.last.reason != "" {
		return
	}
	b.counted = b.counted || len(b.last.busy) > 0
	passed := b.last.at.Sub(before.at)
	if before.reason != "" || passed > busyGap {
		return
	}
	b.busy += float64(before.howMany()+b.last.howMany()) / 2 * passed.Seconds()
	b.saturated += (boolean(before.saturated) + boolean(b.last.saturated)) / 2 * passed.Seconds()
}

func (l busyLook) howMany() (n int) {
	for _, busy := range l.busy {
		if busy {
			n++
		}
	}
	return n
}

// look finds out who is busy.
func (b *busySampler) look() busyLook {
	l := busyLook{at: time.Now()}
	s, _ := b.source.State()
	b.owners.keep(s.Workers)
	if len(s.Workers) == 0 {
		return l
	}
	listening, reason := b.listeners.find(b.kernel, s, l.at)
	if l.reason = reason; reason != "" {
		return l
	}
	serving := map[uint64]sockdiag.ID{}
	still := map[sockdiag.ID]bool{} // of the connections that are known, those that are still there
	err := b.kernel.Accepted(listening, func(c sockdiag.Connection) {
		if b.owners.knows(c.ID) {
			still[c.ID] = true
		}
		if isServing(c) {
			serving[c.ID.Inode] = c.ID
		}
	})
	if err != nil {
		l.reason = whyNoConnections(err)
		return l
	}
	b.owners.forgetAllBut(still)
	l.busy = b.owners.find(s.Workers, serving, l.at)
	l.saturated = allBusy(s.Workers, l.busy)
	return l
}

func whyNoConnections(err error) string {
	if errors.Is(err, sockdiag.ErrOldKernel) {
		return sockdiag.ErrOldKernel.Error()
	}
	return withNumber("the kernel does not answer sock_diag", err)
}

// allBusy says whether every worker that runs is busy, and there is one. Those that start,
// stop or do not answer take no requests.
func allBusy(workers []watch.Worker, busy map[identity]bool) bool {
	running := false
	for _, w := range workers {
		if w.State != "running" {
			continue
		}
		if !busy[identityOf(w)] {
			return false
		}
		running = true
	}
	return running
}

// addBusy adds who is busy. Without a worker nothing is claimed.
func (c *Worker) addBusy(out *Output, living map[string]workerReading) {
	b := c.busy.now()
	if b.counted {
		out.Add(counter(c.busySeconds, b.busySeconds), counter(c.saturatedSeconds, b.saturatedSeconds))
	}
	if len(living) == 0 {
		return
	}
	c.tell(out, "worker_busy", b.reason)
	for slot, r := range living {
		if busy, known := b.busy[identityOf(r.Worker)]; known {
			out.Add(gauge(c.isBusy, boolean(busy), slot))
		}
	}
}
