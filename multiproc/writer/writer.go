package writer

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// Options say where and under which name a [Writer] writes. All may be left out.
type Options struct {
	// Dir is the directory of the metric files, made if it is not there. Empty:
	// $PROMETHEUS_MULTIPROC_DIR, or as it was called, $prometheus_multiproc_dir.
	Dir string

	// ID tells this process from the others that write there. Empty: its process
	// id. An id that outlives processes, such as a worker's number, is continued
	// by the next one that has it, gauges included. While another has it, OnError is
	// told, and nothing is written.
	ID string

	// OnError is told once what goes wrong with each file: counting goes on, but is
	// not seen. It may count, but not register metrics. Nil: it is logged with
	// [slog.Default].
	OnError func(error)
}

// Writer writes the metrics of one process. Its methods are safe for concurrent
// use.
type Writer struct {
	dir, id string
	given   bool // the id was given: it is not the process's
	onError func(error)

	registering sync.Mutex         // held before opening
	families    map[string]*family // by name
	claims      map[string]*family // by each name of theirs

	opening sync.Mutex
	files   map[string]*file // by what stands before the id: counter, gauge_max
	closed  bool
}

// ErrNoDirectory says that nobody named a directory.
var ErrNoDirectory = errors.New("no directory for metric files: set PROMETHEUS_MULTIPROC_DIR, or Options.Dir")

// Open returns a writer for this process. The error says why the directory cannot be
// used.
func Open(o Options) (*Writer, error) {
	w := &Writer{dir: o.Dir, id: o.ID, onError: o.OnError, files: map[string]*file{}, families: map[string]*family{}, claims: map[string]*family{}}
	if w.dir == "" {
		w.dir = cmp.Or(os.Getenv("PROMETHEUS_MULTIPROC_DIR"), os.Getenv("prometheus_multiproc_dir"))
	}
	if w.dir == "" {
		return nil, ErrNoDirectory
	}
	if w.given = w.id != ""; !w.given {
		w.id = strconv.Itoa(os.Getpid())
	}
	if !validID(w.id) {
		return nil, errID(w.id)
	}
	var err error
	if w.dir, err = filepath.Abs(w.dir); err != nil {
		return nil, fmt.Errorf("open directory of metric files: %w", err)
	}
	if w.onError == nil {
		w.onError = func(err error) {
			slog.Default().Error("metrics are not written as they should", "err", err)
		}
	}
	if err := os.MkdirAll(w.dir, 0o755); err != nil {
		return nil, fmt.Errorf("open directory of metric files: %w", err)
	}
	if err := unix.Access(w.dir, unix.W_OK|unix.X_OK); err != nil {
		return nil, fmt.Errorf("open directory of metric files: %s: %w", w.dir, err)
	}
	return w, nil
}

func errID(id string) error {
	return fmt.Errorf("id %q: want a part of a file's name, without underscores, at which client_python cuts it", id)
}

// Registered says whether the writer has a metric of that name.
func (w *Writer) Registered(name string) bool {
	w.registering.Lock()
	defer w.registering.Unlock()
	return w.families[name] != nil
}

// validID says whether an id can be a part of a file's name.
func validID(id string) bool {
	return id != "" && utf8.ValidString(id) && !strings.ContainsAny(id, "/_\x00") && id[0] != '.'
}

// Close lets go of the files: another process may have the id. Those of live
// gauges are deleted, as client_python's mark_process_dead does. Metrics still count
// where they did, and new series in memory.
func (w *Writer) Close() error {
	w.opening.Lock()
	defer w.opening.Unlock()
	w.closed = true
	var errs []error
	for kind, f := range w.files {
		errs = append(errs, f.close(strings.HasPrefix(kind, "gauge_live")))
	}
	return errors.Join(errs...)
}

// file returns the file of a kind of metric, opened when it is needed first.
func (w *Writer) file(kind string) *file {
	f, err := w.open(kind)
	f.report(err)
	return f
}

// open opens the file of a kind, once.
func (w *Writer) open(kind string) (*file, error) {
	w.opening.Lock()
	defer w.opening.Unlock()
	if f, ok := w.files[kind]; ok {
		return f, nil
	}
	f := newFile(filepath.Join(w.dir, kind+"_"+w.id+".db"), w.onError)
	w.files[kind] = f
	if w.closed {
		return f, nil
	}
	if w.given {
		return f, continueFile(f)
	}
	return f, beginFile(f, strings.HasPrefix(kind, "gauge_live"))
}

// continueFile opens a file whose id was given. What cannot be continued is set aside.
func continueFile(f *file) error {
	err := f.open(os.O_CREATE)
	if !errors.Is(err, errForeign) {
		return err
	}
	if err := clearAway(f.path, false); err != nil {
		return err
	}
	return f.open(os.O_CREATE)
}

// beginFile makes a file whose id is our process's. One that is there is a
// stranger's, who had the id before: it is set aside, or deleted if what it has ends
// with its process. A living stranger's, as from another container, is left alone,
// and a name beside it taken.
func beginFile(f *file, live bool) error {
	own := f.path
	for n := 0; ; {
		err := f.open(os.O_CREATE | os.O_EXCL)
		if !errors.Is(err, os.ErrExist) && !errors.Is(err, errInUse) {
			return err
		}
		if n == 0 {
			if err = clearAway(own, live); err == nil {
				continue
			}
			if !errors.Is(err, errInUse) {
				return err
			}
		}
		n++
		f.path = beside(own, n)
	}
}

// clearAway takes the name from the file at path, if nobody alive has locked it: its
// counts are not ours to continue, nor to lose. It is no error if there is none.
func clearAway(path string, andDelete bool) error {
	fd, err := lock(path, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = fd.Close() }()
	if used, _, unread := contents(fd); andDelete || unread == nil && used == nil { // nothing was counted
		err = os.Remove(path)
	} else {
		err = setAside(path)
	}
	if err != nil {
		return fmt.Errorf("clear away the file of an earlier process: %w", err)
	}
	return nil
}

// setAside gives the file at path the first name beside it that is free, under which
// readers still find it.
func setAside(path string) error {
	for n := 1; ; n++ {
		if err := rename(path, beside(path, n)); !errors.Is(err, os.ErrExist) {
			return err
		}
	}
}

// beside returns the n-th name beside a file's.
func beside(path string, n int) string {
	return fmt.Sprintf("%s-%d.db", strings.TrimSuffix(path, ".db"), n)
}
