package watch

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// stage is where a master plays, in its own time.
type stage struct {
	*book
	t    *testing.T
	now  time.Time
	last int // process id
	do   doings
}

func newStage(t *testing.T, k Kind) *stage {
	s := &stage{book: newBook(newSlots()), t: t, now: time.Unix(1000, 0)}
	s.kind = k
	s.begin()
	return s
}

// born has n workers begin, one after another.
func (s *stage) born(n int) {
	for range n {
		s.last++
		s.birth(member{identity: identity{s.last, uint64(s.now.UnixMilli())}, master: 1, born: s.now}, "", s.now)
		s.now = s.now.Add(time.Millisecond)
	}
}

func exited(code int) ending {
	return ending{exitStatus: exitStatus{unix.WaitStatus(code << 8), true}, silence: -1}
}

func killed(by unix.Signal) ending {
	return ending{exitStatus: exitStatus{unix.WaitStatus(by), true}, silence: -1}
}

// ends has workers end, by their process ids.
func (s *stage) ends(e ending, pids ...int) {
	for _, pid := range pids {
		for who := range s.living {
			if who.PID == pid {
				s.end(who, e, s.now)
			}
		}
		s.now = s.now.Add(time.Millisecond)
	}
	s.settle(func(int) doings { return s.do }, s.now)
}

// goesOn lets time pass.
func (s *stage) goesOn(d time.Duration) {
	const tick = 100 * time.Millisecond
	for ; d > 0; d -= tick {
		s.now = s.now.Add(tick)
		s.settle(func(int) doings { return s.do }, s.now)
	}
}

// told returns the reasons of all deaths in order, and what else there is to tell.
func (s *stage) tell() string {
	var words []string
	for _, d := range s.deaths {
		words = append(words, d.Reason)
	}
	return fmt.Sprintf("%s; %d of %d, %v reloads", strings.Join(words, " "), len(s.living), s.expected, s.reloads)
}

const minute = time.Minute

