package collector

import (
	"github.com/prefork-exporter/prefork_exporter/collector/internal/procfs"
)

// switches are how often somebody gave up a processor, and how often it was taken away.
type switches struct{ voluntary, involuntary uint64 }

func (s switches) plus(o switches) switches {
	return switches{s.voluntary + o.voluntary, s.involuntary + o.involuntary}
}

// threadSwitches are those of a process, by thread.
type threadSwitches map[int]switches

// mostThreads is of how many threads the status is read, some 10 µs each. What a process
// of more has done is not known.
const mostThreads = 256

// readSwitches returns the context switches of each thread. The status of a process has
// those of its first thread only.
func readSwitches(p *procfs.Process, s procfs.Stat) (threadSwitches, error) {
	if s.Threads == 1 {
		one, err := p.Status()
		if err != nil {
			return nil, err
		}
		return threadSwitches{s.PID: {one.Voluntary, one.Involuntary}}, nil
	}
	all, err := p.Threads(mostThreads)
	if err != nil {
		return nil, err
	}
	threads := make(threadSwitches, len(all))
	for id, one := range all {
		threads[id] = switches{one.Voluntary, one.Involuntary}
	}
	return threads, nil
}

// slotSwitches count the context switches of all workers that a slot has had. The kernel
// forgets those of a thread with the thread, so that they count as they were last seen:
// what it did between that and its end is missing. They never fall.
type slotSwitches struct {
	known   bool     // of all that are in the slot now
	ended   switches // by processes that are forgotten
	holders map[identity]*holder
	reading int // how many there were
}

// holder is a process that has, or had, a slot.
type holder struct {
	before  switches // that do not count
	ended   switches // by threads that have ended
	threads threadSwitches
	reading int // the last one that it was in
}

func (h *holder) take(now threadSwitches) {
	for id, before := range h.threads {
		after, lives := now[id]
		if !lives || after.voluntary < before.voluntary || after.involuntary < before.involuntary {
			h.ended = h.ended.plus(before)
		}
	}
	h.threads = now
}

func (h *holder) total() switches {
	total := h.ended
	for _, one := range h.threads {
		total = total.plus(one)
	}
	return switches{total.voluntary - h.before.voluntary, total.involuntary - h.before.involuntary}
}

// addSwitches takes what was read of all workers. Who could not be read counts as before.
// Of who was there before us only what follows counts: a counter that restarts has to
// begin at nothing, or else what is left of it is taken for an increase.
func (c *Worker) addSwitches(out *Output, all workerReadings) {
	for _, s := range c.switched {
		s.known = true
		s.reading++
	}
	for _, r := range all {
		s := c.switched[r.Slot]
		if s == nil {
			s = &slotSwitches{known: true, holders: map[identity]*holder{}}
			c.switched[r.Slot] = s
		}
		switch {
		case r.err != nil || r.over:
		case r.switches == nil:
			s.known = false
		default:
			s.take(identity{r.PID, r.start}, r.switches, r.Born.Before(c.begun))
		}
	}
	for slot, s := range c.switched {
		s.forget()
		if total := s.total(); s.known && len(s.holders) > 0 {
			out.Add(counter(c.switches, float64(total.voluntary), slot, "voluntary"), counter(c.switches, float64(total.involuntary), slot, "involuntary"))
		}
	}
}

func (s *slotSwitches) take(who identity, now threadSwitches, old bool) {
	h, known := s.holders[who]
	if !known {
		h = &holder{}
		s.holders[who] = h
	}
	h.take(now)
	h.reading = s.reading
	if old && !known {
		h.before = h.total()
	}
}

// mostHolders is how many are remembered of a slot: one that is out of sight for a moment
// would else count anew.
const mostHolders = 16

// forget adds up those that were out of sight for the longest.
func (s *slotSwitches) forget() {
	for len(s.holders) > mostHolders {
		var oldest identity
		for who, h := range s.holders {
			if first := s.holders[oldest]; first == nil || h.reading < first.reading {
				oldest = who
			}
		}
		s.ended = s.ended.plus(s.holders[oldest].total())
		delete(s.holders, oldest)
	}
}

func (s *slotSwitches) total() switches {
	total := s.ended
	for _, h := range s.holders {
		total = total.plus(h.total())
	}
	return total
}
