package collector

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/prefork-exporter/prefork_exporter/collector/internal/sockdiag"
)

// Listen exposes the accept queues of a server. They fill before latency rises, so they
// are the first sign of too few workers; and a connection in them is seen by no worker.
type Listen struct {
	kernel acceptQueues
	finder finder
	log    *slog.Logger

	length, limit, drops, oldest, wait, full, peak, feature Descriptor

	mu      sync.Mutex
	queues  map[string]*queue // by the label listener
	crowded bool              // there were more than can be watched
	sampled time.Time
	reading reading // the last one
}

// acceptQueues is what a [sockdiag.Kernel] does. It is for one goroutine at a time.
type acceptQueues interface {
	Listening() (sockdiag.Listening, error)
	Oldest(listening []sockdiag.Socket) (map[sockdiag.Address]time.Duration, error)
	Held(pid int) (map[uint64]bool, error)
	Close() error
}

// reading is what was read of the kernel at one time.
type reading struct {
	sockdiag.Listening
	err error // nothing could be read of some of them
}

// ListenOptions say which listening sockets are watched.
type ListenOptions struct {
	Addresses []ListenAddress // whoever listens there
	// Process returns a process whose sockets are watched, and those of its descendants, but
	// for this process; 0: it is not there for now. Nil: no process's are.
	Process func() int
	Logger  *slog.Logger
}

// NewListen returns the collector of accept queues. It reads them when it is asked, and
// all the time while [Listen.Run] runs; [Listen.Close] is for the end of both.
func NewListen(o ListenOptions) *Listen {
	return &Listen{
		kernel: sockdiag.New(), finder: finder{named: o.Addresses, process: o.Process}, log: o.Logger,
		queues:  map[string]*queue{},
		length:  Describe("prefork_listen_queue_length"),
		limit:   Describe("prefork_listen_queue_limit"),
		drops:   Describe("prefork_listen_queue_drops_total"),
		oldest:  Describe("prefork_listen_queue_oldest_seconds"),
		wait:    Describe("prefork_listen_queue_wait_seconds_total"),
		full:    Describe("prefork_listen_queue_full_seconds_total"),
		peak:    Describe("prefork_listen_queue_peak"),
		feature: Describe("prefork_feature_available"),
	}
}

// Describe implements [Collector].
func (c *Listen) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []Descriptor{c.length, c.limit, c.drops, c.oldest, c.wait, c.full, c.peak, c.feature} {
		ch <- d.Desc
	}
}

// Close lets go of what is open.
func (c *Listen) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.kernel.Close()
}

// What a sample may cost: while it takes no longer than 5 ms they come every half second,
// else they take a hundredth of the time, as long as that leaves any.
const (
	sampleEvery = 500 * time.Millisecond
	restFactor  = 100
	longestRest = 4 * time.Second
)

// Run samples the queues until ctx ends. Without it, time that passes between scrapes
// counts only as far as these are close to each other.
func (c *Listen) Run(ctx context.Context) {
	if c.finder.hopeless() {
		return
	}
	every(ctx, c.tick)
}

// tick takes a sample, and returns how long to rest.
func (c *Listen) tick() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	began := time.Now()
	c.sample()
	rest := sampleEvery
	if !c.anyHere() {
		rest = searchPause
	}
	return max(rest, min(restFactor*time.Since(began), longestRest))
}

// longestGap is how far samples may be apart: of a longer time nothing is known.
const longestGap = 5 * time.Second

// mostQueues bounds the values of the label listener. forgetAfter is how long a listener
// is remembered that is gone.
const (
	mostQueues  = 64
	forgetAfter = 10 * time.Minute
)

