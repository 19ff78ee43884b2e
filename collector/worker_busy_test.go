package collector

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prefork-exporter/prefork_exporter/collector/internal/sockdiag"
	"github.com/prefork-exporter/prefork_exporter/collector/watch"
)

// table is a kernel that says what a test wants of connections.
type table struct {
	mu        sync.Mutex
	sockets   []sockdiag.Socket
	listenErr error
	accepted  []sockdiag.Connection
	err       error
	files     map[int]map[string]uint64 // inodes of sockets, by process and descriptor
	denied    map[int]bool
	took      time.Duration // each dump

	dumps, searches, glances, listings int
}

func (k *table) Listening() (sockdiag.Listening, error) {
	k.listings++
	return sockdiag.Listening{Sockets: k.sockets}, k.listenErr
}

func (k *table) Accepted(_ []sockdiag.Socket, each func(sockdiag.Connection)) error {
	k.dumps++
	if k.took > 0 {
		time.Sleep(k.took) // of a bubble's time
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, c := range k.accepted {
		each(c)
	}
	return k.err
}

func (k *table) Sockets(pid, most int, each func(fd string, inode uint64)) (int, error) {
	if most == mostConnectionFiles {
		k.searches++
	}
	if k.denied[pid] {
		return 0, fmt.Errorf("open: %w", syscall.EACCES)
	}
	for fd, inode := range k.files[pid] {
		each(fd, inode)
	}
	return len(k.files[pid]), nil
}

func (k *table) SocketAt(pid int, fd string) (uint64, bool) {
	k.glances++
	inode, ok := k.files[pid][fd]
	return inode, ok
}

func (k *table) Close() error { return nil }

const listenerInode = 1

// serverOf returns a kernel in which each of the processes holds the listener at port 8000.
func serverOf(pids ...int) *table {
	k := &table{sockets: []sockdiag.Socket{socket(listenerInode, tcpAt("127.0.0.1:8000"), 0, 9, 0)}, files: map[int]map[string]uint64{}}
	for _, pid := range pids {
		k.files[pid] = map[string]uint64{"3": listenerInode}
	}
	return k
}

// served is a connection with a request that was not answered, and idle one whose was.
func served(inode uint64) sockdiag.Connection {
	return sockdiag.Connection{
		Address: tcpAt("127.0.0.1:8000"), ID: sockdiag.ID{Inode: inode, Cookie: inode}, Received: 2, Sent: 1,
		SinceReceived: time.Second, SinceSent: 2 * time.Second,
	}
}

func idle(inode uint64) sockdiag.Connection {
	c := served(inode)
	c.SinceSent = c.SinceReceived
	return c
}

// running returns a state of workers that run, each in the slot of its place.
func running(pids ...int) watch.State {
	var s watch.State
	for i, pid := range pids {
		s.Workers = append(s.Workers, watch.Worker{Slot: fmt.Sprint(i), PID: pid, Start: uint64(pid), State: "running"})
	}
	return s
}

// sampling returns a sampler of a state that may be changed.
func sampling(k *table, s *watch.State) *busySampler {
	return newBusySampler(sourceFunc(func() watch.State {
		k.mu.Lock()
		defer k.mu.Unlock()
		return *s
	}), k, func(watch.Worker) bool { return true })
}

func TestAConnectionIsServedFromItsRequestToItsResponse(t *testing.T) {
	for name, tc := range map[string]struct {
		received, sent           uint32
		sinceReceived, sinceSent time.Duration
		want                     bool
	}{
		"accepted, and silent":                         {0, 0, time.Second, time.Second, false},
		"the server speaks first":                      {0, 1, 5, 1, false},
		"a request, and no answer yet":                 {1, 0, 4, 4, true},
		"a request that comes in parts":                {7, 0, 1, 900, true},
		"an answer":                                    {1, 1, 5, 1, false},
		"an answer at once":                            {1, 1, 5, 5, false},
		"a second request, after the first was done":   {2, 1, 1, 5, true},
		"a second request in the tick of the response": {2, 1, 5, 5, false},
		"more of the request, after 100 Continue":      {9, 1, 1, 2, true},
	} {
		c := sockdiag.Connection{Received: tc.received, Sent: tc.sent, SinceReceived: tc.sinceReceived, SinceSent: tc.sinceSent}
		if got := isServing(c); got != tc.want {
			t.Errorf("%s: %v, want %v", name, got, tc.want)
		}
	}
}

// Looks are half a second apart, and changes are made in the middle between two: so the
// sums are exact, up to the last look, which is a quarter of a second ago.
func TestBusyTimeIsTheIntegralOverTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := serverOf(7, 8)
		k.files[7]["9"], k.files[8]["9"] = 70, 80
		state := running(7, 8)
		c := NewWorker(WorkerOptions{Source: known(state), MemoryEvery: -1})
		c.busy = sampling(k, &state)
		ctx, cancel := context.WithCancel(t.Context())
		var group sync.WaitGroup
		group.Go(func() { c.Run(ctx) })
		time.Sleep(250 * time.Millisecond)
		for _, step := range []struct {
			what            string
			change          func()
			seconds         time.Duration
			busy, saturated float64 // until the last look of the step
		}{
			{"nobody", func() {}, 10, 0, 0},
			{"one of two", func() { k.accepted = append(k.accepted, served(70)) }, 10, 9.75, 0},
			{"both", func() { k.accepted = append(k.accepted, served(80)) }, 7, 23.5, 6.75},
			{"both, one of which has two", func() { k.accepted = append(k.accepted, served(71)); k.files[8]["10"] = 71 }, 3, 29.5, 9.75},
			{"one keeps its connection", func() { k.accepted = []sockdiag.Connection{served(70), idle(80)} }, 4, 33.75, 10},
			{"the other one makes way", func() { state.Workers[1].State = "stopping" }, 5, 38.75, 14.75},
			{"the other one ends", func() { state = running(7) }, 5, 43.75, 19.75},
			{"it does not answer", func() { state.Workers[0].State = "unresponsive" }, 2, 45.75, 20},
			{"nobody can be asked", func() { k.err = syscall.EPERM }, 3, 45.75, 20},
			{"and again", func() { k.err, state = nil, running(7) }, 6, 51.25, 25.5},
			{"it has ended", func() { state = watch.State{} }, 6, 51.5, 25.75},
		} {
			k.mu.Lock()
			step.change()
			k.mu.Unlock()
			time.Sleep(step.seconds * time.Second)
			c.busy.mu.Lock()
			busy, saturated := c.busy.busy, c.busy.saturated
			c.busy.mu.Unlock()
			if busy != step.busy || saturated != step.saturated {
				t.Errorf("%s: busy for %v s, saturated for %v s; want %v and %v", step.what, busy, saturated, step.busy, step.saturated)
			}
		}
		cancel()
		group.Wait()
	})
}

