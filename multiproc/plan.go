package multiproc

import (
	"maps"
	"math"
	"slices"

	"github.com/prefork-exporter/prefork_exporter/multiproc/internal/entry"
)

// plan decides where every entry goes, after files or entries came or went. It
// leaves everything ready for accumulate.
func (m *Merger) plan() {
	m.keepLast()
	m.epoch++
	m.declareAll()
	m.gained = map[cellKey]*cell{}
	for f := range m.files() {
		if f.binding == nil || f.binding.layout != f.layout {
			known := f.bound()
			m.bind(f)
			f.reconcile(known)
			m.receive(f)
		}
	}
	for _, s := range m.sources {
		s.settle()
	}
	m.gained = nil
	m.mark()
	maps.DeleteFunc(m.bindings, func(_ bindingKey, b *binding) bool { return b.epoch != m.epoch })
	m.families.forget(m.epoch)
	for _, f := range m.families.declared {
		f.decided = true
	}
	m.build()
	m.countFiles()
	if m.epoch%collectEvery == 0 {
		m.collect()
	}
}

// receive notes what is known of a new file now that it has been read.
func (m *Merger) receive(f *file) {
	if !f.fresh || !f.read {
		return
	}
	f.source.dirty = f.source.dirty || f.source.hasLeft() // the state has its id
	if f.layout.len() > 0 {
		m.revive(f)
		f.fresh = false
	}
}

// collectEvery is how many plans go by until what they left is collected.
const collectEvery = 16

// files goes over the files that can be read, in the order that decides.
func (m *Merger) files() func(yield func(*file) bool) {
	return func(yield func(*file) bool) {
		for _, s := range m.sources {
			for _, f := range s.order {
				if !f.skip && !yield(f) {
					return
				}
			}
		}
	}
}

// declareAll declares the families of all files that have no binding yet, so
// that the first file's word counts before the first cell is made.
func (m *Merger) declareAll() {
	type entries struct {
		bindingKey
		from int
	}
	done := map[entries]bool{}
	for f := range m.files() {
		e := entries{bindingKey{layout: f.layout, source: f.source, class: f.class()}, f.bound()}
		if f.binding != nil && f.binding.layout == f.layout || done[e] {
			continue
		}
		done[e] = true
		for _, key := range f.layout.keys[e.from:] {
			if key.err == nil {
				m.declare(f, f.view(key))
			}
		}
	}
}

// bound returns how many entries of f's layout its binding has already.
func (f *file) bound() int {
	if f.binding != nil && f.layout.from == f.binding.layout {
		return f.binding.layout.len()
	}
	return 0
}

// reconcile settles what a file that was written anew had counted before, with
// its entries from known on: an entry that is back and no lower goes on, one that
// is lower began anew, and one that is not there may come back.
func (f *file) reconcile(known int) {
	if f.replaced != nil {
		for c, v := range f.missing {
			f.replaced.add(c, v)
		}
		f.missing, f.replaced = f.replaced, nil
	}
	if len(f.missing) == 0 {
		return
	}
	for i := known; i < len(f.binding.cells); i++ {
		c := f.binding.cells[i]
		before, ok := f.missing[c]
		if !ok {
			continue
		}
		delete(f.missing, c)
		if f.values[i] < before {
			f.keep(c, before)
		}
	}
	f.source.dirty = true
}

// gone goes over what entries that are gone or began anew had counted.
func (f *file) gone(yield func(*cell, float64) bool) {
	for _, values := range []counts{f.past, f.missing, f.replaced} {
		for c, v := range values {
			if !yield(c, v) {
				return
			}
		}
	}
}

// keep adds v to what entries that are gone had counted.
func (f *file) keep(c *cell, v float64) {
	if f.past == nil {
		f.past = counts{}
	}
	f.past.add(c, v)
}

// counts is what entries that are gone had counted, by where they went.
type counts map[*cell]float64

// add adds v to what c has.
func (n counts) add(c *cell, v float64) {
	if have, ok := n[c]; ok {
		v = c.combine(have, v)
	}
	n[c] = v
}

// addTo adds v to an accumulator of c, which may have no value yet.
func (c *cell) addTo(acc *float64, v float64) {
	if Present(*acc) {
		v = c.combine(*acc, v)
	}
	*acc = v
}

// combine adds two values of the cell by its operation.
func (c *cell) combine(a, b float64) float64 {
	switch c.op {
	case opSum:
		return a + b
	case opMin, opFmin:
		return math.Min(a, b)
	}
	return math.Max(a, b)
}

// counted adds to dst what the entries of f, without those that are gone, have
// counted: what stays when they go. It returns dst, made if it was nil.
func (f *file) counted(dst counts) counts {
	if dst == nil {
		dst = counts{}
	}
	if f.binding == nil {
		return dst
	}
	for i, c := range f.binding.cells {
		if !c.counts || c.refused || i >= len(f.values) || math.IsNaN(f.values[i]) {
			continue
		}
		dst.add(c, f.values[i])
	}
	return dst
}

// mark gives every cell that is in use the present epoch.
func (m *Merger) mark() {
	all := func(cells func(func(*cell) bool)) {
		for c := range cells {
			c.epoch = m.epoch
		}
	}
	for f := range m.files() {
		for c := range f.gone {
			c.epoch = m.epoch
		}
		if f.binding.epoch != m.epoch {
			f.binding.epoch = m.epoch
			all(slices.Values(f.binding.cells))
		}
	}
	for _, s := range m.sources {
		for c := range s.left {
			c.epoch = m.epoch
		}
	}
}

