package collector

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	dto "github.com/prometheus/client_model/go"

	"github.com/prefork-exporter/prefork_exporter/collector/internal/sockdiag"
)

// queues are a kernel that says what a test wants.
type queues struct {
	sockets   []sockdiag.Socket
	refused   error
	err       error
	ages      map[sockdiag.Address]time.Duration
	agesErr   error
	held      map[uint64]bool
	heldErr   error
	took      time.Duration // each reading
	readings  int
	searches  int
	ageingAsk int
}

func (q *queues) Listening() (sockdiag.Listening, error) {
	q.readings++
	if q.took > 0 {
		time.Sleep(q.took) // of a bubble's time
	}
	return sockdiag.Listening{Sockets: q.sockets, Refused: q.refused}, q.err
}

func (q *queues) Oldest([]sockdiag.Socket) (map[sockdiag.Address]time.Duration, error) {
	q.ageingAsk++
	return q.ages, q.agesErr
}

func (q *queues) Held(int) (map[uint64]bool, error) {
	q.searches++
	return q.held, q.heldErr
}

func (q *queues) Close() error { return nil }

// tcpAt and unixAt are where somebody listens.
func tcpAt(text string) sockdiag.Address {
	a := sockdiag.Address{Family: sockdiag.TCP4, TCP: netip.MustParseAddrPort(text)}
	if a.TCP.Addr().Is6() {
		a.Family = sockdiag.TCP6
	}
	return a
}

func unixAt(path string) sockdiag.Address { return sockdiag.Address{Family: sockdiag.Unix, Path: path} }

// socket returns a listening socket.
func socket(inode uint64, a sockdiag.Address, depth, limit, drops int64) sockdiag.Socket {
	return sockdiag.Socket{Address: a, ID: sockdiag.ID{Inode: inode, Cookie: inode}, Depth: depth, Limit: limit, Drops: drops}
}

// watching returns a collector of addresses, over a kernel.
func watching(kernel *queues, addresses ...string) *Listen {
	o := ListenOptions{Logger: quiet()}
	for _, text := range addresses {
		a, err := ParseListenAddress(text)
		if err != nil {
			panic(err)
		}
		o.Addresses = append(o.Addresses, a)
	}
	c := NewListen(o)
	c.kernel = kernel
	return c
}

// watchingProcess returns a collector of what process 1 has.
func watchingProcess(kernel *queues) *Listen {
	c := watching(kernel)
	c.finder.process = func() int { return 1 }
	return c
}

func TestAProcessThatComesLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pid := 0
		kernel := &queues{sockets: []sockdiag.Socket{socket(1, tcpAt("127.0.0.1:8000"), 0, 1, 0)}, held: map[uint64]bool{1: true}}
		c := watching(kernel)
		c.finder.process = func() int { return pid }
		c.tick()
		if c.anyHere() {
			t.Error("a queue of nobody")
		}
		pid = 7
		time.Sleep(searchPause)
		c.tick()
		if !c.anyHere() {
			t.Error("no queue as soon as the process is there")
		}
	})
}

// busyQueues are a kernel with a queue of every kind.
func busyQueues() *queues {
	return &queues{
		sockets: []sockdiag.Socket{
			socket(1, tcpAt("127.0.0.1:8000"), 7, 128, 3),
			socket(2, tcpAt("[::]:8001"), 2, 10, 0), socket(3, tcpAt("[::]:8001"), 11, 10, 5),
			socket(4, unixAt("/run/a b.sock"), 6, 5, sockdiag.Unknown),
			socket(5, tcpAt("127.0.0.1:22"), 1, 128, 1),
		},
		ages: map[sockdiag.Address]time.Duration{tcpAt("127.0.0.1:8000"): 1500 * time.Millisecond, tcpAt("127.0.0.1:22"): time.Hour},
	}
}