func TestLooksTakeNoMoreThanTheirShareOfTheTime(t *testing.T) {
	for name, tc := range map[string]struct {
		took  time.Duration
		state watch.State
		looks int // in a minute
	}{
		"at once":       {0, running(7), 120},
		"a millisecond": {time.Millisecond, running(7), 120},
		"some":          {4 * time.Millisecond, running(7), 30},
		"very long":     {time.Second, running(7), 6},
		"no worker":     {0, watch.State{}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				k := serverOf(7)
				k.took = tc.took
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				every(ctx, sampling(k, &tc.state).tick)
				if k.dumps < tc.looks-1 || k.dumps > tc.looks+1 {
					t.Errorf("%d looks in a minute, want about %d", k.dumps, tc.looks)
				}
			})
		})
	}
}

func TestATimeInWhichNobodyLookedIsNotBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, state := serverOf(7), running(7)
		k.files[7]["9"] = 70
		k.accepted = []sockdiag.Connection{served(70)}
		b := sampling(k, &state)
		for _, step := range []struct {
			passed time.Duration
			want   float64
		}{{0, 0}, {time.Second, 1}, {time.Hour, 1}, {20 * time.Second, 21}} {
			time.Sleep(step.passed)
			if got := b.now().busySeconds; got != step.want {
				t.Errorf("%v s after %s, want %v", got, step.passed, step.want)
			}
		}
	})
}

func TestScrapesAtOnceShareALook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, state := serverOf(7), running(7)
		b := sampling(k, &state)
		for range 10 {
			b.now()
		}
		if k.dumps != 1 {
			t.Errorf("%d looks, want 1", k.dumps)
		}
		time.Sleep(busyFresh)
		if b.now(); k.dumps != 2 {
			t.Errorf("%d looks a moment later, want 2", k.dumps)
		}
	})
}