func TestWhyWorkersHaveEnded(t *testing.T) {
	// Four workers, 1 to 4, that have been there for a while.
	for name, tc := range map[string]struct {
		kind Kind
		play func(s *stage)
		want string
	}{
		"one that is killed is replaced": {Gunicorn, func(s *stage) {
			s.ends(killed(unix.SIGKILL), 2)
			s.born(1)
			s.goesOn(minute)
		}, "signal; 4 of 4, 0 reloads"},
		"one that has reached its limit": {Gunicorn, func(s *stage) {
			s.ends(ending{exitStatus: exitStatus{known: true}, silence: -1, limited: true}, 1)
			s.born(1)
			s.goesOn(minute)
		}, "max_requests; 4 of 4, 0 reloads"},
		"all have reached their limit at once": {Gunicorn, func(s *stage) {
			s.ends(ending{exitStatus: exitStatus{known: true}, silence: -1, limited: true}, 1, 2, 3, 4)
			s.born(4)
			s.goesOn(minute)
		}, "max_requests max_requests max_requests max_requests; 4 of 4, 0 reloads"},
		"new ones first, then the old ones end": {Gunicorn, func(s *stage) {
			s.born(4)
			s.ends(exited(0), 1, 2, 3, 4)
			s.goesOn(minute)
		}, "reload reload reload reload; 4 of 4, 1 reloads"},
		"new ones first, and an old one takes its time": {Gunicorn, func(s *stage) {
			s.born(4)
			s.ends(exited(0), 1, 2, 3)
			s.goesOn(30 * time.Second)
			s.ends(killed(unix.SIGKILL), 4)
			s.goesOn(minute)
		}, "reload reload reload reload; 4 of 4, 1 reloads"},
		"an old one crashes in a reload": {Gunicorn, func(s *stage) {
			s.born(4)
			s.ends(killed(unix.SIGSEGV), 1)
			s.ends(exited(0), 2, 3, 4)
			s.goesOn(minute)
		}, "signal reload reload reload; 4 of 4, 1 reloads"},
		"a new one ends by itself in a reload": {Gunicorn, func(s *stage) {
			s.born(4)
			s.ends(exited(0), 1, 2, 3)
			s.ends(exited(0), 7)
			s.born(1)
			s.goesOn(2 * time.Second)
			s.ends(exited(0), 4)
			s.goesOn(minute)
		}, "reload reload reload clean reload; 4 of 4, 1 reloads"},
		"two reloads, one right after another": {Gunicorn, func(s *stage) {
			s.born(4)
			s.ends(exited(0), 1, 2, 3, 4)
			s.goesOn(2 * time.Second)
			s.born(4)
			s.ends(exited(0), 5, 6, 7, 8)
			s.goesOn(minute)
		}, "reload reload reload reload reload reload reload reload; 4 of 4, 2 reloads"},
		"all make room first, as unicorn's do": {Unicorn, func(s *stage) {
			s.ends(exited(0), 1, 2, 3, 4)
			s.born(4)
			s.goesOn(minute)
		}, "reload reload reload reload; 4 of 4, 1 reloads"},
		"one of unicorn's ends by itself": {Unicorn, func(s *stage) {
			s.ends(exited(0), 3)
			s.born(1)
			s.goesOn(minute)
		}, "clean; 4 of 4, 0 reloads"},
		"some new ones seem to be born before the old ones end": {Unicorn, func(s *stage) {
			before := s.now
			s.ends(exited(0), 1, 2, 3, 4)
			s.now = before.Add(-10 * time.Millisecond) // as the kernel's ticks have it
			s.born(2)
			s.now = before.Add(10 * time.Millisecond)
			s.born(2)
			s.goesOn(minute)
		}, "reload reload reload reload; 4 of 4, 1 reloads"},
		"somebody kills all": {Unicorn, func(s *stage) {
			s.ends(killed(unix.SIGKILL), 1, 2, 3, 4)
			s.born(4)
			s.goesOn(minute)
		}, "signal signal signal signal; 4 of 4, 0 reloads"},
		"one by one, and the master was told to": {Puma, func(s *stage) {
			s.told(s.now, time.Time{})
			for pid := 1; pid <= 4; pid++ {
				s.ends(exited(0), pid)
				s.goesOn(4 * time.Second)
				s.born(1)
				s.goesOn(4 * time.Second)
			}
		}, "reload reload reload reload; 4 of 4, 1 reloads"},
		"the new ones are there when it is heard": {Gunicorn, func(s *stage) {
			s.born(4)
			s.goesOn(100 * time.Millisecond)
			s.told(s.now, time.Time{})
			s.ends(exited(0), 1, 2, 3, 4)
			s.goesOn(minute)
		}, "reload reload reload reload; 4 of 4, 1 reloads"},
		"one has just been replaced, before it is heard": {Gunicorn, func(s *stage) {
			s.ends(killed(unix.SIGSEGV), 1)
			s.born(1)
			untold := s.now
			s.goesOn(100 * time.Millisecond)
			s.born(4)
			s.told(s.now, untold)
			s.ends(exited(0), 2, 3, 4, 5)
			s.goesOn(minute)
		}, "signal reload reload reload reload; 4 of 4, 1 reloads"},
		"one has just been replaced, and all have ended when it is heard": {Unicorn, func(s *stage) {
			s.ends(killed(unix.SIGSEGV), 1)
			s.born(1)
			untold := s.now
			s.goesOn(100 * time.Millisecond)
			s.ends(exited(0), 2, 3, 4, 5)
			s.told(s.now, untold)
			s.born(4)
			s.goesOn(minute)
		}, "signal reload reload reload reload; 4 of 4, 1 reloads"},
		"two are there when it is heard": {Gunicorn, func(s *stage) {
			s.born(2)
			s.goesOn(100 * time.Millisecond)
			s.told(s.now, time.Time{})
			s.born(2)
			s.ends(exited(0), 1, 2, 3, 4)
			s.goesOn(minute)
		}, "reload reload reload reload; 4 of 4, 1 reloads"},
		"one more, then one less": {Gunicorn, func(s *stage) {
			s.born(1)
			s.goesOn(minute)
			s.ends(exited(0), 1)
			s.goesOn(minute)
		}, "scale_down; 4 of 4, 0 reloads"},
		"one less": {Gunicorn, func(s *stage) {
			s.ends(exited(0), 1)
			s.goesOn(minute)
		}, "scale_down; 3 of 3, 0 reloads"},
		"two less, while one that has ended is replaced": {Gunicorn, func(s *stage) {
			s.ends(exited(0), 1, 2, 3)
			s.born(1)
			s.goesOn(minute)
		}, "clean scale_down scale_down; 2 of 2, 0 reloads"},
		"one that crashes and is not replaced is missed": {Gunicorn, func(s *stage) {
			s.ends(killed(unix.SIGSEGV), 1)
			s.goesOn(minute)
		}, "signal; 3 of 4, 0 reloads"},
		"the master ends them and itself": {Gunicorn, func(s *stage) {
			s.ends(exited(0), 1, 2, 3)
			s.ends(killed(unix.SIGKILL), 4)
			s.do.stopping = true
			s.goesOn(minute)
		}, "shutdown shutdown shutdown shutdown; 0 of 4, 0 reloads"},
		"another master takes its place": {Gunicorn, func(s *stage) {
			s.do = doings{stopping: true, replaced: true}
			s.ends(exited(0), 1, 2, 3, 4)
			s.goesOn(minute)
		}, "reload reload reload reload; 0 of 4, 0 reloads"},
		"a boot error ends the master, too": {Gunicorn, func(s *stage) {
			s.do.stopping = true
			s.ends(exited(3), 1)
			s.ends(exited(0), 2, 3, 4)
			s.goesOn(minute)
		}, "boot_error shutdown shutdown shutdown; 0 of 4, 0 reloads"},
		"one is replaced by one that cannot boot": {Gunicorn, func(s *stage) {
			s.ends(killed(unix.SIGKILL), 1)
			s.born(1)
			s.do.stopping = true
			s.ends(exited(3), 5)
			s.ends(exited(0), 2, 3, 4)
			s.goesOn(minute)
		}, "boot_error shutdown shutdown shutdown signal; 0 of 4, 0 reloads"},
		"one is replaced, and then the master ends": {Gunicorn, func(s *stage) {
			s.ends(exited(0), 1)
			s.born(1)
			s.do.stopping = true
			s.ends(exited(0), 2, 3, 4, 5)
			s.goesOn(minute)
		}, "shutdown shutdown shutdown shutdown clean; 0 of 4, 0 reloads"},
		"a master that stands still is waited for": {Gunicorn, func(s *stage) {
			s.do.paused = true
			s.ends(exited(0), 1)
			s.goesOn(minute)
			s.do.paused = false
			s.born(1)
			s.goesOn(minute)
		}, "clean; 4 of 4, 0 reloads"},
		"one is killed for memory": {Gunicorn, func(s *stage) {
			s.killedForMemory(1, s.now)
			s.ends(killed(unix.SIGKILL), 2)
			s.born(1)
			s.goesOn(minute)
			s.ends(killed(unix.SIGKILL), 3)
			s.born(1)
			s.goesOn(minute)
		}, "oom signal; 4 of 4, 0 reloads"},
		"two are, one after the other": {Gunicorn, func(s *stage) {
			s.killedForMemory(2, s.now)
			s.ends(killed(unix.SIGKILL), 2, 3)
			s.born(2)
			s.goesOn(minute)
		}, "oom oom; 4 of 4, 0 reloads"},
		"one of two that are killed is killed for memory": {Gunicorn, func(s *stage) {
			s.killedForMemory(1, s.now)
			s.ends(killed(unix.SIGKILL), 2, 3)
			s.born(2)
			s.goesOn(minute)
		}, "signal signal; 4 of 4, 0 reloads"},
		"one that is no worker is killed for memory, long before": {Gunicorn, func(s *stage) {
			s.killedForMemory(1, s.now)
			s.goesOn(10 * time.Second)
			s.ends(killed(unix.SIGKILL), 2)
			s.born(1)
			s.goesOn(minute)
		}, "signal; 4 of 4, 0 reloads"},
		"one crashes when another process is killed for memory": {Gunicorn, func(s *stage) {
			s.killedForMemory(1, s.now)
			s.ends(killed(unix.SIGSEGV), 2)
			s.born(1)
			s.goesOn(minute)
		}, "signal; 4 of 4, 0 reloads"},
		"the log has told why": {Unicorn, func(s *stage) {
			s.hint(2, "", reasonTimeout)
			s.ends(killed(unix.SIGKILL), 2)
			s.born(1)
			s.goesOn(minute)
		}, "timeout; 4 of 4, 0 reloads"},
		"the log tells why afterwards, by the slot": {Puma, func(s *stage) {
			s.ends(killed(unix.SIGKILL), 2)
			s.hint(-1, "1", reasonTimeout)
			s.born(1)
			s.goesOn(minute)
		}, "timeout; 4 of 4, 0 reloads"},
		"workers of a master before are not counted among those of this one": {Gunicorn, func(s *stage) {
			s.begin()
			s.born(2)
			s.goesOn(minute)
			s.born(1)
			s.ends(exited(0), 5)
			s.goesOn(minute)
		}, "clean; 6 of 2, 0 reloads"},
		"nobody knows how it has ended": {Gunicorn, func(s *stage) {
			s.ends(ending{silence: -1}, 1)
			s.born(1)
			s.goesOn(minute)
		}, "unknown; 4 of 4, 0 reloads"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t, tc.kind)
			s.born(4)
			s.goesOn(minute)
			tc.play(s)
			if got := s.tell(); got != tc.want {
				t.Errorf("%s\nwant %s", got, tc.want)
			}
			for slot := range s.slots.of {
				if s.living[slot] == nil {
					t.Errorf("%v has ended and has a slot", slot)
				}
			}
		})
	}
}

