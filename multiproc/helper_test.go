package multiproc

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// worker writes one metric file of era D, as client_python does: entries are
// appended, then the header moves; values change in place.
type worker struct {
	t    testing.TB
	f    *os.File
	used int64
	at   map[string]int64
}

// newWorker creates the file.
func newWorker(t testing.TB, dir, name string) *worker {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	w := &worker{t: t, f: f, used: 8, at: map[string]int64{}}
	if err := f.Truncate(64 << 10); err != nil {
		t.Fatal(err)
	}
	w.header(8)
	return w
}

func (w *worker) write(b []byte, at int64) {
	w.t.Helper()
	if _, err := w.f.WriteAt(b, at); err != nil {
		w.t.Fatal(err)
	}
}

func (w *worker) header(used int64) {
	w.write(binary.LittleEndian.AppendUint32(nil, uint32(used)), 0)
}

// raw appends an entry with that key.
func (w *worker) raw(key string, value float64) {
	pad := 8 - (len(key)+4)%8
	b := binary.LittleEndian.AppendUint32(nil, uint32(len(key)))
	b = append(b, key...)
	b = append(b, "        "[:pad]...)
	w.at[key] = w.used + int64(len(b))
	b = binary.LittleEndian.AppendUint64(b, math.Float64bits(value))
	b = binary.LittleEndian.AppendUint64(b, 0)
	w.write(b, w.used)
	w.used += int64(len(b))
	w.header(w.used)
}

// jsonKey returns the key of a sample without help.
func jsonKey(family, sample string, labels map[string]string) string {
	if labels == nil {
		labels = map[string]string{}
	}
	b, err := json.Marshal(labels)
	if err != nil {
		panic(err)
	}
	return fmt.Sprintf(`[%q, %q, %s, "help"]`, family, sample, b)
}

// set gives the entry of that key the value, and appends it when it is new.
func (w *worker) set(key string, value float64) {
	at, ok := w.at[key]
	if !ok {
		w.raw(key, value)
		return
	}
	w.write(binary.LittleEndian.AppendUint64(nil, math.Float64bits(value)), at)
}

// remove deletes the file; the worker may write on.
func (w *worker) remove() {
	w.t.Helper()
	if err := os.Remove(w.f.Name()); err != nil {
		w.t.Fatal(err)
	}
}

// watched is a merger over one directory.
type watched struct {
	t testing.TB
	*Merger
}

func watch(t testing.TB, sources ...Source) watched {
	t.Helper()
	m := New(Options{})
	t.Cleanup(m.Close)
	m.SetSources(sources)
	return watched{t, m}
}

// samples merges.
func (w watched) samples() map[string]float64 {
	w.t.Helper()
	s, err := w.Merge(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	return flat(w.t, s)
}
