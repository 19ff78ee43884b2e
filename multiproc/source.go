package multiproc

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/prefork-exporter/prefork_exporter/multiproc/internal/entry"
)

// Source is one directory of metric files.
type Source struct {
	Path string
	// Root opens the root directory at which Path begins, such as that of another process;
	// no link leads out of it. Its file is the merger's, and closed. Its error says that
	// there is no root for now: then all files stay as they were. Nil: the root is our own.
	//
	// Another Root makes no other source: its process may have been started again.
	Root   func() (*os.File, error)
	Labels map[string]string       // constant labels of all its series
	Direct map[string]DirectMetric // what a DirectFileStore's files do not tell, by metric name
}

// DirectMetric is what client_ruby's DirectFileStore keeps in the process and
// not in its files.
type DirectMetric struct {
	Type        string    // counter, gauge, histogram or summary
	Help        string    // empty: none
	Aggregation string    // sum, min, max, all or most_recent; empty: all for a gauge, else sum
	Buckets     []float64 // bounds of a histogram, ascending, +Inf left out; also those that nobody hit
}

// Canonical returns the one name of a directory that may go by several, as far
// as it is there.
func Canonical(dir string) string {
	if resolved, err := filepath.EvalSymlinks(dir); err == nil {
		dir = resolved
	}
	if absolute, err := filepath.Abs(dir); err == nil {
		return absolute
	}
	return filepath.Clean(dir)
}

// Validate returns what is wrong with m.
func (m DirectMetric) Validate() error {
	typ, ok := entry.ParseType(m.Type)
	if !ok || typ == entry.Untyped {
		return fmt.Errorf("type %q: want counter, gauge, histogram or summary", m.Type)
	}
	if _, ok := directMode(m.Aggregation); !ok && m.Aggregation != "" {
		return fmt.Errorf("aggregation %q: want sum, min, max, all or most_recent", m.Aggregation)
	}
	if typ != entry.Histogram && len(m.Buckets) > 0 {
		return fmt.Errorf("buckets of a %s: only a histogram has them", m.Type)
	}
	if !slices.IsSortedFunc(m.Buckets, cmp.Compare) {
		return fmt.Errorf("buckets %v: want ascending bounds", m.Buckets)
	}
	return nil
}

// directMode translates the aggregations of client_ruby.
func directMode(aggregation string) (entry.Mode, bool) {
	mode, ok := map[string]entry.Mode{
		"sum": entry.Sum, "min": entry.Min, "max": entry.Max, "all": entry.All, "most_recent": entry.MostRecent,
	}[aggregation]
	return mode, ok
}

// source is a directory and the files that it had when it was last listed.
type source struct {
	Source
	labels []entry.Label

	files map[string]*file
	order []*file // by name

	departed []departed // files that left, the last ones
	totals   counts     // what earlier ones had counted

	dirty    bool   // the totals have changed since they were saved
	restored bool   // the state was looked for
	place    string // the directory's canonical path, when it was

	at      dirStat   // the directory when it was last listed
	listed  time.Time // when that was
	listing uint64    // counts the listings
	fault   *Fault    // why the directory cannot be listed
}