// keepLast puts the values that the last snapshot showed where the next plan finds them.
func (m *Merger) keepLast() {
	for i := 0; i < len(m.layout.owner); {
		s := m.layout.owner[i]
		n := 1
		for i+n < len(m.layout.owner) && m.layout.owner[i+n] == s {
			n++
		}
		if s.last == nil {
			s.last = make([]float64, n)
		}
		copy(s.last, m.last[i:i+n])
		i += n
	}
}

// build makes the layout of the present families, and gives every cell its slot.
func (m *Merger) build() {
	b := builder{layout: &Layout{}, slot: slotFirst}
	room := len(m.layout.steps) + len(m.layout.steps)/16
	b.layout.steps = make([]step, 0, room)
	b.layout.owner = make([]*series, 0, room)
	b.last = make([]float64, 0, room)
	b.cells = make([]*cell, 0, len(m.cells)+len(m.cells)/16)
	for _, e := range m.families.sorted {
		b.family(e)
	}
	b.layout.Samples = len(b.layout.steps)
	m.layout, m.last = b.layout, b.last
	m.seriesCount = b.layout.Series
	for _, binding := range m.bindings {
		if binding.epoch == m.epoch {
			for i, c := range binding.cells {
				binding.slots[i] = c.slot
			}
		}
	}
	m.begin(int(b.slot), b.cells)
}

// begin makes the accumulators, and what each of them begins with.
func (m *Merger) begin(slots int, cells []*cell) {
	m.cells = cells
	m.acc, m.stamps, m.initial = make([]float64, slots), make([]float64, slots), make([]float64, slots)
	for _, c := range cells {
		if c.op != opSum {
			m.initial[c.slot] = unset
		}
	}
	for _, s := range m.sources {
		for c, v := range s.left {
			c.addTo(&m.initial[c.slot], v)
		}
	}
}

// collect forgets what nothing uses any more.
func (m *Merger) collect() {
	used := map[*layout]bool{}
	for f := range m.files() {
		used[f.layout] = true
	}
	m.in.collect(used)
}

// builder lays out the families one after another.
type builder struct {
	layout *Layout
	slot   uint32
	cells  []*cell
	last   []float64
}

func (b *builder) family(e *exposed) {
	f := Family{Name: e.name, Type: e.typ, Help: e.help(), First: len(b.layout.steps)}
	f.Samples = make([]Sample, 0, e.size())
	for group, s := range e.sorted {
		if e.typ == entry.Histogram || e.typ == entry.Summary {
			b.distribution(&f, s, group)
		} else {
			b.sample(&f, s, Sample{Labels: s.labels, Group: group}, step{rises: e.typ == entry.Counter, cell: b.place(s.value)})
		}
		b.lasts(s)
	}
	b.layout.Series += len(e.sorted)
	b.layout.Families = append(b.layout.Families, f)
}

// size returns how many samples e has at most.
func (e *exposed) size() int {
	if e.typ != entry.Histogram && e.typ != entry.Summary {
		return len(e.sorted)
	}
	n := 0
	for _, s := range e.sorted {
		n += len(s.buckets) + 3
	}
	return n
}

// distribution lays out a histogram or a summary.
func (b *builder) distribution(f *Family, s *series, group int) {
	for i, bucket := range s.buckets {
		b.sample(f, s, Sample{Part: PartBucket, Labels: s.labels, Bound: bucket.text, Group: group}, step{
			part: PartBucket, first: i == 0, rises: true, single: b.place(bucket.single), cell: b.place(bucket.total),
		})
	}
	if s.bare != nil {
		b.sample(f, s, Sample{Part: PartBareBucket, Labels: s.labels, Group: group}, step{part: PartBareBucket, rises: true, cell: b.place(s.bare)})
	}
	if s.sum != nil {
		b.sample(f, s, Sample{Part: PartSum, Labels: s.labels, Group: group}, step{part: PartSum, rises: true, cell: b.place(s.sum)})
	}
	if s.count != nil || len(s.buckets) > 0 {
		b.sample(f, s, Sample{Part: PartCount, Labels: s.labels, Group: group}, step{
			part: PartCount, first: len(s.buckets) == 0, rises: true, cell: b.place(s.count),
		})
	}
}

func (b *builder) sample(f *Family, s *series, sample Sample, st step) {
	f.Samples = append(f.Samples, sample)
	b.layout.steps = append(b.layout.steps, st)
	b.layout.owner = append(b.layout.owner, s)
}

// place gives the cell its slot.
func (b *builder) place(c *cell) uint32 {
	if c == nil {
		return slotZero
	}
	c.slot = b.slot
	b.slot++
	b.cells = append(b.cells, c)
	return c.slot
}

// lasts brings in what the last snapshot showed of s.
func (b *builder) lasts(s *series) {
	n := len(b.layout.steps) - len(b.last)
	if len(s.last) != n {
		s.last = slices.Repeat([]float64{math.Inf(-1)}, n)
	}
	b.last = append(b.last, s.last...)
}

// help returns the family's help, or what Python's client says when it has none.
func (e *exposed) help() string {
	if e.typ == entry.Untyped && e.from.typ != entry.Untyped {
		return "Samples that do not fit the type of " + e.from.name
	}
	if e.from.help == "" {
		return "Multiprocess metric"
	}
	return e.from.help
}