// sample reads all queues.
func (c *Listen) sample() {
	var r reading
	if !c.finder.hopeless() {
		r.Listening, r.err = c.kernel.Listening()
	}
	now := time.Now()
	passed := now.Sub(c.sampled)
	if passed > longestGap {
		passed = 0
	}
	c.sampled, c.reading = now, r
	watched := map[string][]sockdiag.Socket{}
	for _, s := range c.finder.watched(c.kernel, now, r.Sockets) {
		watched[s.String()] = append(watched[s.String()], s)
	}
	for name, sockets := range watched {
		if q := c.queueOf(name, sockets[0].Family); q != nil {
			q.sample(now, passed, sockets)
		}
	}
	for name, q := range c.queues {
		if watched[name] == nil {
			q.leave()
		}
		q.forget(now)
		if now.Sub(q.seen) > forgetAfter {
			delete(c.queues, name)
		}
	}
}

// queueOf returns the queue of that name, a new one perhaps; nil where there is no room.
func (c *Listen) queueOf(name string, f sockdiag.Family) *queue {
	q := c.queues[name]
	switch {
	case q != nil:
	case len(c.queues) < mostQueues:
		q = &queue{name: name, tcp: f != sockdiag.Unix, dropsOf: map[sockdiag.ID]lastDrops{}}
		c.queues[name] = q
	case !c.crowded:
		c.crowded = true
		c.log.Warn("more listeners than are watched: some are left out", "most", mostQueues, "one", name)
	}
	return q
}

// Update implements [Collector]. What cannot be measured is left out, and a feature says
// why: that is no failure.
func (c *Listen) Update(_ context.Context, out *Output) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sample()
	ages, err := c.ages()
	for _, q := range c.queues {
		c.add(out, q)
		if age, ok := ages[q.name]; ok && q.here {
			out.Add(gauge(c.oldest, age.Seconds(), q.name))
		}
	}
	c.features(out, len(ages) > 0, err)
	return nil
}

func (c *Listen) add(out *Output, q *queue) {
	out.Add(counter(c.wait, q.waited, q.name))
	if q.limited {
		out.Add(counter(c.full, q.filled, q.name))
	}
	if q.counted {
		out.Add(counter(c.drops, float64(q.drops), q.name))
	}
	if !q.here {
		return
	}
	out.Add(gauge(c.length, float64(q.length), q.name), gauge(c.peak, float64(q.recent.peak()), q.name))
	if q.limit != sockdiag.Unknown {
		out.Add(gauge(c.limit, float64(q.limit), q.name))
	}
}

// ages returns the age of the oldest connection in each queue that has one. The kernel is
// asked only where somebody waits.
func (c *Listen) ages() (map[string]time.Duration, error) {
	ages := map[string]time.Duration{}
	waiting := false
	for _, q := range c.queues {
		if q.here && q.tcp && q.limit != sockdiag.Unknown {
			ages[q.name] = 0
			waiting = waiting || q.length > 0
		}
	}
	if !waiting {
		return ages, nil
	}
	oldest, err := c.kernel.Oldest(c.reading.Sockets)
	if err != nil {
		return nil, err
	}
	for address, age := range oldest {
		if _, ours := ages[address.String()]; ours {
			ages[address.String()] = age
		}
	}
	return ages, nil
}

// features says what can be measured, and why not.
func (c *Listen) features(out *Output, aged bool, agesErr error) {
	tell := func(name, reason string) { out.Add(gauge(c.feature, boolean(reason == ""), name, reason)) }
	if !c.anyHere() {
		tell("listen_queue", c.whyNone())
		return
	}
	tell("listen_queue", "")
	unless := func(known bool, reason string) string {
		if known {
			return ""
		}
		return reason
	}
	refused := withNumber("the kernel does not answer sock_diag", cmp.Or(c.reading.Refused, agesErr))
	onlyTCP := refused
	if !c.any(func(q *queue) bool { return q.here && q.tcp }) {
		onlyTCP = "the kernel does not tell it of Unix sockets"
	}
	tell("listen_queue_limit", unless(c.any(func(q *queue) bool { return q.here && q.limit != sockdiag.Unknown }), refused))
	tell("listen_queue_drops", unless(c.any(func(q *queue) bool { return q.here && q.counted }), onlyTCP))
	tell("listen_queue_oldest", unless(aged, onlyTCP))
}

