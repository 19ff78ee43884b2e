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
	"time"

	"golang.org/x/sys/unix"
)

// Options say where and under which name a [Writer] writes. All may be left out.
type Options struct {
	// Dir is the directory of the metric files, made if it is not there. Empty:
	// $PROMETHEUS_MULTIPROC_DIR, or as it was called, $prometheus_multiproc_dir.
	Dir string

	// ID tells this process from the others that write there. Empty: its process
	// id. An id that outlives processes, such as a worker's number, is continued
	// by the next one that has it, gauges included.
	ID string

	// OnError is told once what goes wrong with each file: counting goes on in
	// memory then. It may count, but not register metrics. Nil: it is logged with
	// [slog.Default].
	OnError func(error)
}

// Writer writes the metrics of one process. Its methods are safe for concurrent
// use.
type Writer struct {
	dir, id string
	started time.Time // the process, if the id is its own; zero if not
	onError func(error)

	registering sync.Mutex         // held before opening
	families    map[string]*family // by name

	opening sync.Mutex
	files   map[string]*file // by what stands before the id: counter, gauge_max
	closed  bool
}

// ErrNoDirectory says that nobody named a directory.
var ErrNoDirectory = errors.New("no directory for metric files: set PROMETHEUS_MULTIPROC_DIR, or Options.Dir")

// Open returns a writer for this process. The error says why the directory cannot be
// used.
func Open(o Options) (*Writer, error) {
	w := &Writer{dir: o.Dir, id: o.ID, onError: o.OnError, files: map[string]*file{}, families: map[string]*family{}}
	if w.dir == "" {
		w.dir = cmp.Or(os.Getenv("PROMETHEUS_MULTIPROC_DIR"), os.Getenv("prometheus_multiproc_dir"))
	}
	if w.dir == "" {
		return nil, ErrNoDirectory
	}
	if w.id == "" {
		w.id = strconv.Itoa(os.Getpid())
		var err error
		if w.started, err = startTime(); err != nil {
			return nil, err
		}
	}
	if filepath.Base(w.id) != w.id || w.id[0] == '.' {
		return nil, fmt.Errorf("id %q: want a part of a file's name", w.id)
	}
	if w.onError == nil {
		w.onError = func(err error) {
			slog.Default().Error("metrics are counted in memory only", "err", err)
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

// open opens a file of ours. One that a stranger with our process id left, or
// that cannot be continued, is set aside first, under a name that readers know:
// its counts are not ours to continue, nor to lose.
func (w *Writer) open(kind string) (*file, error) {
	w.opening.Lock()
	defer w.opening.Unlock()
	if f, ok := w.files[kind]; ok {
		return f, nil
	}
	path := filepath.Join(w.dir, kind+"_"+w.id+".db")
	if w.closed {
		w.files[kind] = newFile(path, w.onError)
		return w.files[kind], nil
	}
	f, err := w.openOwn(path)
	w.files[kind] = f
	return f, err
}

// openOwn opens the file that has our id. When a living writer has it already, and
// the id is that of our process, which in another container is another's, it takes
// a name beside it.
func (w *Writer) openOwn(path string) (*file, error) {
	f := newFile(path, w.onError)
	if err := w.setStrangerAside(path); err != nil {
		return f, err
	}
	err := f.open(0)
	switch {
	case errors.Is(err, errForeign):
		if err := setAside(path); err != nil {
			return f, err
		}
		f = newFile(path, w.onError)
		err = f.open(0)
	case errors.Is(err, errInUse) && !w.started.IsZero():
		for n := 1; errors.Is(err, errInUse) || errors.Is(err, os.ErrExist); n++ {
			f = newFile(beside(path, n), w.onError)
			err = f.open(os.O_EXCL)
		}
	}
	return f, err
}

// setStrangerAside sets the file at path aside if it is named by our process id
// and older than we are.
func (w *Writer) setStrangerAside(path string) error {
	if w.started.IsZero() {
		return nil
	}
	at, err := born(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("find out whose file it is: %w", err)
	case at.Before(w.started):
		return setAside(path)
	}
	return nil
}

// setAside gives the file at path the first name that is free.
func setAside(path string) error {
	for n := 1; ; n++ {
		to := beside(path, n)
		if _, err := os.Lstat(to); err == nil {
			continue
		}
		if err := os.Rename(path, to); err != nil {
			return fmt.Errorf("set aside the file of an earlier process: %w", err)
		}
		return nil
	}
}

// beside returns the n-th name beside a file's.
func beside(path string, n int) string {
	return fmt.Sprintf("%s-%d.db", strings.TrimSuffix(path, ".db"), n)
}