func busyListen() *Listen {
	return watching(busyQueues(), ":8000", "[::]:8001", "unix:/run/a b.sock", "10.0.0.1:22")
}

func TestAcceptQueuesAreExposed(t *testing.T) {
	golden(t, "listen.txt", collect(t, busyListen(), ""))
}

// valueOf returns the value of a series as text has it, or "" where there is none.
func valueOf(t *testing.T, c Collector, series string) string {
	t.Helper()
	for line := range strings.Lines(collect(t, c, "")) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), series+" "); ok {
			return v
		}
	}
	return ""
}

const at8000 = `{listener="tcp://127.0.0.1:8000"}`

func TestWhatPassesBetweenScrapesCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kernel := &queues{}
		c := watching(kernel, ":8000")
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			c.Run(ctx)
		}()
		be := func(depth int64, d time.Duration) {
			c.mu.Lock()
			kernel.sockets = []sockdiag.Socket{socket(1, tcpAt("127.0.0.1:8000"), depth, 4, 0)}
			c.mu.Unlock()
			time.Sleep(d)
		}
		be(0, 3*time.Second)
		be(4, 10*time.Second)
		be(8, 10*time.Second)
		be(0, 10*time.Second)
		for name, want := range map[string]float64{
			"length": 0, "limit": 4, "peak": 8, "wait_seconds_total": 4*10 + 8*10, "full_seconds_total": 10,
		} {
			got, err := strconv.ParseFloat(valueOf(t, c, "prefork_listen_queue_"+name+at8000), 64)
			if tolerance := map[string]float64{"wait_seconds_total": 4, "full_seconds_total": .5}[name]; err != nil || got < want-tolerance || got > want+tolerance {
				t.Errorf("%s is %v, %v; want %v, give or take %v", name, got, err, want, tolerance)
			}
		}
		be(0, 10*time.Second)
		if got := valueOf(t, c, "prefork_listen_queue_peak"+at8000); got != "0" {
			t.Errorf("a peak of %s, and it is more than 15 seconds ago", got)
		}
		cancel()
		<-done
	})
}

func TestThePeakIsTheMostOfFifteenSeconds(t *testing.T) {
	var w window
	began := time.Now()
	for _, step := range []struct {
		at           time.Duration
		length, peak int64
	}{{0, 2, 2}, {1, 5, 5}, {2, 3, 5}, {3, 4, 5}, {16, 1, 5}, {17, 1, 4}, {18, 0, 4}, {19, 0, 1}, {60, 0, 0}} {
		w = w.add(began.Add(step.at*time.Second), step.length)
		if got := w.peak(); got != step.peak {
			t.Errorf("after %d s: %d, want %d", step.at, got, step.peak)
		}
	}
}

func TestATimeInWhichNobodyLookedDoesNotCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := watching(&queues{sockets: []sockdiag.Socket{socket(1, tcpAt("127.0.0.1:8000"), 3, 1, 0)}}, ":8000")
		for _, step := range []struct {
			passed time.Duration
			want   string
		}{{0, "0"}, {0, "0"}, {time.Second, "3"}, {time.Hour, "3"}, {4 * time.Second, "15"}} {
			time.Sleep(step.passed)
			if got := valueOf(t, c, "prefork_listen_queue_wait_seconds_total"+at8000); got != step.want {
				t.Errorf("%s after %s, want %s", got, step.passed, step.want)
			}
		}
	})
}

func TestSamplesTakeNoMoreThanTheirShareOfTheTime(t *testing.T) {
	for name, tc := range map[string]struct {
		kernel   queues
		readings int // in a minute
	}{
		"at once":              {queues{sockets: busyQueues().sockets}, 120},
		"nobody listens":       {queues{}, 60},
		"after a while":        {queues{sockets: busyQueues().sockets, took: 10 * time.Millisecond}, 60},
		"after a long while":   {queues{sockets: busyQueues().sockets, took: time.Second}, 12},
		"none that is watched": {queues{sockets: busyQueues().sockets[4:]}, 60},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				watching(&tc.kernel, ":8000").Run(ctx)
				if n := tc.kernel.readings; n < tc.readings-2 || n > tc.readings+1 {
					t.Errorf("%d readings in a minute, want about %d", n, tc.readings)
				}
			})
		})
	}
}

