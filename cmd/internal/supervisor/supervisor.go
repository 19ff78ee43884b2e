package supervisor

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"slices"
	"syscall"
	"time"
)

// Options say how workers are kept.
type Options struct {
	Launch  Launcher
	Workers int // how many there should be
	Backoff Backoff

	// StopTimeout is how long a worker may take to end before it is killed.
	StopTimeout time.Duration
	// AbortTimeout is how long a worker that gave no sign of life may take to abort.
	AbortTimeout time.Duration
	// ReadyAfter is when a worker that says nothing counts as ready. Once one worker
	// has said that it is, all have to.
	ReadyAfter time.Duration
	// StartTimeout is how long a worker that has to say that it is ready may take.
	StartTimeout time.Duration
	// HeartbeatTimeout is how long a worker may give no sign of life. Once one worker has
	// given any, all have to. Zero: for ever.
	HeartbeatTimeout time.Duration
	// MaxLifetime is after how long a worker is replaced, and LifetimeJitter up to
	// how much later. Zero: never.
	MaxLifetime, LifetimeJitter time.Duration
	// MaxMemory is with how many bytes a worker is replaced, up to MemoryJitter more.
	// Zero: never. Memory looks at a process; it must not block.
	MaxMemory, MemoryJitter int64
	Memory                  func(pid int) (bytes int64, ok bool)
	// StartTicks looks at a process of ours that was just started, and returns when it was, in
	// ticks since the machine's start; 0: nobody knows. It must not block. Nil: nobody looks.
	StartTicks func(pid int) uint64
	// OOMKills counts the processes that the kernel has killed here for want of memory.
	// Nil: nobody knows.
	OOMKills func() (n int64, ok bool)

	// Settle waits until all that has been said so far was heard. Nil: it has been.
	Settle func()

	// Scaled is told how many workers there should be, when that changes. It must not
	// block. Nil: nobody is.
	Scaled func(target int)

	// Beat is a sign of life of the supervisor itself, given every BeatEvery. It must not
	// block. Zero: nobody wants any.
	Beat      func()
	BeatEvery time.Duration

	// Died is told of each process that has ended, on a goroutine of its own. Nil: nobody is.
	Died func(pid int)

	// Report is told the state whenever it has changed. It must not block. Nil: nobody is.
	Report func(Report)
	Logger *slog.Logger
}

// Supervisor keeps workers running.
type Supervisor struct {
	o      Options
	events chan event
	done   chan struct{} // closed when Run has returned

	// What follows is Run's.
	now        time.Time
	started    time.Time
	target     int
	generation int
	slots      []*slot
	workers    map[Process]*worker // that have not ended
	speaks     bool                // workers say when they are ready
	beatsSince time.Time           // and give signs of life, from when on; zero: they do not
	failures   failureLog
	stopping   bool
	stoppedBy  syscall.Signal
	reloading  bool
	memoryDue  time.Time
	beatDue    time.Time
	oomKills   int64     // counted so far
	oomCredit  int64     // of these, those that no death was put down to
	lenient    time.Time // until when silence is not judged: this process itself was late
	counts     counts
}

// slot is a place for a worker.
type slot struct {
	current  *worker   // nil: none
	due      time.Time // when the next one may start
	failures int       // in a row
}

// event is what happens, told to Run. It says whether the report is another one then.
type event func(s *Supervisor) (changed bool)

// MaxWorkers is more than anybody needs.
const MaxWorkers = 1000

// lifeSignsEvery is how often signs of life are told that nothing else has come with.
const lifeSignsEvery = time.Second

// New returns a supervisor that has started nothing.
func New(o Options) *Supervisor {
	return &Supervisor{
		o: o, target: o.Workers, events: make(chan event, 64), done: make(chan struct{}),
		workers: map[Process]*worker{}, counts: newCounts(),
	}
}

