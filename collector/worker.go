package collector

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"os"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/prefork-exporter/prefork_exporter/collector/internal/pace"
	"github.com/prefork-exporter/prefork_exporter/collector/internal/procfs"
	"github.com/prefork-exporter/prefork_exporter/collector/internal/sockdiag"
	"github.com/prefork-exporter/prefork_exporter/collector/watch"
)

// Worker exposes what the kernel tells of each worker.
type Worker struct {
	source watch.Source
	read   func(w watch.Worker) (workerProcess, error)
	busy   *busySampler
	shares *memorySampler
	begun  time.Time // when it was made

	memory, cpu, switches, uptime, threads, files, pid, heartbeat Descriptor
	proportional, unique, isBusy, busySeconds, saturatedSeconds   Descriptor
	feature                                                       Descriptor

	mu       sync.Mutex            // held while workers are read, so that readings are in order
	shown    map[string]watch.Used // by slot: what no later scrape falls behind
	switched map[string]*slotSwitches
}

// WorkerOptions say whose workers are measured, and how.
type WorkerOptions struct {
	Source watch.Source // knows the workers; never nil
	Proc   string       // where proc is mounted; empty: /proc
	// MemoryEvery is how often the proportional and the unique memory of a worker are read;
	// less often where that would take more than a hundredth of the time. 0: every minute;
	// negative: never.
	MemoryEvery time.Duration
}

// NewWorker returns the collector of a master's workers. It reads them when it is asked.
// Their memory shares and, between scrapes, whether they are busy it follows only while
// [Worker.Run] runs; [Worker.Close] is for the end of both.
func NewWorker(o WorkerOptions) *Worker {
	if o.Proc == "" {
		o.Proc = "/proc"
	}
	proc := procfs.New(o.Proc)
	return &Worker{
		source: o.Source, read: func(w watch.Worker) (workerProcess, error) { return readWorker(proc, w) },
		busy:   newBusySampler(o.Source, sockdiag.NewAt(o.Proc), func(w watch.Worker) bool { return isThere(proc, w) }),
		shares: newMemorySampler(o.Source, proc, o.MemoryEvery),
		shown:  map[string]watch.Used{}, switched: map[string]*slotSwitches{},
		memory:           Describe("prefork_worker_memory_bytes"),
		proportional:     Describe("prefork_worker_memory_pss_bytes"),
		unique:           Describe("prefork_worker_memory_uss_bytes"),
		cpu:              Describe("prefork_worker_cpu_seconds_total"),
		switches:         Describe("prefork_worker_context_switches_total"),
		uptime:           Describe("prefork_worker_uptime_seconds"),
		threads:          Describe("prefork_worker_threads"),
		files:            Describe("prefork_worker_open_fds"),
		pid:              Describe("prefork_worker_pid"),
		heartbeat:        Describe("prefork_worker_heartbeat_age_seconds"),
		isBusy:           Describe("prefork_worker_busy"),
		busySeconds:      Describe("prefork_workers_busy_seconds_total"),
		saturatedSeconds: Describe("prefork_workers_saturated_seconds_total"),
		feature:          Describe("prefork_feature_available"),
	}
}

// Families returns the families that it exposes: files may not have them then.
func (c *Worker) Families() (names []string) {
	for _, d := range c.descriptors() {
		names = append(names, d.definition.Name)
	}
	return names
}

func (c *Worker) descriptors() []Descriptor {
	return []Descriptor{
		c.memory, c.proportional, c.unique, c.cpu, c.switches, c.uptime, c.threads, c.files, c.pid, c.heartbeat,
		c.isBusy, c.busySeconds, c.saturatedSeconds,
	}
}

// Describe implements [Collector].
func (c *Worker) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range append(c.descriptors(), c.feature) {
		ch <- d.Desc
	}
}

// Run follows the workers between scrapes until ctx ends.
func (c *Worker) Run(ctx context.Context) {
	var group sync.WaitGroup
	group.Go(func() { every(ctx, c.busy.tick) })
	if c.shares.every > 0 {
		group.Go(func() { every(ctx, c.shares.tick) })
	}
	group.Wait()
}

// every calls tick until ctx ends, and rests about as long as it says.
func every(ctx context.Context, tick func() time.Duration) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
			about := tick()
			timer.Reset(pace.Rest(time.Now(), about))
		}
	}
}

// Close lets go of what is open.
func (c *Worker) Close() error { return c.busy.Close() }