func TestWithoutAListenerToWatchNothingIsRead(t *testing.T) {
	kernel := busyQueues()
	c := watching(kernel)
	c.Run(t.Context()) // ends at once
	if got := valueOf(t, c, "prefork_listen_queue_length"+at8000); got != "" || kernel.readings != 0 {
		t.Errorf("length %q, %d readings", got, kernel.readings)
	}
}

func TestDropsNeverFall(t *testing.T) {
	at := tcpAt("127.0.0.1:8000")
	const unknown = sockdiag.Unknown
	kernel := &queues{}
	c := watching(kernel, ":8000")
	for _, step := range []struct {
		what    string
		sockets []sockdiag.Socket
		refused error
		want    string
	}{
		{"a socket that has dropped some already", []sockdiag.Socket{socket(1, at, 0, 1, 5)}, nil, "5"},
		{"more drops", []sockdiag.Socket{socket(1, at, 0, 1, 9)}, nil, "9"},
		{"a second socket", []sockdiag.Socket{socket(1, at, 0, 1, 9), socket(2, at, 0, 1, 2)}, nil, "11"},
		{"the first one closed", []sockdiag.Socket{socket(2, at, 0, 1, 2)}, nil, "11"},
		{"nobody", nil, nil, "11"},
		{"a new socket", []sockdiag.Socket{socket(3, at, 0, 1, 1)}, nil, "12"},
		{"its inode, and another socket", []sockdiag.Socket{{Address: at, ID: sockdiag.ID{Inode: 3, Cookie: 9}, Limit: 1, Drops: 4}}, nil, "16"},
		{"nobody, for a moment", nil, nil, "16"},
		{"no netlink", []sockdiag.Socket{{Address: at, ID: sockdiag.ID{Inode: 3}, Limit: unknown, Drops: unknown}}, errors.New("no"), "16"},
		{"netlink again", []sockdiag.Socket{{Address: at, ID: sockdiag.ID{Inode: 3, Cookie: 9}, Limit: 1, Drops: 5}}, nil, "17"},
		{"less than before", []sockdiag.Socket{{Address: at, ID: sockdiag.ID{Inode: 3, Cookie: 9}, Limit: 1, Drops: 3}}, nil, "17"},
		{"as much as the kernel can count", []sockdiag.Socket{socket(4, at, 0, 1, 1<<32-1)}, nil, "4294967312"},
		{"and two more", []sockdiag.Socket{socket(4, at, 0, 1, 1)}, nil, "4294967314"},
	} {
		kernel.sockets, kernel.refused = step.sockets, step.refused
		got, err := strconv.ParseFloat(valueOf(t, c, "prefork_listen_queue_drops_total"+at8000), 64)
		if want, _ := strconv.ParseFloat(step.want, 64); err != nil || got != want {
			t.Errorf("%s: %v, %v; want %s", step.what, got, err, step.want)
		}
	}
}