// Run keeps workers running until ctx is done or a signal stops them, and all have ended.
func (s *Supervisor) Run(ctx context.Context) error {
	defer close(s.done)
	s.begin()
	timer := time.NewTimer(0)
	defer timer.Stop()
	stop := ctx.Done()
	changed, told := true, s.now
	for {
		s.act()
		if changed || s.now.Sub(told) >= lifeSignsEvery {
			s.report()
			told = s.now
		}
		if s.stopping && len(s.workers) == 0 {
			return nil
		}
		due := s.next()
		timer.Reset(time.Until(due))
		changed = true
		select {
		case e := <-s.events:
			s.now = time.Now()
			changed = e(s)
			for range len(s.events) { // all that has happened comes before what is due
				changed = (<-s.events)(s) || changed
			}
		case <-timer.C:
			s.now = time.Now()
		case <-stop:
			s.now = time.Now()
			s.stop(syscall.SIGTERM)
			stop = nil
		}
		if s.now.Sub(due) > late {
			s.lenient = s.now.Add(lenience)
		}
	}
}

// begin begins to look at time and, if others were before, at the workers of theirs.
func (s *Supervisor) begin() {
	s.now = time.Now()
	s.memoryDue, s.beatDue = s.now, s.now
	if s.started.IsZero() {
		s.started = s.now
		s.oomKills, _ = s.countOOMKills()
	}
	s.lenient = s.now.Add(lenience) // what they have said meanwhile is heard first
	for _, w := range s.workers {
		s.await(w)
	}
}

// late is how late this process must have been, as one that was stopped or held back, to
// hear first what workers have said meanwhile; lenience is for how long.
const late, lenience = 500 * time.Millisecond, time.Second

// errOver says that there is nobody any more to tell.
var errOver = errors.New("the supervisor has ended")

// tell hands an event to Run.
func (s *Supervisor) tell(e event) error {
	select {
	case <-s.done:
		return errOver // for sure: there may be room in the channel
	default:
	}
	select {
	case s.events <- e:
		return nil
	case <-s.done:
		return errOver
	}
}

// Obey does what a signal of the operator asks for, and counts it. With TERM workers end
// when their requests are done, with QUIT and INT at once; HUP replaces them one after
// another, each when its successor serves; TTIN adds one and TTOU takes one; USR1 is theirs.
func (s *Supervisor) Obey(signal syscall.Signal) error {
	return s.tell(func(s *Supervisor) bool {
		s.counts.signals[signal]++
		switch signal {
		case syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT:
			s.stop(signal)
		case syscall.SIGHUP:
			s.reload()
		case syscall.SIGTTIN:
			s.scale(1)
		case syscall.SIGTTOU:
			s.scale(-1)
		case syscall.SIGUSR1:
			s.forward(signal)
		}
		return true
	})
}

func (s *Supervisor) reload() {
	if s.stopping {
		return
	}
	s.generation++
	s.reloading = true
	s.failures = failureLog{} // whoever asks has mended what was wrong
	for _, place := range s.slots {
		place.due, place.failures = s.now, 0
	}
}

func (s *Supervisor) scale(by int) {
	s.target = min(max(0, s.target+by), MaxWorkers)
	s.o.Logger.Info("the number of workers changes", "target", s.target)
	if s.o.Scaled != nil {
		s.o.Scaled(s.target)
	}
}

func (s *Supervisor) forward(signal syscall.Signal) {
	for p := range s.workers {
		p.Signal(signal)
	}
}

// Said is what a worker tells of itself.
type Said struct {
	Ready, Alive, Stopping bool
	Reason                 Reason // why it stops
}

// Hear takes in what a worker has said. What a stranger says is ignored.
func (s *Supervisor) Hear(pid int, said Said) error {
	return s.tell(func(s *Supervisor) (changed bool) {
		for p, w := range s.workers {
			if p.PID() == pid {
				before := w.State
				s.hear(w, said)
				changed = w.State != before
			}
		}
		return changed
	})
}

func (s *Supervisor) hear(w *worker, said Said) {
	if said.Alive {
		w.LifeSign = s.now
		if s.beatsSince.IsZero() {
			s.beatsSince = s.now
		}
	}
	if said.Ready {
		s.speaks = true
		s.ready(w)
	}
	if said.Stopping && announced(said.Reason) {
		w.Said = said.Reason
	}
	if said.Stopping && w.serves() {
		s.leaves(w)
	}
}

// leaves lets a worker that ends by itself be followed at once.
func (s *Supervisor) leaves(w *worker) {
	w.happens(asked)
	w.Deadline = s.now.Add(s.o.StopTimeout)
	place := s.slots[w.Slot]
	if place.current != w || s.leavers(w.Slot) > 1 {
		return // one that leaves is followed at once, another when it has ended
	}
	place.current = nil
	if !s.good(w) {
		place.due = s.now.Add(s.o.Backoff.Min)
	}
}

