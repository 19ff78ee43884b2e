package multiproc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prefork-exporter/prefork_exporter/multiproc/internal/entry"
)

// Limits are the guards against hostile or runaway files. What was taken in
// stays; what is beyond is left out and counted.
type Limits struct {
	Files      int // in all directories together
	FileBytes  int // of one file that are used
	FileSeries int // entries of one file
	Series     int // of all families together
	LabelBytes int // of the names and values of one series' labels
}

// DefaultLimits returns limits that no sane application reaches.
func DefaultLimits() Limits {
	return Limits{Files: 100_000, FileBytes: 64 << 20, FileSeries: 100_000, Series: 1_000_000, LabelBytes: 64 << 10}
}

// Options are what a [Merger] needs to know.
type Options struct {
	Logger *slog.Logger           // nil: no log
	Limits Limits                 // zero: DefaultLimits
	Refuse func(name string) bool // names of families and samples that files may not use; nil: none
	Shadow func(name string) bool // names that are known better from elsewhere: left out, without a word; nil: none

	// StateDir is where the merger keeps what files that are gone had counted,
	// made when it is needed. Empty: in memory only.
	StateDir string
}

// Merger merges the metric files of its sources. It keeps what it has learned
// of them, so that a later merge reads values only. Its methods are safe for
// concurrent use; one merge runs at a time.
//
// A merged counter may rise, stay, or begin anew as a whole; it never falls in
// part. So a file that cannot be read counts with its last good values, a file
// that is gone leaves what it had counted, and when all files of a source are
// replaced at once all of that is dropped together.
type Merger struct {
	limits   Limits
	log      *slog.Logger
	fs       filesystem
	stateDir string
	settle   time.Duration // see confirmFalls

	ready atomic.Bool
	stats atomic.Pointer[Stats]

	mu          sync.Mutex
	in          *interner
	readers     []*reader
	sources     []*source
	families    *families
	bindings    map[bindingKey]*binding
	gained      map[cellKey]*cell // during a plan
	refused     *cell
	fallen      []*file  // by the last read
	open        int      // files that are kept open
	closing     []handle // of files that left
	keepOpen    int      // how many may be
	room        int      // how many the table of descriptors has room for
	seriesCount int      // of all families
	epoch       uint64
	stale       bool // files or entries came or went since the last plan
	whole       bool // a merge had every file once

	layout  *Layout
	last    []float64 // what the last snapshot showed
	cells   []*cell   // by slot, from slotFirst on
	acc     []float64 // their values, by slot
	stamps  []float64 // their time stamps, likewise
	initial []float64 // what acc begins with

	stateErr error // why the state could not be kept

	tally  Stats // of the files, at the last plan
	errors [reasons]uint64
	logged map[string]reasonSet // of the sources, by path
}

// reserveDescriptors is how many descriptors are left at least for sockets and all else.
const reserveDescriptors = 256

// firstRoom is how many files are kept open before the first sweep: so many
// that the kernel need not make its table of them larger.
const firstRoom = 32

// New returns a merger without sources.
func New(o Options) *Merger {
	m := &Merger{
		limits: o.Limits, log: o.Logger, fs: osFS{}, stateDir: o.StateDir, settle: settle,
		families: newFamilies(), bindings: map[bindingKey]*binding{},
		refused: &cell{slot: slotRefused, refused: true},
		layout:  &Layout{}, logged: map[string]reasonSet{},
	}
	if m.limits == (Limits{}) {
		m.limits = DefaultLimits()
	}
	if m.log == nil {
		m.log = slog.New(slog.DiscardHandler)
	}
	limit := descriptorLimit()
	m.keepOpen = max(0, limit-max(limit/8, reserveDescriptors))
	m.room = firstRoom
	m.in = newInterner(m.limits, o.Refuse, o.Shadow)
	for range max(1, min(runtime.GOMAXPROCS(0), 4)) {
		m.readers = append(m.readers, newReader(m.in))
	}
	m.begin(slotFirst, nil)
	m.stateErr = m.probe()
	m.note()
	return m
}