func TestAListenerThatIsGoneKeepsItsCountersForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kernel := &queues{sockets: []sockdiag.Socket{socket(1, tcpAt("127.0.0.1:8000"), 5, 4, 2)}}
		c := watching(kernel, ":8000")
		see := func(what string, want map[string]string) {
			t.Helper()
			for name, v := range want {
				if got := valueOf(t, c, "prefork_listen_queue_"+name+at8000); got != v {
					t.Errorf("%s: %s is %q, want %q", what, name, got, v)
				}
			}
		}
		_ = c.Update(t.Context(), &Output{})
		time.Sleep(time.Second)
		see("there", map[string]string{"length": "5", "limit": "4", "peak": "5", "oldest_seconds": "0", "drops_total": "2", "wait_seconds_total": "5", "full_seconds_total": "1"})
		kernel.sockets = nil
		time.Sleep(time.Second)
		see("gone", map[string]string{"length": "", "limit": "", "peak": "", "oldest_seconds": "", "drops_total": "2", "wait_seconds_total": "5", "full_seconds_total": "1"})
		kernel.sockets = []sockdiag.Socket{socket(2, tcpAt("127.0.0.1:8000"), 1, 4, 1)}
		time.Sleep(time.Second)
		see("opened again", map[string]string{"length": "1", "drops_total": "3", "wait_seconds_total": "5", "full_seconds_total": "1"})
		kernel.sockets = nil
		time.Sleep(forgetAfter)
		see("gone for ten minutes", map[string]string{"drops_total": "3"})
		time.Sleep(time.Second)
		see("and for longer", map[string]string{"drops_total": "", "wait_seconds_total": ""})
	})
}

func TestWhatCannotBeMeasuredIsAbsentAndAFeatureSaysWhy(t *testing.T) {
	at, path := tcpAt("127.0.0.1:8000"), unixAt("/run/a.sock")
	const unknown = sockdiag.Unknown
	refused := fmt.Errorf("ask: %w", syscall.EPERM)
	for name, tc := range map[string]struct {
		kernel   *queues
		named    []string
		process  func() int
		features string // listen_queue and what it has more: 1, or why not
		values   string // that there are
	}{
		"all": {&queues{sockets: []sockdiag.Socket{socket(1, at, 0, 1, 0)}}, []string{":8000"}, nil,
			"1 drops=1 limit=1 oldest=1", "drops full length limit oldest peak wait"},
		"a Unix socket": {&queues{sockets: []sockdiag.Socket{socket(1, path, 0, 1, unknown)}}, []string{"unix:/run/a.sock"}, nil,
			"1 drops=the kernel does not tell it of Unix sockets limit=1 oldest=the kernel does not tell it of Unix sockets",
			"full length limit peak wait"},
		"netlink refused": {&queues{sockets: []sockdiag.Socket{socket(1, at, 1, unknown, unknown)}, refused: refused}, []string{":8000"}, nil,
			"1 drops=the kernel does not answer sock_diag: operation not permitted limit=the kernel does not answer sock_diag: operation not permitted " +
				"oldest=the kernel does not answer sock_diag: operation not permitted", "length peak wait"},
		"no ages": {&queues{sockets: []sockdiag.Socket{socket(1, at, 1, 1, 0)}, agesErr: refused}, []string{":8000"}, nil,
			"1 drops=1 limit=1 oldest=the kernel does not answer sock_diag: operation not permitted", "drops full length limit peak wait"},
		"nothing read": {&queues{err: fmt.Errorf("read: %w", syscall.EACCES)}, []string{":8000"}, nil,
			"accept queues cannot be read: permission denied", ""},
		"nobody listens":                 {&queues{}, []string{":8000"}, nil, "nobody listens at --listen.address", ""},
		"nothing named":                  {busyQueues(), nil, nil, "no listener is known: --listen.address names one", ""},
		"a process that does not listen": {&queues{sockets: busyQueues().sockets}, nil, func() int { return 7 }, "the server does not listen", ""},
		"a process that is not there":    {&queues{sockets: busyQueues().sockets}, nil, func() int { return 0 }, "the server is not there", ""},
		"a process that hides": {&queues{sockets: busyQueues().sockets, heldErr: syscall.EACCES}, nil, func() int { return 7 },
			"the server's descriptors may not be read", ""},
	} {
		t.Run(name, func(t *testing.T) {
			c := watching(tc.kernel, tc.named...)
			c.finder.process = tc.process
			s, err := NewSet(quiet(), map[string]Collector{"listen": c}, time.Minute).Gather(t.Context(), []string{"listen"})
			if err != nil {
				t.Fatal(err)
			}
			var features, values []string
			for _, f := range s.Families() {
				switch name, ok := strings.CutPrefix(f.GetName(), "prefork_listen_queue_"); {
				case ok:
					name, _, _ = strings.Cut(name, "_")
					values = append(values, name)
				case f.GetName() == "prefork_feature_available":
					features = append(features, featuresOf(f)...)
				}
			}
			if got := strings.Join(features, " "); got != tc.features {
				t.Errorf("features %s\nwant %s", got, tc.features)
			}
			if got := strings.Join(values, " "); got != tc.values {
				t.Errorf("values %s, want %s", got, tc.values)
			}
		})
	}
}

