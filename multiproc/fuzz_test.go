package multiproc

import (
	"bytes"
	"io"
	"os"
	"testing"
	"time"

	"github.com/prefork-exporter/prefork_exporter/multiproc/fixture"
)

// memory is a directory in memory.
type memory struct {
	files map[string][]byte
}

func (m memory) openDir(string) (directory, error) { return m, nil }
func (m memory) Close() error                      { return nil }
func (m memory) stat() (dirStat, error) {
	return dirStat{dirID: dirID{inode: 1}, changed: time.Now(), known: true}, nil
}

func (m memory) list(visit func(name []byte, inode uint64, regular bool)) error {
	for name := range m.files {
		visit([]byte(name), uint64(name[0])<<8+uint64(len(name)), true)
	}
	return nil
}

func (m memory) reserve(int) {}

func (m memory) open(name string) (handle, fileID, error) {
	if _, ok := m.files[name]; !ok {
		return nil, fileID{}, os.ErrNotExist
	}
	return memoryFile{m, name}, fileID{inode: 1}, nil
}

type memoryFile struct {
	memory
	name string
}

func (f memoryFile) ReadAt(b []byte, off int64) (int, error) {
	content := f.files[f.name]
	if off >= int64(len(content)) {
		return 0, io.EOF
	}
	n := copy(b, content[off:])
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

// FuzzMerge merges any two files, three times: the second time with the first
// file cut off, the third time with both exchanged. Nothing may panic, and what
// is exposed must keep to its own layout.
func FuzzMerge(f *testing.F) {
	for _, client := range []string{"client_python", "ruby-prometheus"} {
		seeds := fixture.Small(f, client, ".db", 600)
		for i, s := range seeds {
			f.Add(s, seeds[(i+1)%len(seeds)], uint8(i))
		}
	}
	seeds := fixture.Small(f, "client_ruby", ".bin", 600)
	for i, s := range seeds {
		f.Add(s, seeds[(i+1)%len(seeds)], uint8(7))
	}
	names := [][2]string{
		{"counter_1.db", "counter_2.db"}, {"counter_1.db", "histogram_1-0.db"}, {"gauge_all_1.db", "gauge_max_2.db"},
		{"histogram_1.db", "histogram_2-0.db"}, {"summary_1.db", "gauge_mostrecent_1.db"}, {"gauge_min_1-0.db", "counter_1-0.db"},
		{"gauge_livesum_1.db", "gauge_sum_2.db"}, {"metric_a___1.bin", "metric_a___22.bin"},
	}
	f.Fuzz(func(t *testing.T, a, b []byte, kind uint8) {
		pair := names[int(kind)%len(names)]
		fs := memory{map[string][]byte{pair[0]: a, pair[1]: b}}
		m := New(Options{})
		defer m.Close()
		m.fs, m.settle = fs, 0
		m.readers = m.readers[:1]
		m.SetSources([]Source{{Path: "memory", Labels: map[string]string{"site": "a"}}})
		check(t, m)
		fs.files[pair[0]] = a[:len(a)/2]
		check(t, m)
		fs.files[pair[0]], fs.files[pair[1]] = bytes.Clone(b), bytes.Clone(a)
		check(t, m)
	})
}

func check(t *testing.T, m *Merger) {
	t.Helper()
	s, err := m.Merge(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Values) != s.Samples {
		t.Fatalf("%d values for %d samples", len(s.Values), s.Samples)
	}
	at := 0
	for _, f := range s.Families {
		if f.First != at || len(f.Samples) == 0 {
			t.Fatalf("family %q begins at %d with %d samples, want %d", f.Name, f.First, len(f.Samples), at)
		}
		at += len(f.Samples)
	}
}