// SetSources replaces the sources. One that stays as it is keeps what is known
// of its files.
func (m *Merger) SetSources(sources []Source) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.save()
	var next []*source
	for _, s := range sources {
		at := slices.IndexFunc(m.sources, func(old *source) bool { return old.same(s) })
		if at < 0 {
			next = append(next, newSource(s))
			continue
		}
		m.sources[at].Root = s.Root
		next = append(next, m.sources[at])
		m.sources = slices.Delete(m.sources, at, at+1)
	}
	for _, old := range m.sources {
		m.drop(old.vanish())
	}
	m.sources, m.stale, m.whole = next, true, false
}

// same says whether s describes the source as it is.
func (s *source) same(o Source) bool {
	return s.Path == o.Path && (s.Root == nil) == (o.Root == nil) && maps.Equal(s.Labels, o.Labels) &&
		maps.EqualFunc(s.Direct, o.Direct, func(a, b DirectMetric) bool {
			return a.Type == b.Type && a.Help == b.Help && a.Aggregation == b.Aggregation && slices.Equal(a.Buckets, b.Buckets)
		})
}

// Ready says whether a merge has come to its end.
func (m *Merger) Ready() bool { return m.ready.Load() }

// Close saves the state and lets go of all files. Files that came since the last
// merge are read first: they may be what others went for.
func (m *Merger) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), lastMerge)
	defer cancel()
	if m.hasNews() {
		_, _ = m.Merge(ctx) // what it has not read stays unknown
	}
	m.mu.Lock()
	m.save()
	m.mu.Unlock()
	m.SetSources(nil)
	m.closeReleased()
}

// lastMerge is how long Close may take to read.
const lastMerge = time.Second

// hasNews says whether files came since the last merge, and others went.
func (m *Merger) hasNews() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for f := range m.files() {
		if f.fresh && f.source.hasLeft() {
			return true
		}
	}
	return false
}

// Merge reads what has changed since the last merge and returns the whole. A
// directory or a file that is broken is counted in [Merger.Stats] and costs its
// own part only. The error says that ctx ended, or descriptors ran out, before
// every file had been read once: what is there is not the whole then, and a
// later merge goes on from it.
func (m *Merger) Merge(ctx context.Context) (*Snapshot, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	dirs, err := m.scan()
	defer closeAll(dirs)
	defer m.ready.Store(true)
	defer m.note()
	err = errors.Join(err, m.read(ctx, dirs))
	m.confirmFalls(ctx, dirs)
	if err != nil && !m.whole {
		m.count()
		return nil, fmt.Errorf("merge metric files: %w", err)
	}
	m.whole = true
	if m.stale {
		m.plan()
		m.stale = false
	}
	m.count()
	m.accumulate()
	values, held := m.layout.values(m.acc, m.last)
	m.hold(held)
	copy(m.last, values)
	m.save()
	return &Snapshot{Layout: m.layout, Values: values}, nil
}

// hold adds to the totals what the samples held would have fallen by, so that
// the next exporter, which reads them from the state, shows no less either.
func (m *Merger) hold(held []int) {
	for _, i := range held {
		slot := m.layout.steps[i].cell
		if slot < slotFirst {
			continue
		}
		c := m.cells[slot-slotFirst]
		for _, s := range m.sources {
			if total, ok := s.total(c); ok {
				s.totals[c] = math.Nextafter(total+(m.last[i]-m.acc[slot]), math.Inf(1))
				m.initial[slot] += s.totals[c] - total
				s.dirty = true
				break
			}
		}
	}
}

// Sweep lets go of the files that left their directories, after a last look at
// their values: a deleted file keeps its memory for as long as it is open. And
// it makes room to keep new files open. Call it about once a second.
func (m *Merger) Sweep() {
	defer m.closeReleased()
	m.mu.Lock()
	defer m.mu.Unlock()
	dirs, _ := m.scan()
	defer closeAll(dirs)
	defer m.note()
	m.save()
	files := 0
	for range m.files() {
		files++
	}
	for _, d := range dirs {
		if want := min(2*files, m.keepOpen); want > m.room {
			d.reserve(want + reserveDescriptors)
			m.room = want
		}
	}
}

