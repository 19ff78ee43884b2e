package multiproc

import (
	"hash/maphash"
	"maps"
	"slices"
	"sync"

	"github.com/prefork-exporter/prefork_exporter/multiproc/internal/directfile"
	"github.com/prefork-exporter/prefork_exporter/multiproc/internal/entry"
	"github.com/prefork-exporter/prefork_exporter/multiproc/internal/pyfile"
	"github.com/prefork-exporter/prefork_exporter/multiproc/internal/rubyfile"
)

// key is one distinct key, parsed once and shared by all files that have it.
// It never changes.
type key struct {
	entry.Key
	raw string
	id  uint64 // unlike that of any other key
	err error  // why it cannot be used
}

// parseKey reads a key of the file called n. The error wraps one of package entry's.
func parseKey(n fileName, raw []byte) (entry.Key, error) {
	if n.metric != "" {
		return directfile.ParseKey(raw, n.metric)
	}
	if rubyfile.Is(raw) {
		if k, err := rubyfile.ParseKey(raw); err == nil {
			return k, nil
		}
	}
	return pyfile.ParseKey(raw)
}

// interner knows every key and every layout that a file has. It is safe for
// concurrent use.
type interner struct {
	limits Limits
	refuse func(name string) bool
	shadow func(name string) bool

	mu      sync.Mutex
	keys    map[string]map[string]*key // by DirectFileStore metric ("" otherwise) and raw bytes
	layouts map[uint64][]*layout
	latest  map[fileClass]*layout // what the last file of its class looked like
	bySize  map[fileSize]*layout  // what the last file of its class and size looked like
	nextID  uint64
	seed    maphash.Seed
}

// fileClass is a set of files that likely have the same entries.
type fileClass struct {
	typ    entry.Type
	mode   entry.Mode
	metric string
}

// fileSize is a set of files that have the same entries, if they run the same code.
type fileSize struct {
	class fileClass
	end   int
}

func (n fileName) class() fileClass { return fileClass{n.typ, n.mode, n.metric} }

func newInterner(limits Limits, refuse, shadow func(string) bool) *interner {
	return &interner{
		limits: limits, refuse: refuse, shadow: shadow,
		keys:    map[string]map[string]*key{},
		layouts: map[uint64][]*layout{},
		latest:  map[fileClass]*layout{},
		bySize:  map[fileSize]*layout{},
		seed:    maphash.MakeSeed(),
	}
}

// key returns the key of those bytes. It keeps no reference to raw.
func (in *interner) key(n fileName, raw []byte) *key {
	in.mu.Lock()
	defer in.mu.Unlock()
	if k, ok := in.keys[n.metric][string(raw)]; ok {
		return k
	}
	in.nextID++
	k := &key{raw: string(raw), id: in.nextID}
	k.Key, k.err = parseKey(n, raw)
	if k.err == nil {
		k.err = in.check(k.Key)
	}
	if in.keys[n.metric] == nil {
		in.keys[n.metric] = map[string]*key{}
	}
	in.keys[n.metric][k.raw] = k
	return k
}

// check refuses names that are not the files' to use, and labels beyond the limit.
func (in *interner) check(k entry.Key) error {
	for _, name := range []string{k.Family, k.Sample} {
		if in.shadow != nil && in.shadow(name) {
			return fault(ReasonShadowed, "metric name %q is observed from outside", clip(name))
		}
		if reserved(name) || in.refuse != nil && in.refuse(name) {
			return fault(ReasonReserved, "metric name %q is reserved", clip(name))
		}
	}
	size := 0
	for _, l := range k.Labels {
		if reserved(l.Name) {
			return fault(ReasonReserved, "label name %q is reserved", clip(l.Name))
		}
		size += len(l.Name) + len(l.Value)
	}
	if size > in.limits.LabelBytes {
		return fault(ReasonMaxLabelBytes, "%d bytes of labels, the limit is %d", size, in.limits.LabelBytes)
	}
	return nil
}

// reserved says whether Prometheus keeps a name for itself.
func reserved(name string) bool { return len(name) >= 2 && name[:2] == "__" }

// clip shortens a name from a file for a message.
func clip(s string) string {
	const most = 80
	if len(s) <= most {
		return s
	}
	return s[:most] + "…"
}

// template returns a guess of what a file of class c looks like, or nil.
func (in *interner) template(c fileClass) *layout {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.latest[c]
}

// twin returns a guess of what a file of class c with entries up to end looks
// like, or nil.
func (in *interner) twin(c fileClass, end int) *layout {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.bySize[fileSize{c, end}]
}

// canonical returns the one layout that equals l, which is l when it is new.
func (in *interner) canonical(c fileClass, l *layout) *layout {
	hash := l.hash(in.seed)
	in.mu.Lock()
	defer in.mu.Unlock()
	at := slices.IndexFunc(in.layouts[hash], l.equal)
	if at >= 0 {
		l = in.layouts[hash][at]
	} else {
		l.trim()
		in.layouts[hash] = append(in.layouts[hash], l)
	}
	in.latest[c], in.bySize[fileSize{c, l.end}] = l, l
	return l
}

// collect forgets every layout that is not in use, and every key that no layout
// in use has.
func (in *interner) collect(used map[*layout]bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for hash, list := range in.layouts {
		in.layouts[hash] = slices.DeleteFunc(list, func(l *layout) bool { return !used[l] })
		if len(in.layouts[hash]) == 0 {
			delete(in.layouts, hash)
		}
	}
	maps.DeleteFunc(in.latest, func(_ fileClass, l *layout) bool { return !used[l] })
	maps.DeleteFunc(in.bySize, func(_ fileSize, l *layout) bool { return !used[l] })
	alive := make(map[*key]bool)
	for l := range used {
		if l.from != nil {
			l.from.from = nil // one step is enough; do not keep a chain alive
		}
		for _, k := range l.keys {
			alive[k] = true
		}
	}
	for _, keys := range in.keys {
		maps.DeleteFunc(keys, func(_ string, k *key) bool { return !alive[k] })
	}
	maps.DeleteFunc(in.keys, func(_ string, keys map[string]*key) bool { return len(keys) == 0 })
}