func TestWorkersThatAMasterStartsSlowlyAreNoReload(t *testing.T) {
	s := newStage(t, Gunicorn)
	for range 8 {
		s.born(1)
		s.goesOn(2 * time.Second)
	}
	s.goesOn(minute)
	if s.expected != 8 || s.renewal != nil || s.reloads != 0 {
		t.Errorf("%d expected, renewal %v, %v reloads; want 8 and none", s.expected, s.renewal, s.reloads)
	}
}

func TestReasonsAreJoinedFromWhatIsKnown(t *testing.T) {
	const second = time.Second
	hung := func(e ending) ending {
		e.silence, e.timeout = 31*second, 30*second
		return e
	}
	for name, tc := range map[string]struct {
		kind Kind
		ending
		scene
		want string
	}{
		"gunicorn 20.1 exits with 1 when its worker hung":        {Gunicorn, hung(exited(1)), scene{}, "timeout"},
		"gunicorn 22's sync worker exits with 0":                 {Gunicorn, hung(exited(0)), scene{}, "timeout"},
		"a worker that heeds no SIGABRT is killed":               {Gunicorn, hung(killed(unix.SIGKILL)), scene{}, "timeout"},
		"a worker that dies of SIGABRT":                          {Gunicorn, hung(killed(unix.SIGABRT)), scene{}, "timeout"},
		"one that hung and crashed":                              {Gunicorn, hung(killed(unix.SIGSEGV)), scene{}, "signal"},
		"one that hung and told why":                             {Gunicorn, hung(exited(4)), scene{}, "boot_error"},
		"one that hung, and nobody knows how it ended":           {Gunicorn, hung(ending{}), scene{}, "timeout"},
		"silent for as long as it may be":                        {Gunicorn, ending{exitStatus: exitStatus{known: true}, silence: 30 * second, timeout: 30 * second}, scene{}, "timeout"},
		"silent for less":                                        {Gunicorn, ending{exitStatus: exitStatus{known: true}, silence: 29 * second, timeout: 30 * second}, scene{}, "clean"},
		"no timeout is known":                                    {Gunicorn, ending{exitStatus: exitStatus{known: true}, silence: 99 * second}, scene{}, "clean"},
		"another server's silence means nothing":                 {Unicorn, hung(exited(1)), scene{}, "exit_code"},
		"the log tells of a timeout":                             {Unicorn, ending{exitStatus: killed(unix.SIGKILL).exitStatus, log: "timeout"}, scene{}, "timeout"},
		"the log tells of a limit":                               {UWSGI, ending{exitStatus: exitStatus{known: true}, log: "max_requests"}, scene{}, "max_requests"},
		"a limit does not make a crash":                          {Gunicorn, ending{exitStatus: exited(1).exitStatus, limited: true, silence: -1}, scene{}, "exit_code"},
		"killed for memory":                                      {Gunicorn, ending{exitStatus: killed(unix.SIGKILL).exitStatus, oom: true}, scene{}, "oom"},
		"killed for memory, and silent":                          {Gunicorn, func() ending { e := hung(killed(unix.SIGKILL)); e.oom = true; return e }(), scene{}, "oom"},
		"gunicorn's boot error":                                  {Gunicorn, exited(3), scene{stopping: true}, "boot_error"},
		"the same code of another server":                        {Puma, exited(3), scene{}, "exit_code"},
		"uWSGI's reload":                                         {UWSGI, exited(17), scene{}, "reload"},
		"uWSGI's brutal reload":                                  {UWSGI, exited(31), scene{}, "reload"},
		"uWSGI has no application":                               {UWSGI, exited(22), scene{}, "boot_error"},
		"uWSGI cheaps a worker":                                  {UWSGI, exited(15), scene{shrinking: true}, "scale_down"},
		"uWSGI's worker has reached its limit":                   {UWSGI, func() ending { e := exited(17); e.limited = true; return e }(), scene{}, "max_requests"},
		"uWSGI's worker has one, and all are replaced":           {UWSGI, func() ending { e := exited(17); e.limited = true; return e }(), scene{reloading: true}, "reload"},
		"uWSGI's end":                                            {UWSGI, exited(30), scene{}, "shutdown"},
		"terminated, and not replaced":                           {Unicorn, killed(unix.SIGTERM), scene{shrinking: true}, "scale_down"},
		"terminated by somebody":                                 {Unicorn, killed(unix.SIGTERM), scene{}, "signal"},
		"crashed in a reload":                                    {Gunicorn, killed(unix.SIGSEGV), scene{reloading: true}, "signal"},
		"crashed, and the server stops":                          {Gunicorn, killed(unix.SIGSEGV), scene{stopping: true}, "shutdown"},
		"crashed, and not replaced":                              {Gunicorn, killed(unix.SIGSEGV), scene{shrinking: true}, "signal"},
		"nobody knows, and the server stops":                     {Gunicorn, ending{}, scene{stopping: true}, "shutdown"},
		"nobody knows, and the server reloads":                   {Gunicorn, ending{}, scene{reloading: true}, "unknown"},
		"nobody knows, and the server has put none in its place": {Gunicorn, ending{}, scene{shrinking: true}, "unknown"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := reason(tc.kind, tc.ending, tc.scene); got != tc.want {
				t.Errorf("%s, want %s", got, tc.want)
			}
		})
	}
}