func closeAll(dirs map[*source]directory) {
	for _, d := range dirs {
		_ = d.Close()
	}
}

// listing is what the listing of a source found.
type listing struct {
	*source
	changes
	dir directory // nil: there is none
	was dirID     // the directory of the listing before
}

// scan lists the directories that have changed, all of them before it draws
// conclusions. It returns those that it could open. The error says that
// descriptors ran out before a directory had been listed once.
func (m *Merger) scan() (dirs map[*source]directory, err error) {
	dirs = make(map[*source]directory, len(m.sources))
	stats := make([]dirStat, len(m.sources))
	var found []listing
	for i, s := range m.sources {
		d, st, openErr := m.openDir(s.Source)
		switch {
		case openErr == nil:
			dirs[s], stats[i], s.fault = d, st, nil
		case missing(openErr):
			found = append(found, s.vanished())
			s.fault = fault(ReasonList, "no such directory (yet)")
		default:
			s.fault = fault(ReasonList, "%w", openErr)
			if exhausted(openErr) && s.listing == 0 {
				err = s.fault
			}
		}
	}
	for i, s := range m.sources {
		d := dirs[s]
		if d == nil {
			continue
		}
		if o := m.owner(i, dirs, stats); o != s {
			delete(dirs, s)
			_ = d.Close()
			found = append(found, s.vanished())
			s.fault = fault(ReasonList, "the same directory as %s: it is merged once", o.Path)
			continue
		}
		was := s.at.dirID
		c, err := s.scan(d, stats[i], time.Now())
		errors.As(err, &s.fault)
		found = append(found, listing{s, c, d, was})
	}
	for _, l := range found {
		m.update(l)
	}
	return dirs, err
}

// vanished is the listing of a directory that is not there.
func (s *source) vanished() listing {
	was := s.at.dirID
	return listing{s, s.vanish(), nil, was}
}

// owner returns the one of the sources with the directory and the labels of
// source i whose files these are: that which had the directory before, or the first.
func (m *Merger) owner(i int, dirs map[*source]directory, stats []dirStat) *source {
	var first *source
	for j, s := range m.sources {
		if !slices.Equal(s.labels, m.sources[i].labels) {
			continue
		}
		has := s.at.dirID == stats[i].dirID
		if dirs[s] == nil && has {
			return s // it cannot be opened for now
		}
		if dirs[s] == nil || stats[j].dirID != stats[i].dirID {
			continue
		}
		if has {
			return s
		}
		if first == nil {
			first = s
		}
	}
	return first
}

func (m *Merger) openDir(s Source) (directory, dirStat, error) {
	d, err := s.open(m.fs)
	if err != nil {
		return nil, dirStat{}, err
	}
	st, err := d.stat()
	if err != nil {
		_ = d.Close()
		return nil, dirStat{}, err
	}
	return d, st, nil
}

// update takes in what a listing found.
func (m *Merger) update(l listing) {
	if !l.any() {
		return
	}
	m.stale = true
	if l.dir != nil && len(l.came) > 0 {
		m.restore(l.source, l.dir)
	}
	l.dirty = l.dirty || l.hasLeft() // the list of files is part of the state
	if l.restarted && !m.goesOn(l) {
		m.restart(l.source)
		m.drop(l.changes)
		return
	}
	m.retire(l.source, l.gone)
}

// goesOn says whether another source has the same series, and either files of
// them, so that its application goes on, or the directory that this one had:
// then they cannot begin anew.
func (m *Merger) goesOn(l listing) bool {
	return slices.ContainsFunc(m.sources, func(o *source) bool {
		if o == l.source || !slices.Equal(o.labels, l.labels) {
			return false
		}
		return o.at.dirID == l.was && l.was != dirID{} || slices.ContainsFunc(o.order, func(f *file) bool { return f.read })
	})
}

