package watch

import (
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// book keeps what happens with the workers of one master: who there is, who has ended, and
// why. It asks nobody, not even the clock. It is for one goroutine.
//
// Why a worker was asked to end is not to be seen in itself, but in what its master does
// next: it puts another in its place or does not, ends too, or has had new ones started
// before. So a death is counted at once, its reason only when it has settled.
type book struct {
	kind   Kind
	slots  *slots
	living map[identity]*member
	unsure []death // whose reason is not settled, oldest first

	// expected is how many workers the master keeps, as far as its doings show.
	expected int
	starting bool      // the master has only begun to start them
	changed  time.Time // when one was last born, or ended
	renewal  *renewal  // nil: none is under way
	// memoryKills are when the kernel was found to have killed a process for want of memory.
	memoryKills []time.Time

	exits    map[Exit]float64 // by an Exit without its count
	restarts map[Restart]float64
	reloads  float64
	used     map[string]Used
	deaths   []Death
}

// member is a living worker.
type member struct {
	identity
	slot   string
	master int
	born   time.Time
	noted  time.Time // when it was found
	former bool      // it has outlived its master, and another one is there
	placed bool      // the slot is not ours to give
	log    string    // the reason of its end that the server's log has given
	// What it was when it was last looked at.
	paused   bool // it can do nothing now
	ended    bool // and was not waited for yet
	resident float64
	used     Used
	sign     time.Time // the last sign of life; zero: none is known
	booting  bool      // it has not given one yet
}

// death is one whose reason is not settled.
type death struct {
	member
	ending
	at       time.Time
	followed bool // another was started in its place, so the master was not about to end
}

// renewal is a replacement of all workers, begun at since.
type renewal struct {
	since   time.Time
	certain bool // the master was told to; else new workers only look like it
}

// isTrue says whether old workers do make way for new ones.
func (r *renewal) isTrue(b *book) bool {
	return r.certain || b.olderThan(r.since) < b.expected
}

const (
	// settling is how long a master may take to put a worker in the place of another.
	settling = 1500 * time.Millisecond
	// calm is how long a number of workers has to stay for the master to want it.
	calm = 3 * time.Second
	// renewalEnds is when new workers beside old ones are no renewal any more: the old
	// ones have had the time for their last requests that servers give by default, and more.
	renewalEnds = 45 * time.Second
	// toldRenewalEnds is likewise, where it is certain that there is one.
	toldRenewalEnds = 10 * time.Minute
	keptDeaths      = 50
)

func newBook(s *slots) *book {
	return &book{
		slots: s, living: map[identity]*member{}, exits: map[Exit]float64{}, restarts: map[Restart]float64{}, used: map[string]Used{},
	}
}

// begin notes that there is a master whose workers are not known yet. Those of another one
// do not count any more.
func (b *book) begin() {
	b.expected, b.starting, b.renewal = 0, true, nil
	for _, m := range b.living {
		m.former = true
	}
}

// size is how many workers the master has.
func (b *book) size() (n int) {
	for _, m := range b.living {
		if !m.former {
			n++
		}
	}
	return n
}

// birth notes a worker that was not known before. It may be older than the last deaths.
func (b *book) birth(m member, index string, now time.Time) {
	m.slot, m.noted = b.slots.take(m.identity, index), now
	if old := b.living[m.identity]; old != nil { // its master has become another program
		old.slot = m.slot
		return
	}
	b.living[m.identity] = &m
	b.changed = now
	b.follow(m)
	surplus := b.livingAt(m.born) - b.expected
	switch {
	case surplus <= 0:
	case b.starting:
		b.expected = max(b.expected, b.size())
	case surplus >= b.expected && b.renewal == nil: // as many as there were
		b.renewal = &renewal{since: b.youngest(surplus)}
	}
}

// clocks is by how much the times of births and deaths may disagree.
const clocks = 50 * time.Millisecond

// follow notes that a worker was born after another had ended.
func (b *book) follow(m member) {
	for i := range b.unsure {
		if one := &b.unsure[i]; !one.followed && one.master == m.master && m.born.After(one.at.Add(-clocks)) {
			one.followed = true
			return
		}
	}
}

// livingAt counts the workers that there were then, as far back as deaths are not settled.
func (b *book) livingAt(t time.Time) (n int) {
	for _, m := range b.living {
		if !m.former && !m.born.After(t) {
			n++
		}
	}
	for _, one := range b.unsure {
		if !one.former && !one.born.After(t) && one.at.After(t) {
			n++
		}
	}
	return n
}

// olderThan counts the living who were there before.
func (b *book) olderThan(t time.Time) (n int) {
	for _, m := range b.living {
		if !m.former && m.born.Before(t) {
			n++
		}
	}
	return n
}

// youngest returns when the first of the n youngest was born.
func (b *book) youngest(n int) time.Time {
	var born []time.Time
	for _, m := range b.living {
		born = append(born, m.born)
	}
	slices.SortFunc(born, func(a, b time.Time) int { return b.Compare(a) })
	return born[min(n, len(born))-1]
}

// hearsay is how long ago a master may have been told what is heard now.
const hearsay = 500 * time.Millisecond

// told notes that the master was told to replace all its workers, and may have begun to.
// It had not been told yet at untold; zero: nobody knows when not.
func (b *book) told(now, untold time.Time) {
	since := now.Add(-hearsay)
	if last := b.lastBorn(untold); !last.Before(since) {
		since = last.Add(1)
	}
	if b.renewal != nil && b.renewal.since.After(since) {
		since = b.renewal.since
	}
	b.renewal = &renewal{since: since, certain: true}
}

// lastBorn returns when the youngest was born of those that were known and lived then.
func (b *book) lastBorn(then time.Time) (last time.Time) {
	note := func(m *member) {
		if !m.noted.After(then) && m.born.After(last) {
			last = m.born
		}
	}
	for _, m := range b.living {
		if !m.former {
			note(m)
		}
	}
	for i := range b.unsure {
		if one := &b.unsure[i]; one.at.After(then) {
			note(&one.member)
		}
	}
	return last
}

// end notes that a worker has ended.
func (b *book) end(who identity, e ending, now time.Time) {
	m, known := b.living[who]
	if !known {
		return
	}
	delete(b.living, who)
	b.slots.leave(who)
	b.changed = now
	before := b.used[m.slot]
	b.used[m.slot] = Used{User: before.User + m.used.User, System: before.System + m.used.System}
	e.log = m.log
	b.exits[exitOf(e)]++
	b.unsure = append(b.unsure, death{member: *m, ending: e, at: now})
}

// hint notes why a worker ends, or has ended, by what its server says.
func (b *book) hint(pid int, slot, why string) {
	is := func(m *member) bool { return m.PID == pid || pid <= 0 && slot != "" && m.slot == slot }
	for _, m := range b.living {
		if is(m) {
			m.log = why
		}
	}
	for i := range b.unsure {
		if one := &b.unsure[i]; is(&one.member) {
			one.ending.log = why
		}
	}
}

// dismiss notes that who was taken for a worker is none.
func (b *book) dismiss(who identity) {
	if b.living[who] == nil {
		return
	}
	delete(b.living, who)
	b.slots.leave(who)
	b.expected = max(b.expected-1, 0)
}

// exitOf returns how a worker has ended, to count it by.
func exitOf(e ending) Exit {
	switch {
	case !e.known:
		return Exit{}
	case e.Signaled():
		return Exit{Signal: signalName(e.Signal())}
	}
	return Exit{Code: strconv.Itoa(e.ExitStatus())}
}

// signalName returns a signal's name without SIG.
func signalName(s unix.Signal) string {
	if name := unix.SignalName(s); len(name) > 3 {
		return name[3:]
	}
	return strconv.Itoa(int(s))
}

// doings are what a master is seen to do.
type doings struct {
	stopping bool // or it has ended
	replaced bool // another master takes, or has taken, its place
	paused   bool // it can do nothing now
}

// settle gives those deaths a reason whose time has come. It is told what the masters do,
// by their process ids.
func (b *book) settle(do func(master int) doings, now time.Time) {
	b.recognise()
	var still []death
	left := len(b.unsure)
	for i, one := range b.unsure {
		d := do(one.master)
		s := scene{
			stopping:  d.stopping && !d.replaced && !one.followed,
			reloading: d.stopping && d.replaced || b.renewal != nil && one.born.Before(b.renewal.since),
			shrinking: !one.followed && left <= b.expected-b.size(),
		}
		left--
		if !s.stopping && !isPlain(b.kind, one.ending) && (d.paused || now.Sub(one.at) < settling) {
			still = append(still, one)
			continue
		}
		one.oom = b.isMemoryKill(one, b.unsure[i+1:], now)
		b.judge(one, s)
	}
	b.unsure = still
	b.adjust(now)
}

// killedForMemory notes that the kernel has killed that many processes for want of memory,
// workers or not.
func (b *book) killedForMemory(n int, now time.Time) {
	for range n {
		b.memoryKills = append(b.memoryKills, now)
	}
}

// tearingDown is how long the end of a process takes whose memory has to be given back.
const tearingDown = 5 * time.Second

// isMemoryKill says whether a worker was killed for want of memory. The kernel tells no
// process ids: if more were killed than it says, by whomever, nobody knows which.
func (b *book) isMemoryKill(one death, others []death, now time.Time) bool {
	b.memoryKills = slices.DeleteFunc(b.memoryKills, func(t time.Time) bool { return now.Sub(t) > tearingDown })
	if !one.isKill() || len(b.memoryKills) == 0 {
		return false
	}
	kills := 1
	for _, other := range others {
		if other.isKill() {
			kills++
		}
	}
	if kills > len(b.memoryKills) {
		b.memoryKills = nil
		return false
	}
	b.memoryKills = b.memoryKills[1:]
	return true
}

func (e exitStatus) isKill() bool { return e.known && e.Signaled() && e.Signal() == unix.SIGKILL }

// recognise finds a renewal in which each worker makes room before another takes its
// place: all that there were have ended as one does who is asked to.
func (b *book) recognise() {
	if b.renewal != nil || len(b.unsure) < 2 || b.kind == Gunicorn || b.size() == 0 {
		return // gunicorn's new workers come first; its old ones may reach max_requests together
	}
	first := b.unsure[0].at.Add(-clocks)
	if b.olderThan(first) > 0 {
		return
	}
	for _, one := range b.unsure {
		if !one.known || !isAsked(b.kind, one.WaitStatus) || one.Signaled() && one.Signal() == unix.SIGKILL {
			return
		}
	}
	b.renewal = &renewal{since: first}
}

// judge counts a death by its reason.
func (b *book) judge(one death, s scene) {
	why := reason(b.kind, one.ending, s)
	if why != reasonShutdown && why != reasonScaleDown {
		b.restarts[Restart{Slot: one.slot, Reason: why}]++
	}
	if why == reasonScaleDown {
		b.expected = max(b.expected-1, 0)
	}
	exit := exitOf(one.ending)
	b.deaths = append(b.deaths, Death{
		At: one.at, Slot: one.slot, PID: one.PID, Born: one.born, Reason: why, Code: exit.Code, Signal: exit.Signal, ResidentBytes: one.resident,
	})
	b.deaths = b.deaths[max(0, len(b.deaths)-keptDeaths):]
}

// adjust notes what has gone on for long enough to be meant.
func (b *book) adjust(now time.Time) {
	if b.renewal != nil {
		b.finish(now)
		return
	}
	if len(b.unsure) == 0 && b.size() > 0 && now.Sub(b.changed) >= calm {
		b.expected, b.starting = max(b.expected, b.size()), false
	}
}

// finish ends a renewal when none is left who was there before it, or when it was none.
func (b *book) finish(now time.Time) {
	longest := renewalEnds
	if b.renewal.certain {
		longest = toldRenewalEnds
	}
	switch {
	case b.size() > 0 && len(b.unsure) == 0 && b.olderThan(b.renewal.since) == 0:
		b.reloads++
	case now.Sub(b.renewal.since) < longest:
		return
	default:
		b.expected = max(b.expected, b.size())
	}
	b.renewal, b.changed = nil, now
}