func TestWhyItIsNotKnownWhoIsBusy(t *testing.T) {
	path := unixAt("/run/a.sock")
	for name, tc := range map[string]struct {
		change func(k *table, s *watch.State)
		reason string // or who is busy, by slot
	}{
		"all is known":            {func(*table, *watch.State) {}, "0:1 1:0"},
		"descriptors are hidden":  {func(k *table, _ *watch.State) { k.denied = map[int]bool{8: true} }, notReadable},
		"of a worker that is new": {func(k *table, s *watch.State) { *s = running(7, 8, 9); k.denied = map[int]bool{9: true} }, notReadable},
		"netlink is refused": {
			func(k *table, _ *watch.State) { k.err = fmt.Errorf("ask: %w", syscall.EPERM) },
			"the kernel does not answer sock_diag: operation not permitted",
		},
		"the kernel is old":   {func(k *table, _ *watch.State) { k.err = sockdiag.ErrOldKernel }, "the kernel counts no segments of a connection"},
		"nothing can be read": {func(k *table, _ *watch.State) { k.listenErr = errors.New("no such file") }, "listening sockets cannot be read"},
		"nobody listens":      {func(k *table, _ *watch.State) { k.sockets = nil }, "the server does not listen"},
		"another listens":     {func(k *table, _ *watch.State) { delete(k.files[7], "3"); delete(k.files[8], "3") }, "the server does not listen"},
		"the master alone listens": {func(k *table, s *watch.State) {
			s.Master, k.files[6] = 6, map[string]uint64{"3": 1}
			delete(k.files[7], "3")
			delete(k.files[8], "3")
		}, "0:1 1:0"},
		"the master may not be read": {func(k *table, s *watch.State) { s.Master, k.denied = 6, map[int]bool{6: true} }, "0:1 1:0"},
		"it listens on a Unix socket": {func(k *table, s *watch.State) {
			k.sockets = append(k.sockets, socket(2, path, 0, 9, sockdiag.Unknown))
			s.Master, k.files[6], k.files[8]["4"] = 6, map[string]uint64{"4": 2}, 2
		}, "the workers listen on a Unix socket, and the kernel tells no times of its connections"},
		"the master is controlled through one": {func(k *table, s *watch.State) {
			k.sockets = append(k.sockets, socket(2, path, 0, 9, sockdiag.Unknown))
			s.Master, k.files[6] = 6, map[string]uint64{"4": 2}
		}, "0:1 1:0"},
		"no worker": {func(_ *table, s *watch.State) { s.Workers = nil }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			k, state := serverOf(7, 8), running(7, 8)
			k.files[7]["9"], k.accepted = 70, []sockdiag.Connection{served(70), idle(80)}
			tc.change(k, &state)
			got := sampling(k, &state).now()
			if is := got.reason + bySlot(state, got.busy); is != tc.reason {
				t.Errorf("%q, want %q", is, tc.reason)
			}
		})
	}
}

// bySlot returns who is busy as in 0:1 1:0.
func bySlot(s watch.State, busy map[identity]bool) string {
	var all []string
	for _, w := range s.Workers {
		if b, known := busy[identityOf(w)]; known {
			all = append(all, fmt.Sprintf("%s:%v", w.Slot, boolean(b)))
		}
	}
	return strings.Join(all, " ")
}

func TestTheOwnerOfAConnectionIsRememberedUntilItIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, state := serverOf(6, 7, 8), running(6, 7, 8)
		there := map[int]bool{6: true, 7: true, 8: true}
		b := sampling(k, &state)
		b.owners.isThere = func(w watch.Worker) bool { return there[w.PID] }
		for _, step := range []struct {
			what              string
			change            func()
			busy              string
			searches, glances int // processes and descriptors that were looked at
		}{
			{"nobody asks", func() {}, "0:0 1:0 2:0", 0, 0},
			{"one of the second", func() { k.files[7]["9"] = 70; k.accepted = []sockdiag.Connection{served(70)} }, "0:0 1:1 2:0", 2, 0},
			{"the same", func() {}, "0:0 1:1 2:0", 0, 0},
			{"answered", func() { k.accepted = []sockdiag.Connection{idle(70)} }, "0:0 1:0 2:0", 0, 0},
			{"asked again", func() { k.accepted = []sockdiag.Connection{served(70)} }, "0:0 1:1 2:0", 0, 0},
			{"another at the same descriptor", func() { k.files[7]["9"] = 71; k.accepted = []sockdiag.Connection{served(71)} }, "0:0 1:1 2:0", 0, 1},
			{"one of the third, besides", func() { k.files[8]["5"] = 80; k.accepted = append(k.accepted, served(80)) }, "0:0 1:1 2:1", 3, 1},
			{"an inode that is used again, of another", func() {
				k.files[7] = map[string]uint64{"3": 1}
				k.files[6]["9"] = 71
				again := served(71)
				again.ID.Cookie = 999
				k.accepted = []sockdiag.Connection{again}
			}, "0:1 1:0 2:0", 1, 2},
			{"one of nobody", func() { k.accepted = []sockdiag.Connection{served(99)} }, "0:0 1:0 2:0", 3, 3},
			{"still of nobody", func() {}, "0:0 1:0 2:0", 0, 0},
			{"still of nobody, after a while", func() { time.Sleep(strangerFor) }, "0:0 1:0 2:0", 3, 3},
			{"its worker ends, and another has its id", func() {
				state.Workers[1].Start++
				k.files[7]["9"] = 72
				k.accepted = []sockdiag.Connection{served(72)}
			}, "0:0 1:1 2:0", 2, 2},
			{"its worker is gone, and another has its connection", func() {
				state.Workers[1].Start++
				k.files[8]["6"] = 72
				k.files[7] = nil
			}, "0:0 1:0 2:1", 3, 2},
			{"a stranger has its id", func() {
				there[7] = false
				k.files[7] = map[string]uint64{"9": 73}
				k.accepted = []sockdiag.Connection{served(73)}
			}, "0:0 1:0 2:0", 3, 3},
		} {
			step.change()
			k.searches, k.glances = 0, 0
			time.Sleep(busyFresh)
			l := b.now()
			if got := bySlot(state, l.busy); got != step.busy || k.searches != step.searches || k.glances != step.glances {
				t.Errorf("%s: %s, %d processes and %d descriptors looked at; want %s, %d and %d", step.what, got, k.searches, k.glances, step.busy, step.searches, step.glances)
			}
		}
		k.accepted = nil
		time.Sleep(busyFresh)
		b.now()
		if n := len(b.owners.of) + len(b.owners.strangers); n != 0 {
			t.Errorf("%d connections are remembered that are gone", n)
		}
		state = watch.State{}
		time.Sleep(busyFresh)
		if b.now(); len(b.owners.hot) != 0 {
			t.Errorf("descriptors of workers are remembered that are gone: %v", b.owners.hot)
		}
	})
}