// whyNone returns why no queue is measured.
func (c *Listen) whyNone() string {
	if c.reading.err != nil {
		return withNumber("accept queues cannot be read", c.reading.err)
	}
	return c.finder.whyNone()
}

// withNumber adds to a reason the error number of the kernel, of which there are few.
func withNumber(reason string, err error) string {
	var number syscall.Errno
	if errors.As(err, &number) {
		return reason + ": " + number.Error()
	}
	return reason
}

func (c *Listen) anyHere() bool { return c.any(func(q *queue) bool { return q.here }) }

func (c *Listen) any(is func(q *queue) bool) bool {
	for _, q := range c.queues {
		if is(q) {
			return true
		}
	}
	return false
}

// queue is the accept queue of one address over time: of several sockets (SO_REUSEPORT),
// if these share it.
type queue struct {
	name string
	tcp  bool

	here   bool      // somebody listens
	seen   time.Time // when somebody did
	length int64
	limit  int64 // or [sockdiag.Unknown]
	full   bool  // one of the sockets is: the kernel goes on to send it its share
	recent window

	limited, counted bool    // limits, drops were ever known
	waited, filled   float64 // seconds
	drops            int64
	dropsOf          map[sockdiag.ID]lastDrops
}

// lastDrops is what a socket had dropped when it was last seen.
type lastDrops struct {
	drops int64
	seen  time.Time
}

// sample takes what the sockets of the address are now. Between two samples, passed apart,
// it counts with the mean of both.
func (q *queue) sample(now time.Time, passed time.Duration, sockets []sockdiag.Socket) {
	var length, limit int64
	full := false
	for _, s := range sockets {
		length += s.Depth
		limit += max(s.Limit, 0)
		full = full || s.Full()
		q.count(now, s)
	}
	if slices.ContainsFunc(sockets, func(s sockdiag.Socket) bool { return s.Limit == sockdiag.Unknown }) {
		limit = sockdiag.Unknown
	} else {
		q.limited = true
	}
	if q.here {
		q.waited += float64(q.length+length) / 2 * passed.Seconds()
		q.filled += (boolean(q.full) + boolean(full)) / 2 * passed.Seconds()
	}
	q.here, q.seen, q.length, q.limit, q.full = true, now, length, limit, full
	q.recent = q.recent.add(now, length)
}

// count adds the drops since the sample before. A socket that is new has begun at 0; what
// another one before it had counted stays.
func (q *queue) count(now time.Time, s sockdiag.Socket) {
	if s.Drops == sockdiag.Unknown {
		return
	}
	q.counted = true
	before, known := q.dropsOf[s.ID]
	more := uint32(s.Drops) - uint32(before.drops) // the kernel counts modulo 2^32
	if !known || int32(more) > 0 {
		q.drops += int64(more)
	}
	q.dropsOf[s.ID] = lastDrops{s.Drops, now}
}

// leave notes that nobody listens. What was counted stays.
func (q *queue) leave() { q.here, q.length, q.full = false, 0, false }

// forget forgets sockets that are gone for good. One that is left out once, as the kernel
// may do while others come and go, would else count anew.
func (q *queue) forget(now time.Time) {
	maps.DeleteFunc(q.dropsOf, func(_ sockdiag.ID, d lastDrops) bool { return now.Sub(d.seen) > forgetAfter })
}

// window has the samples of the last 15 seconds, without those that a later one is as
// long as: the first is the longest.
type window []moment

type moment struct {
	at     time.Time
	length int64
}

const peakWindow = 15 * time.Second

func (w window) add(now time.Time, length int64) window {
	w = slices.DeleteFunc(w, func(m moment) bool { return m.length <= length || now.Sub(m.at) > peakWindow })
	return append(w, moment{now, length})
}

func (w window) peak() int64 { return w[0].length }