// leavers counts the workers of a slot that are on their way out.
func (s *Supervisor) leavers(slot int) (n int) {
	for _, w := range s.workers {
		if w.Slot == slot && !w.serves() {
			n++
		}
	}
	return n
}

// good says whether a worker has served for so long that its end is no failure to start.
func (s *Supervisor) good(w *worker) bool {
	return !w.Ready.IsZero() && s.now.Sub(w.Ready) >= s.o.Backoff.GoodRun
}

// ready notes that a worker serves: its predecessor may go.
func (s *Supervisor) ready(w *worker) {
	w.happens(becameReady)
	if w.State != Running || !w.Ready.IsZero() {
		return
	}
	w.Ready = s.now
	for _, old := range s.workers {
		if old.successor == w {
			s.ask(old, old.WayFor, syscall.SIGTERM)
		}
	}
}

// ask has a worker end, for a reason.
func (s *Supervisor) ask(w *worker, why Reason, how syscall.Signal) {
	if w.Cause == "" {
		w.Cause = why
	}
	w.happens(asked)
	if w.State == Stopping && w.Deadline.IsZero() {
		w.Deadline = s.now.Add(s.o.StopTimeout)
	}
	w.process.Signal(how)
}

// stop has all workers end. What they have got already is not sent again: many take a
// second one for haste.
func (s *Supervisor) stop(how syscall.Signal) {
	if s.stopping && s.stoppedBy == how {
		return
	}
	s.stoppedBy = how
	s.stopping, s.reloading = true, false
	for _, w := range s.workers {
		s.ask(w, ReasonShutdown, how)
	}
}

// act does all that is due now.
func (s *Supervisor) act() {
	if s.o.BeatEvery > 0 && s.reached(s.beatDue) {
		s.beatDue = s.now.Add(s.o.BeatEvery)
		s.o.Beat()
	}
	for _, w := range s.workers {
		s.watch(w)
	}
	if s.stopping {
		return
	}
	s.watchMemory()
	s.shrink()
	s.roll()
	s.fill()
}

func (s *Supervisor) reached(t time.Time) bool { return !t.IsZero() && !t.After(s.now) }

// watch looks at the deadlines of a worker.
func (s *Supervisor) watch(w *worker) {
	switch {
	case s.reached(s.startEnds(w)) && !s.speaks:
		s.ready(w)
	case s.reached(w.Deadline), s.reached(s.startEnds(w)):
		s.kill(w)
	case s.reached(s.silenceEnds(w)):
		w.Cause = ReasonTimeout
		w.happens(silent)
		w.Deadline = s.now.Add(s.o.AbortTimeout)
		w.process.Signal(syscall.SIGABRT)
	case s.reached(s.retirement(w)) && !s.stopping:
		s.replace(w, ReasonMaxLifetime)
	}
}

// startEnds returns when a worker that has said nothing counts as ready, or if others
// speak, has taken too long to say so.
func (s *Supervisor) startEnds(w *worker) time.Time {
	switch {
	case w.State != Starting || s.speaks && s.o.StartTimeout == 0:
		return time.Time{}
	case s.speaks:
		return w.Born.Add(s.o.StartTimeout)
	}
	return w.Born.Add(s.o.ReadyAfter)
}

// silenceEnds returns when a worker has given no sign of life for too long: since the last
// one or, where others give any, since it was ready.
func (s *Supervisor) silenceEnds(w *worker) time.Time {
	if s.o.HeartbeatTimeout == 0 || s.beatsSince.IsZero() || w.Ready.IsZero() || !w.serves() {
		return time.Time{}
	}
	since := slices.MaxFunc([]time.Time{w.LifeSign, w.Ready, s.beatsSince}, time.Time.Compare)
	ends := since.Add(s.o.HeartbeatTimeout)
	if s.lenient.After(ends) {
		return s.lenient
	}
	return ends
}