// A worker may open its socket long after its begin.
func TestListenersAreSearchedForWhenSomebodyIsNewAndNowAndThen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, state := serverOf(11, 12), running(11)
		b := sampling(k, &state)
		look := func(times, want int, what string) {
			t.Helper()
			for range times {
				b.sample()
				time.Sleep(busyEvery)
			}
			if k.listings != want || b.last.reason != "" {
				t.Errorf("%s: listed %d times, want %d; %s", what, k.listings, want, b.last.reason)
			}
		}
		look(4, 1, "at the start")
		state = running(11, 12)
		look(4, 2, "a worker is new")
		state.Master = 10
		look(4, 3, "the master is another")
		look(10, 4, "after five seconds")
	})
}

func TestAListenerThatIsOpenedLateIsFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := serverOf()
		var pids []int
		for pid := range 50 {
			pids = append(pids, 100+pid)
			k.files[100+pid] = map[string]uint64{}
		}
		state := running(pids...)
		b := sampling(k, &state)
		for range 3 {
			time.Sleep(busyEvery)
			b.tick()
		}
		k.files[149]["3"] = listenerInode
		looks := 0
		for b.last.reason != "" && looks < 100 {
			time.Sleep(busyEvery)
			b.tick()
			looks++
		}
		if looks > listenerShare {
			t.Errorf("found after %d looks, want %d at most", looks, listenerShare)
		}
		k.sockets = nil // for a moment the kernel leaves it out
		time.Sleep(busyEvery)
		if b.tick(); b.last.reason != "" {
			t.Errorf("not known any more: %s", b.last.reason)
		}
		time.Sleep(listenerForget + time.Second)
		if b.tick(); b.last.reason == "" {
			t.Error("a socket that is closed is remembered for ever")
		}
	})
}

func TestWhoMayNotBeReadIsForgottenWithItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, state := serverOf(7, 8), running(7, 8)
		k.denied = map[int]bool{8: true}
		b := sampling(k, &state)
		if l := b.now(); l.reason != notReadable {
			t.Errorf("%q, want %q", l.reason, notReadable)
		}
		state = running(7)
		time.Sleep(busyFresh)
		if l := b.now(); l.reason != "" || len(b.listeners.looked) != 1 {
			t.Errorf("%q, %d workers are remembered; want nothing and 1", l.reason, len(b.listeners.looked))
		}
	})
}

func TestHotDescriptorsAreBounded(t *testing.T) {
	o := ownerSearch{hot: map[identity][]string{}}
	for i := range 3 * mostHot {
		o.heat(identity{}, fmt.Sprint(i%(2*mostHot)))
	}
	if got := o.hot[identity{}]; len(got) != mostHot || got[0] != fmt.Sprint(mostHot-1) || len(maps.Collect(set(got))) != mostHot {
		t.Errorf("%d descriptors: %v", len(got), got)
	}
}

func set(all []string) func(yield func(string, bool) bool) {
	return func(yield func(string, bool) bool) {
		for _, one := range all {
			if !yield(one, true) {
				return
			}
		}
	}
}