func newSource(s Source) *source {
	out := &source{Source: s, files: map[string]*file{}, totals: counts{}}
	for name, value := range s.Labels {
		out.labels = append(out.labels, entry.Label{Name: name, Value: value})
	}
	slices.SortFunc(out.labels, func(a, b entry.Label) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// settled returns how old a directory's last change must be before its time
// stamp can prove that no name has come or gone since: stamps have the grain of
// the kernel's clock, and on some file systems that of seconds.
func settled(changed time.Time) time.Duration {
	if changed.Nanosecond() == 0 {
		return 2 * time.Second
	}
	return 100 * time.Millisecond
}

// changes is what a listing found.
type changes struct {
	came, gone []*file
	restarted  bool // none of the files that were there is there still
}

func (c changes) any() bool { return len(c.came) > 0 || len(c.gone) > 0 }

// scan brings the list of files up to date with the open directory d, whose
// state is st.
func (s *source) scan(d directory, st dirStat, now time.Time) (changes, error) {
	if !st.known {
		return changes{}, fault(ReasonFilesystem, "its file system does not store files")
	}
	if st == s.at && s.listed.Sub(st.changed) > settled(st.changed) {
		return changes{}, nil
	}
	names, err := s.list(d)
	if err != nil {
		return changes{}, fault(ReasonList, "%w", err)
	}
	s.at, s.listed = st, now
	s.listing++
	var c changes
	for _, n := range names {
		s.visit(&c, n)
	}
	s.retire(&c)
	s.reorder(c)
	return c, nil
}

// listed is one name of a listing.
type listed struct {
	known   *file  // the file that had the name before, if any
	base    string // the name, if not
	inode   uint64
	regular bool
}

// list returns the directory's names, all of them or none.
func (s *source) list(d directory) ([]listed, error) {
	names := make([]listed, 0, len(s.files))
	err := d.list(func(name []byte, inode uint64, regular bool) {
		n := listed{known: s.files[string(name)], inode: inode, regular: regular}
		if n.known == nil {
			n.base = string(name)
		}
		names = append(names, n)
	})
	// Files that are read one after another should be neighbours in memory, too.
	slices.SortFunc(names, func(a, b listed) int { return cmp.Compare(a.base, b.base) })
	return names, err
}

// visit notes one name of the listing.
func (s *source) visit(c *changes, n listed) {
	if f := n.known; f != nil {
		if f.listed == n.inode && f.regular == n.regular {
			f.seen = s.listing
			return
		}
		n.base = f.base
		c.gone = append(c.gone, f)
		delete(s.files, f.base)
	}
	f := s.newFile(n.base, n.inode, n.regular)
	if f == nil {
		return
	}
	f.seen = s.listing
	s.files[f.base] = f
	c.came = append(c.came, f)
}

// newFile returns the file of that name, or nil for one that is none of ours.
func (s *source) newFile(base string, inode uint64, regular bool) *file {
	n, err := parseName(base)
	if errors.Is(err, errIgnored) {
		return nil
	}
	f := &file{fileName: n, source: s, listed: inode, regular: regular, fresh: true, layout: emptyLayout()}
	switch {
	case err != nil:
		f.base, f.skip = base, true
		f.fail(ReasonUnknownType, err)
	case !regular:
		f.skip = true
		f.fail(ReasonNotRegular, errNotRegular)
	}
	return f
}

// retire moves the files that the listing has not got to c.gone. A file that
// only has another name now is not gone: the new name takes its place.
func (s *source) retire(c *changes) {
	for name, f := range s.files {
		if f.seen != s.listing {
			c.gone = append(c.gone, f)
			delete(s.files, name)
		}
	}
	if len(c.gone) == 0 {
		return
	}
	came := make(map[uint64]*file, len(c.came))
	for _, f := range c.came {
		came[f.listed] = f
	}
	kept, data := c.gone[:0], 0
	for _, f := range c.gone {
		if n := came[f.listed]; n != nil && n.class() == f.class() && !n.skip && f.handle != nil {
			n.inherit(f)
			delete(came, f.listed) // a second old name was a hard link
			continue
		}
		if !f.skip {
			data++
		}
		kept = append(kept, f)
	}
	c.gone = kept
	c.restarted = data > 0 && s.dataFiles() == s.newcomers(c.came)
}

// inherit makes f, which is a new name, the file that old was.
func (f *file) inherit(old *file) {
	f.id, f.handle, f.layout, f.values, f.unix = old.id, old.handle, old.layout, old.values, old.unix
	f.read, f.fresh, f.past, f.missing, f.replaced = old.read, old.fresh, old.past, old.missing, old.replaced
	f.stuck, f.tries, f.walked, f.guess = old.stuck, old.tries, old.walked, old.guess
	if f.typ != entry.Gauge { // a gauge may have its process's id in its series
		f.binding = old.binding
	}
	old.handle = nil
}

// dataFiles counts the files that can be read.
func (s *source) dataFiles() int {
	n := 0
	for _, f := range s.files {
		if !f.skip {
			n++
		}
	}
	return n
}

// newcomers counts those of files that begin empty-handed.
func (s *source) newcomers(files []*file) int {
	n := 0
	for _, f := range files {
		if !f.skip && !f.read {
			n++
		}
	}
	return n
}

// reorder brings the order up to date: what is gone leaves it, what came is put
// in its place.
func (s *source) reorder(c changes) {
	if !c.any() {
		return
	}
	byName := func(a, b *file) int { return cmp.Compare(a.base, b.base) }
	came := slices.SortedFunc(slices.Values(c.came), byName)
	s.order = slices.DeleteFunc(s.order, func(f *file) bool { return f.seen != s.listing })
	s.order = mergeSorted(s.order, came, byName)
}

// vanish forgets all files: the directory is gone.
func (s *source) vanish() changes {
	c := changes{restarted: true}
	for _, f := range s.files {
		c.gone = append(c.gone, f)
	}
	clear(s.files)
	s.order, s.at = nil, dirStat{}
	return c
}

// errNoRoot says that the root of a source is not there for now.
var errNoRoot = errors.New("its root cannot be used")

// missing says whether err means that there is no such directory (yet). Without its root
// nobody knows.
func missing(err error) bool { return errors.Is(err, fs.ErrNotExist) && !errors.Is(err, errNoRoot) }

// open opens the source's directory for listing.
func (s Source) open(files filesystem) (directory, error) {
	if s.Root == nil {
		return files.openDir(s.Path)
	}
	root, err := s.Root()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNoRoot, err)
	}
	defer func() { _ = root.Close() }()
	return openBelow(root, s.Path)
}

// canonical returns the one name of the source's directory. One below another root has it
// whoever's root that is.
func (s Source) canonical() string {
	if s.Root == nil {
		return Canonical(s.Path)
	}
	return filepath.Join("/proc/PID/root", s.Path)
}

// archived says whether the application folds its dead processes itself: then
// what a file had counted is in the archive already when the file goes.
func (s *source) archived(typ entry.Type) bool {
	for _, f := range s.order {
		if f.typ == typ && f.archive() {
			return true
		}
	}
	return false
}