// restart drops what files that left had counted in a source of which no file is
// left, and in those with the same series: its application began anew.
func (m *Merger) restart(s *source) {
	for _, o := range m.sources {
		if slices.Equal(o.labels, s.labels) {
			o.forgetLeft()
		}
	}
	for i := range m.last {
		m.last[i] = unset
	}
	for f := range m.files() {
		if f.read {
			return // another source goes on: what was decided about families stays
		}
	}
	for _, other := range m.sources {
		if other.hasLeft() {
			return
		}
	}
	m.families, m.bindings = newFamilies(), map[bindingKey]*binding{}
	m.layout, m.last = &Layout{}, nil
}

// drop lets go of files without a last look.
func (m *Merger) drop(c changes) {
	for _, f := range c.gone {
		m.release(f)
	}
}

// retire keeps what the files had counted, and lets go of them.
func (m *Merger) retire(s *source, gone []*file) {
	for _, f := range gone {
		if !s.archived(f.typ) {
			m.lastLook(f)
			s.depart(f)
		}
		m.release(f)
	}
}

// lastLook reads the values of a file that has no name any more.
func (m *Merger) lastLook(f *file) {
	if f.handle == nil || f.binding == nil || f.binding.layout != f.layout {
		return
	}
	f.falls = f.falls[:0]
	m.readers[0].known(f, f.handle)
	for _, fall := range f.falls {
		if c := f.binding.cells[fall.index]; c.rises {
			f.keep(c, fall.before)
		}
	}
}

// release lets go of a file that left. It is closed when nobody waits: that is
// when the file system takes back what a deleted file has.
func (m *Merger) release(f *file) {
	if f.handle == nil {
		return
	}
	m.closing = append(m.closing, f.handle)
	f.handle = nil
	m.open--
}

// closeReleased closes the files that were let go of. It holds up no merge.
func (m *Merger) closeReleased() {
	m.mu.Lock()
	closing := m.closing
	m.closing = nil
	m.mu.Unlock()
	for _, h := range closing {
		_ = h.Close()
	}
}

// read brings all files up to date, as many at a time as there are readers. It
// returns why files were left out that were never read.
func (m *Merger) read(ctx context.Context, dirs map[*source]directory) error {
	files := m.admitted()
	readers := m.readers
	if m.tally.Bytes < alone && len(files) == m.tally.Files {
		readers = readers[:1]
	}
	var next, kept atomic.Int64
	kept.Store(int64(min(m.keepOpen, m.room) - m.open - len(m.closing)))
	work := func(r *reader) {
		r.found = found{fallen: r.found.fallen[:0]}
		for from := int(next.Add(batch)) - batch; from < len(files); from = int(next.Add(batch)) - batch {
			for _, f := range files[from:min(from+batch, len(files))] {
				err := r.safely(ctx, f, dirs, &kept)
				r.found.add(f, err)
			}
		}
	}
	var group sync.WaitGroup
	for _, r := range readers[1:] {
		group.Go(func() { work(r) })
	}
	work(readers[0])
	group.Wait()
	return m.gather(readers)
}

// found is what one reader came upon in one merge.
type found struct {
	open   int     // files that are kept open
	stale  bool    // a file has new entries
	fallen []*file // that have counters that are lower than they were
	err    error
}

func (n *found) add(f *file, err error) {
	if f.handle != nil {
		n.open++
	}
	if f.binding == nil || f.binding.layout != f.layout {
		n.stale = true
	}
	if len(f.falls) > 0 {
		n.fallen = append(n.fallen, f)
	}
	if n.err == nil {
		n.err = err
	}
}

// gather adds up what the readers found.
func (m *Merger) gather(readers []*reader) error {
	m.open, m.fallen = 0, m.fallen[:0]
	var errs []error
	for _, r := range readers {
		m.open += r.found.open
		m.stale = m.stale || r.found.stale
		m.fallen = append(m.fallen, r.found.fallen...)
		errs = append(errs, r.found.err)
	}
	return errors.Join(errs...)
}

// batch is how many files a reader takes at a time: neighbours have the same
// entries most often, and what is learned of one is good for the next.
const batch = 8

// alone is how many bytes one reader reads in the time that it takes to wake
// another.
const alone = 512 << 10