// retirement returns when a worker has to make way for its age.
func (s *Supervisor) retirement(w *worker) time.Time {
	if w.State != Running || w.successor != nil || w.Retires.IsZero() {
		return time.Time{}
	}
	if due := s.slots[w.Slot].due; due.After(w.Retires) {
		return due // a successor has failed
	}
	return w.Retires
}

func (s *Supervisor) kill(w *worker) {
	switch {
	case w.Cause != "":
	case w.Ready.IsZero():
		w.Cause = ReasonBootError
	default:
		w.Cause = cmp.Or(w.Said, ReasonTimeout) // it said that it stops, and did not
	}
	w.happens(timeIsUp)
	w.process.Signal(syscall.SIGKILL)
}

// watchMemory replaces workers that have too much memory, looking once a second.
func (s *Supervisor) watchMemory() {
	if s.o.MaxMemory <= 0 || !s.reached(s.memoryDue) {
		return
	}
	s.memoryDue = s.now.Add(time.Second)
	for _, w := range s.workers {
		if w.State != Running || w.successor != nil {
			continue
		}
		bytes, ok := s.o.Memory(w.process.PID())
		if !ok {
			continue
		}
		w.Resident = bytes
		if bytes >= w.Memory {
			s.replace(w, ReasonMaxMemory)
		}
	}
}

// replace starts a successor, for which a worker makes way when that serves. No
// more than one of a slot is on its way.
func (s *Supervisor) replace(w *worker, why Reason) {
	place := s.slots[w.Slot]
	if !s.reached(place.due) {
		return
	}
	next := s.launch(w.Slot)
	switch {
	case next != nil:
		w.successor, w.WayFor = next, why
		place.current = next
	case why == ReasonReload:
		s.giveUpReload(w.Slot)
	}
}

func (s *Supervisor) giveUpReload(slot int) {
	s.reloading = false
	s.counts.reloads.Failed++
	s.o.Logger.Error("the reload is given up: a new worker did not become ready", "slot", slot)
}

// shrink has the workers end that are too many.
func (s *Supervisor) shrink() {
	for _, w := range s.workers {
		if w.Slot >= s.target && w.serves() {
			s.ask(w, ReasonScaleDown, syscall.SIGTERM)
		}
	}
}

// roll replaces the next worker of an earlier generation, when none is being
// replaced. A reload is over when there is none.
func (s *Supervisor) roll() {
	if !s.reloading {
		return
	}
	var oldest *worker
	serving := 0
	for _, w := range s.workers {
		if w.State == Running && w.Generation == s.generation {
			serving++
		}
		switch {
		case w.successor != nil || w.State == Starting && w.Generation == s.generation:
			return
		case w.serves() && w.Generation < s.generation && (oldest == nil || w.Slot < oldest.Slot):
			oldest = w
		}
	}
	switch {
	case oldest != nil:
		s.replace(oldest, ReasonReload)
	case serving >= s.target:
		s.reloading = false
		s.counts.reloads.Succeeded++
		s.o.Logger.Info("the reload is done")
	}
}

// fill starts what is missing.
func (s *Supervisor) fill() {
	for len(s.slots) < s.target {
		s.slots = append(s.slots, &slot{due: s.now})
	}
	for i, place := range s.slots[:s.target] {
		if place.current == nil && s.reached(place.due) {
			place.current = s.launch(i)
		}
	}
}

// launch starts a worker in a slot. One that cannot be started has failed.
func (s *Supervisor) launch(slot int) *worker {
	b := Birth{slot, s.generation}
	p, err := s.o.Launch(b)
	if err != nil {
		s.o.Logger.Error("a worker cannot be started", "slot", slot, "err", err)
		s.fail(slot, ReasonBootError, false)
		if place := s.slots[slot]; !place.due.After(s.now) {
			place.due = s.now.Add(s.o.Backoff.Min)
		}
		return nil
	}
	w := &worker{life: life{Birth: b, State: Starting, Born: s.now}, process: p}
	if s.o.StartTicks != nil {
		w.Start = s.o.StartTicks(p.PID())
	}
	if s.o.MaxLifetime > 0 {
		w.Retires = s.now.Add(upTo(s.o.MaxLifetime, s.o.LifetimeJitter))
	}
	w.Memory = upTo(s.o.MaxMemory, s.o.MemoryJitter)
	s.workers[p] = w
	s.counts.births++
	s.await(w)
	return w
}