func TestSlotsAreTheLowestThatAreFree(t *testing.T) {
	s := newSlots()
	who := func(pid int) identity { return identity{pid, 1} }
	var got []string
	for pid := 1; pid <= 3; pid++ {
		got = append(got, s.take(who(pid), ""))
	}
	s.leave(who(2))
	got = append(got, s.take(who(4), ""), s.take(who(4), ""), s.take(who(5), ""), s.take(who(6), "1"))
	if want := []string{"0", "1", "2", "1", "1", "3", "1"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if got := s.take(who(5), "7"); got != "7" {
		t.Errorf("one that tells its index has slot %s, want 7", got)
	}
}

func TestSlotsOutliveTheExporter(t *testing.T) {
	file := t.TempDir() + "/new/slots.json"
	s := newSlots()
	s.take(identity{1, 10}, "")
	s.take(identity{2, 20}, "web")
	if err := s.save(file, "boot"); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		boot string
		want map[identity]string
	}{
		"the same run of the machine": {"boot", map[identity]string{{1, 10}: "0", {2, 20}: "web"}},
		"another one":                 {"later", map[identity]string{}},
	} {
		t.Run(name, func(t *testing.T) {
			again := newSlots()
			if err := again.load(file, tc.boot); err != nil || fmt.Sprint(again.of) != fmt.Sprint(tc.want) {
				t.Errorf("%v, %v; want %v", again.of, err, tc.want)
			}
		})
	}
}