// admitted returns the files to read: as many as the limit allows, those first
// that were admitted before.
func (m *Merger) admitted() []*file {
	var files []*file
	room := m.limits.Files
	for f := range m.files() {
		if f.read {
			room--
		}
		files = append(files, f)
	}
	if len(files) <= m.limits.Files {
		return files
	}
	return slices.DeleteFunc(files, func(f *file) bool {
		if f.read {
			return false
		}
		room--
		if room < 0 {
			f.faults = 0
			f.fail(ReasonMaxFiles, fmt.Errorf("more than %d files", m.limits.Files))
		}
		return room < 0
	})
}

// safely is visit, but for a panic, which costs the file that caused it.
func (r *reader) safely(ctx context.Context, f *file, dirs map[*source]directory, kept *atomic.Int64) (err error) {
	defer func() {
		if p := recover(); p != nil {
			r.restart(f)
			f.fail(ReasonCorrupt, fmt.Errorf("a bug of the reader, please report it with the file: %v: %w", p, entry.ErrCorrupt))
		}
	}()
	return r.visit(ctx, f, dirs, kept)
}

// visit brings one file up to date. The error says why a file that was never
// read could not be read, though it may be later.
func (r *reader) visit(ctx context.Context, f *file, dirs map[*source]directory, kept *atomic.Int64) error {
	if len(f.falls) > 0 {
		f.falls = f.falls[:0]
	}
	if err := ctx.Err(); err != nil {
		if f.read {
			return nil
		}
		return err
	}
	if f.handle != nil {
		r.refresh(f, f.handle)
		return nil
	}
	h, err := r.openFile(f, dirs)
	if err != nil {
		return f.unopened(err)
	}
	r.refresh(f, h)
	if kept.Add(-1) >= 0 {
		f.handle = h
		return nil
	}
	_ = h.Close()
	return nil
}

// unopened notes that f cannot be opened. It returns err when that may pass and
// f was never read.
func (f *file) unopened(err error) error {
	f.faults = 0
	switch {
	case missing(err):
		return nil // gone since the listing: the next one will tell
	case errors.Is(err, errNotRegular):
		f.fail(ReasonNotRegular, err)
	case reasonOf(err) == ReasonFilesystem:
		f.fail(ReasonFilesystem, err)
	default:
		f.fail(ReasonOpen, err)
	}
	if exhausted(err) && !f.read {
		return err
	}
	return nil
}

// openFile opens f. A name that has become another file is read from its start.
func (r *reader) openFile(f *file, dirs map[*source]directory) (handle, error) {
	d := dirs[f.source]
	if d == nil {
		return nil, fault(ReasonList, "its directory cannot be opened")
	}
	h, id, err := d.open(f.base)
	if err != nil {
		return nil, err
	}
	if f.id != (fileID{}) && f.id != id {
		r.restart(f)
	}
	f.id = id
	return h, nil
}

// settle is how long a counter that fell is given to be what it was: the oldest
// Python clients write a zero before each value.
const settle = time.Millisecond

// confirmFalls looks again at counters that fell. One that stays below began
// anew: what it had counted is kept.
func (m *Merger) confirmFalls(ctx context.Context, dirs map[*source]directory) {
	fallen := slices.DeleteFunc(m.fallen, (*file).rising)
	for try := 0; try < 3 && len(fallen) > 0; try++ {
		select {
		case <-ctx.Done():
		case <-time.After(m.settle):
		}
		fallen = slices.DeleteFunc(fallen, func(f *file) bool { return m.recovered(f, dirs) })
	}
	for _, f := range fallen {
		f.source.dirty = true
		for _, fall := range f.falls {
			f.keep(f.binding.cells[fall.index], fall.before)
		}
	}
}

// rising forgets the falls of what may fall, and says whether that was all.
func (f *file) rising() bool {
	if f.binding == nil {
		return true
	}
	f.falls = slices.DeleteFunc(f.falls, func(fall fall) bool { return !f.mustRise(fall.index) })
	return len(f.falls) == 0
}

// mustRise says whether entry i is of a counter that was shown.
func (f *file) mustRise(i int) bool { return i < len(f.binding.cells) && f.binding.cells[i].rises }