// Update implements [Collector]. A worker that has ended since is left out. Of two
// in one slot, one of which makes way, the younger one counts; processor time and context
// switches are those of all that the slot has had. What cannot be measured is left out,
// and a feature says why: that is no failure.
func (c *Worker) Update(_ context.Context, out *Output) error {
	s, ok := c.source.State()
	if !ok {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	processes := c.readAll(s.Workers)
	living := processes.youngest()
	c.addProcesses(out, living)
	c.addUsed(out, s.Used, processes)
	c.addSwitches(out, processes)
	c.addShares(out, living)
	c.addBusy(out, living)
	return nil
}

// workerProcess is what the kernel tells of a process.
type workerProcess struct {
	start         uint64
	over          bool // it has ended, and nobody has waited for it
	residentBytes float64
	used          watch.Used
	threads       float64
	switches      threadSwitches // nil: not known
	files         float64        // or -1
	hidden        bool           // files may not be counted
}

// reading is one worker, and what was read of it.
type workerReading struct {
	watch.Worker
	workerProcess
	err error
}

type workerReadings []workerReading

func (c *Worker) readAll(workers []watch.Worker) workerReadings {
	all := make(workerReadings, 0, len(workers))
	for _, w := range workers {
		p, err := c.read(w)
		all = append(all, workerReading{w, p, err})
	}
	return all
}

// youngest returns of each slot the worker that was born last, of those that live.
func (all workerReadings) youngest() map[string]workerReading {
	youngest := map[string]workerReading{}
	for _, r := range all {
		if r.err != nil || r.over {
			continue
		}
		if other, taken := youngest[r.Slot]; !taken || r.Born.After(other.Born) {
			youngest[r.Slot] = r
		}
	}
	return youngest
}

func (c *Worker) addProcesses(out *Output, living map[string]workerReading) {
	now := time.Now()
	hidden := false
	for slot, r := range living {
		out.Add(
			gauge(c.memory, r.residentBytes, slot),
			gauge(c.uptime, now.Sub(r.Born).Seconds(), slot),
			gauge(c.threads, r.threads, slot),
			gauge(c.pid, float64(r.PID), slot),
		)
		if r.files >= 0 {
			out.Add(gauge(c.files, r.files, slot))
		}
		if !r.LifeSign.IsZero() {
			out.Add(gauge(c.heartbeat, max(0, now.Sub(r.LifeSign).Seconds()), slot))
		}
		hidden = hidden || r.hidden
	}
	if len(living) > 0 {
		reason := ""
		if hidden {
			reason = notReadable
		}
		c.tell(out, "worker_descriptors", reason)
	}
}

// notReadable is why descriptors are not known: of another user's processes, and of those
// that have changed their user, without privileges.
const notReadable = "the workers' descriptors may not be read"

// tell says that a feature is there or, if there is a reason, that it is not.
func (c *Worker) tell(out *Output, feature, reason string) {
	out.Add(gauge(c.feature, boolean(reason == ""), feature, reason))
}

// addUsed adds the processor time of each slot: of those that have ended, which the master
// knows, and of the living.
func (c *Worker) addUsed(out *Output, ended map[string]watch.Used, all workerReadings) {
	used := map[string]watch.Used{}
	maps.Copy(used, ended)
	for _, r := range all {
		used[r.Slot] = sum(used[r.Slot], r.used)
	}
	for _, r := range all { // one has just ended
		if r.err != nil {
			delete(used, r.Slot)
		}
	}
	for slot, u := range c.atLeast(used) {
		out.Add(counter(c.cpu, u.User, slot, "user"), counter(c.cpu, u.System, slot, "system"))
	}
}

// atLeast returns what was used, or what was shown before where that is more or all that
// is known: who has just ended is found neither among the living nor, until it is told,
// among the others.
func (c *Worker) atLeast(used map[string]watch.Used) map[string]watch.Used {
	for slot, u := range used {
		before := c.shown[slot]
		c.shown[slot] = watch.Used{User: max(before.User, u.User), System: max(before.System, u.System)}
	}
	return c.shown
}

func sum(a, b watch.Used) watch.Used {
	return watch.Used{User: a.User + b.User, System: a.System + b.System}
}

// identity tells a process from others of its id. Without its start, which is 0 where
// nobody knows, it does not.
type identity struct {
	pid   int
	start uint64
}

func identityOf(w watch.Worker) identity { return identity{w.PID, w.Start} }

// errStranger says that a worker's process id is another's now.
var errStranger = errors.New("another process has its id")

// hold opens a worker's process, and reads its state: of nobody else, even if the worker
// ends meanwhile.
func hold(proc procfs.FS, w watch.Worker) (*procfs.Process, procfs.Stat, error) {
	p, err := proc.Open(w.PID)
	if err != nil {
		return nil, procfs.Stat{}, err
	}
	s, err := p.Stat()
	if err == nil && w.Start != 0 && s.Start != w.Start {
		err = errStranger
	}
	if err != nil {
		_ = p.Close()
		return nil, procfs.Stat{}, err
	}
	return p, s, nil
}

// isThere says whether a worker is still the process of its id, and lives.
func isThere(proc procfs.FS, w watch.Worker) bool {
	p, s, err := hold(proc, w)
	if err != nil {
		return false
	}
	_ = p.Close()
	return !s.Gone()
}

// readWorker reads each file of a worker's process once.
func readWorker(proc procfs.FS, w watch.Worker) (workerProcess, error) {
	p, s, err := hold(proc, w)
	if err != nil {
		return workerProcess{}, err
	}
	defer func() { _ = p.Close() }()
	r := workerProcess{
		start: s.Start, over: s.Gone(), threads: float64(s.Threads), files: -1,
		residentBytes: float64(s.ResidentPages) * float64(os.Getpagesize()),
		used: watch.Used{ // by what it has waited for, too
			User: procfs.Seconds(s.User + s.ChildrenUser), System: procfs.Seconds(s.System + s.ChildrenSystem),
		},
	}
	if r.over {
		return r, nil
	}
	switches, err := readSwitches(p, s)
	if err != nil && isOver(p) {
		r.over = true
		return r, nil
	}
	r.switches = switches
	if n, err := p.OpenFiles(); err == nil {
		r.files = float64(n)
	} else {
		r.hidden = errors.Is(err, fs.ErrPermission)
	}
	return r, nil
}

// isOver says whether a process has ended by now.
func isOver(p *procfs.Process) bool {
	s, err := p.Stat()
	return err != nil || s.Gone()
}