// featuresOf returns each feature of accept queues as NAME=1, or why not.
func featuresOf(f *dto.MetricFamily) (all []string) {
	for _, m := range f.GetMetric() {
		what := m.GetLabel()[1].GetValue()
		if m.GetGauge().GetValue() == 1 {
			what += "1"
		}
		if name := strings.TrimPrefix(m.GetLabel()[0].GetValue(), "listen_queue_"); name != "listen_queue" {
			what = name + "=" + what
		}
		all = append(all, what)
	}
	return all
}

// The kernel goes through all connections for it.
func TestAgesAreAskedForOnlyWhereSomebodyWaits(t *testing.T) {
	kernel := &queues{sockets: []sockdiag.Socket{
		socket(1, tcpAt("127.0.0.1:8000"), 0, 1, 0), socket(2, tcpAt("127.0.0.1:22"), 9, 9, 0), socket(3, unixAt("/a"), 9, 9, sockdiag.Unknown),
	}}
	c := watching(kernel, ":8000", "unix:/a")
	if got := valueOf(t, c, "prefork_listen_queue_oldest_seconds"+at8000); got != "0" || kernel.ageingAsk != 0 {
		t.Errorf("%q, asked %d times; want 0 without asking", got, kernel.ageingAsk)
	}
	kernel.sockets[0].Depth = 1
	kernel.ages = map[sockdiag.Address]time.Duration{tcpAt("127.0.0.1:8000"): 2 * time.Second}
	if got := valueOf(t, c, "prefork_listen_queue_oldest_seconds"+at8000); got != "2" || kernel.ageingAsk != 1 {
		t.Errorf("%q, asked %d times; want 2, asked once", got, kernel.ageingAsk)
	}
}

func TestTheSocketsOfAServerAreFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		at := tcpAt("127.0.0.1:8000")
		kernel := &queues{sockets: []sockdiag.Socket{socket(1, at, 1, 9, 0), socket(2, at, 2, 9, 0), socket(3, tcpAt("127.0.0.1:22"), 1, 9, 0)}}
		c := watchingProcess(kernel)
		for _, step := range []struct {
			what     string
			passed   time.Duration
			change   func()
			want     string
			searches int
		}{
			{"nothing", 0, func() {}, "", 1},
			{"one that was handed over, not yet", 9 * time.Second, func() { kernel.held = map[uint64]bool{1: true} }, "", 1},
			{"one that was handed over", time.Second, func() {}, "1", 2},
			{"its descriptors cannot be read", 10 * time.Second, func() { kernel.held, kernel.heldErr = nil, syscall.EACCES }, "1", 3},
			{"a new one", time.Second, func() {
				kernel.sockets = append(kernel.sockets, socket(4, at, 4, 9, 0))
				kernel.held, kernel.heldErr = map[uint64]bool{1: true, 4: true}, nil
			}, "5", 4},
			{"another new one, at once", 0, func() {
				kernel.sockets = append(kernel.sockets, socket(5, at, 8, 9, 0))
				kernel.held[5] = true
			}, "5", 4},
			{"and a second later", time.Second, func() {}, "13", 5},
			{"the first one closed", time.Second, func() { kernel.sockets = kernel.sockets[1:] }, "12", 5},
		} {
			step.change()
			time.Sleep(step.passed)
			if got := valueOf(t, c, "prefork_listen_queue_length"+at8000); got != step.want || kernel.searches != step.searches {
				t.Errorf("%s: length %q, %d searches; want %q and %d", step.what, got, kernel.searches, step.want, step.searches)
			}
		}
		if got := collect(t, c, "prefork_listen_queue_length"); strings.Contains(got, ":22") {
			t.Errorf("another's socket is exposed:\n%s", got)
		}
	})
}