// await has the end of a worker told.
func (s *Supervisor) await(w *worker) {
	p := w.process
	go func() {
		status := p.Wait()
		if s.o.Settle != nil {
			s.o.Settle()
		}
		if s.o.Died != nil {
			s.o.Died(p.PID())
		}
		_ = s.tell(func(s *Supervisor) bool {
			s.buried(w, status)
			return true
		})
	}()
}

// upTo returns least, or up to jitter more, where there is such a number.
func upTo[N int64 | time.Duration](least, jitter N) N {
	if jitter > 0 {
		return max(least, least+rand.N(jitter))
	}
	return least
}

// buried takes in that a worker has ended.
func (s *Supervisor) buried(w *worker, status Status) {
	w.happens(ended)
	s.counts.use(w.Slot, w.process.Reap()) // and not before: until it is counted here, the kernel remembers it
	delete(s.workers, w.process)
	why := w.reason(status, status.Signal == syscall.SIGKILL && s.oomKilled())
	s.counts.exits[status]++
	s.counts.died(DeathReport{s.now, w.Slot, w.process.PID(), w.Born, why, status.Code, int(status.Signal), w.Resident})
	if why.restarted() && !s.stopping {
		s.counts.restarts[restart{w.Slot, why}]++
	}
	s.o.Logger.Info("a worker has ended", "slot", w.Slot, "pid", w.process.PID(), "reason", why, "status", status)
	good := s.good(w)
	s.comeBack(w)
	if place := s.slots[w.Slot]; place.current == w {
		place.current, place.due = nil, s.now
		if announced(why) && !good {
			place.due = s.now.Add(s.o.Backoff.Min)
		}
	}
	if why.failed() || why == ReasonClean && !good {
		s.fail(w.Slot, why, good)
	}
}

// comeBack lets the predecessor of a worker that never served go on.
func (s *Supervisor) comeBack(w *worker) {
	for _, old := range s.workers {
		if old.successor != w || !old.serves() {
			continue
		}
		s.slots[w.Slot].current, old.successor = old, nil
		if s.reloading && old.WayFor == ReasonReload {
			s.giveUpReload(w.Slot)
		}
	}
}

// fail has the next start in a slot wait.
func (s *Supervisor) fail(at int, why Reason, good bool) {
	place := s.slots[at]
	if good {
		place.failures = 0
	} else {
		s.failures.add(s.o.Backoff, s.now)
	}
	place.failures++
	wait := s.o.Backoff.wait(place.failures)
	if !good && s.failures.loops(s.o.Backoff, s.now) {
		wait = jittered(s.o.Backoff.Max)
	}
	place.due = s.now.Add(wait)
	if wait > 0 {
		s.o.Logger.Warn("a restart waits", "slot", at, "reason", why, "failures", place.failures, "wait", wait)
	}
}

// oomKilled says whether the kernel has killed a process for want of memory that no
// death has been put down to yet.
func (s *Supervisor) oomKilled() bool {
	if n, ok := s.countOOMKills(); ok {
		s.oomCredit += max(0, n-s.oomKills)
		s.oomKills = n
	}
	if s.oomCredit == 0 {
		return false
	}
	s.oomCredit--
	return true
}

func (s *Supervisor) countOOMKills() (n int64, ok bool) {
	if s.o.OOMKills == nil {
		return 0, false
	}
	return s.o.OOMKills()
}

// next returns when something is due.
func (s *Supervisor) next() time.Time {
	next := s.now.Add(time.Hour)
	soonest := func(t time.Time) {
		if !t.IsZero() && t.Before(next) {
			next = t
		}
	}
	for _, w := range s.workers {
		soonest(w.Deadline)
		soonest(s.startEnds(w))
		soonest(s.silenceEnds(w))
		soonest(s.retirement(w))
	}
	if s.o.BeatEvery > 0 {
		soonest(s.beatDue)
	}
	if s.stopping {
		return next
	}
	if s.failures.loops(s.o.Backoff, s.now) {
		soonest(s.failures.ends(s.o.Backoff))
	}
	for _, place := range s.slots {
		if place.due.After(s.now) {
			soonest(place.due)
		}
	}
	if s.o.MaxMemory > 0 {
		soonest(s.memoryDue)
	}
	return next
}