// recovered reads f again and says whether all its counters are what they were.
func (m *Merger) recovered(f *file, dirs map[*source]directory) bool {
	before := f.falls
	f.falls = nil
	r := m.readers[0]
	h := f.handle
	if h == nil {
		var err error
		if h, err = r.openFile(f, dirs); err != nil {
			f.falls = before
			return false
		}
		defer func() { _ = h.Close() }()
	}
	if !r.known(f, h) {
		r.restart(f)
		m.stale = true
		return true
	}
	for _, n := range f.falls { // that came while these were looked at
		if f.mustRise(n.index) && !slices.ContainsFunc(before, func(o fall) bool { return o.index == n.index }) {
			before = append(before, n)
		}
	}
	f.falls = slices.DeleteFunc(before, func(fall fall) bool { return f.values[fall.index] >= fall.before })
	return len(f.falls) == 0
}

// accumulate adds up the values of all files.
func (m *Merger) accumulate() {
	copy(m.acc, m.initial)
	clear(m.stamps)
	for f := range m.files() {
		if f.binding == nil {
			continue
		}
		if f.binding.mixed {
			m.addMixed(f)
		} else {
			m.add(f, f.binding.op)
		}
		for c, v := range f.gone {
			c.addTo(&m.acc[c.slot], v)
		}
	}
	m.acc[slotRefused], m.acc[slotZero] = 0, 0
}

// add adds the values of a file whose cells have one operation.
func (m *Merger) add(f *file, o op) {
	acc, slots := m.acc, f.binding.slots
	values := f.values[:len(slots)]
	switch o {
	case opSum:
		for i, s := range slots {
			acc[s] += values[i]
		}
	case opLast:
		for i, s := range slots {
			acc[s] = values[i]
		}
	default:
		for i, s := range slots {
			m.addOne(f, o, i, s)
		}
	}
}

func (m *Merger) addMixed(f *file) {
	for i, c := range f.binding.cells {
		m.addOne(f, c.op, i, c.slot)
	}
}

func (m *Merger) addOne(f *file, o op, i int, slot uint32) {
	acc, v := &m.acc[slot], f.values[i]
	first := !Present(*acc)
	switch o {
	case opSum:
		*acc += v
	case opMin:
		if first || v < *acc {
			*acc = v
		}
	case opMax:
		if first || v > *acc {
			*acc = v
		}
	case opFmin:
		if first || v < *acc || *acc != *acc {
			*acc = v
		}
	case opFmax:
		if first || v > *acc || *acc != *acc {
			*acc = v
		}
	case opLast:
		*acc = v
	case opRecent:
		if f.unix != nil && f.unix[i] > m.stamps[slot] {
			*acc, m.stamps[slot] = v, f.unix[i]
		}
	}
}

// Stats is what is known of the files.
type Stats struct {
	Files     int             // that can be read
	Bytes     int             // of entries in them
	Processes int             // that they are of
	Errors    [reasons]uint64 // since the start, by Reason: one for each merge and file
	Sources   int             // directories that are merged, there or not
	Readable  bool            // all directories could be listed
	State     error           // why the state cannot be kept; nil: it can, or need not
}

// Stats returns what was known of the files when the last merge ended. It does
// not wait for one that runs.
func (m *Merger) Stats() Stats { return *m.stats.Load() }

// note makes the Stats of the present state.
func (m *Merger) note() {
	st := m.tally
	st.Errors, st.Sources, st.Readable, st.State = m.errors, len(m.sources), true, m.stateErr
	for _, s := range m.sources {
		st.Readable = st.Readable && s.fault == nil
	}
	m.stats.Store(&st)
}

// countFiles counts the files for Stats.
func (m *Merger) countFiles() {
	type process struct {
		source *source
		id     string
	}
	processes := map[process]bool{}
	m.tally = Stats{}
	for f := range m.files() {
		m.tally.Files++
		m.tally.Bytes += f.layout.end
		ruby := f.layout.len() > 0 && f.layout.keys[0].Era == entry.EraR
		processes[process{f.source, f.processID(ruby)}] = true
	}
	m.tally.Processes = len(processes)
}