// Where others open sockets all the time, a search for each would never end.
func TestSocketsOfOthersAreSearchedForLessAndLess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kernel := &queues{held: map[uint64]bool{1000: true}}
		f := finder{process: func() int { return 7 }}
		second := func(n int) {
			kernel.sockets = []sockdiag.Socket{socket(uint64(n), tcpAt("127.0.0.1:1"), 0, 9, 0)}
			f.watched(kernel, time.Now(), kernel.sockets)
			time.Sleep(time.Second)
		}
		for n := range 60 {
			second(n + 1)
		}
		if kernel.searches != 8 { // after 0, 2, 6, 14, 24, … s
			t.Errorf("%d searches in a minute of others' sockets, want 8", kernel.searches)
		}
		for range 11 {
			second(1000)
		}
		if !f.known[sockdiag.ID{Inode: 1000, Cookie: 1000}] || f.pause != searchPause {
			t.Errorf("ours was not found (%v), or is followed by a pause of %v", f.known, f.pause)
		}
	})
}

func TestListenersAreBounded(t *testing.T) {
	kernel := &queues{held: map[uint64]bool{}}
	for i := range uint64(mostQueues + 10) {
		kernel.sockets = append(kernel.sockets, socket(i, tcpAt(fmt.Sprintf("127.0.0.1:%d", 1000+i)), 0, 1, 0))
		kernel.held[i] = true
	}
	c := watchingProcess(kernel)
	if got := strings.Count(collect(t, c, "prefork_listen_queue_length"), "listener="); got != mostQueues {
		t.Errorf("%d listeners, want %d", got, mostQueues)
	}
}

func TestAddressesOfListeners(t *testing.T) {
	all := map[string]sockdiag.Address{
		"any4": tcpAt("0.0.0.0:8000"), "any6": tcpAt("[::]:8000"), "loop4": tcpAt("127.0.0.1:8000"), "mapped": tcpAt("[::ffff:127.0.0.1]:8000"),
		"loop6": tcpAt("[::1]:8000"), "port": tcpAt("127.0.0.1:8001"), "path": unixAt("/run/a.sock"), "name": unixAt("@a"),
	}
	for text, want := range map[string]string{
		":8000": "any4 any6 loop4 loop6 mapped", "127.0.0.1:8000": "loop4 mapped", "[::1]:8000": "loop6", "[::ffff:127.0.0.1]:8000": "loop4 mapped",
		"0.0.0.0:8000": "any4", "[::]:8000": "any6", "unix:/run/a.sock": "path", "unix:@a": "name", "unix:/run/b.sock": "",
	} {
		l, err := ParseListenAddress(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		var got []string
		for _, name := range []string{"any4", "any6", "loop4", "loop6", "mapped", "name", "path", "port"} {
			if l.matches(all[name]) {
				got = append(got, name)
			}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s matches %v, want %s", text, got, want)
		}
	}
	for _, text := range []string{"", "8000", ":", ":0", ":65536", ":x", "localhost:8000", "127.0.0.1", "127.0.0.1:0", "[::1]", "unix:", "unix:a.sock", "unix:@"} {
		if _, err := ParseListenAddress(text); err == nil {
			t.Errorf("%q is no address of a listener", text)
		}
	}
}
