package main

import (
	"encoding/binary"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestLabelSetsFollowTheMix(t *testing.T) {
	for name, want := range map[string][3]int{
		"D1": {20, 5, 5}, "D2": {100, 25, 25}, "D3": {100, 25, 25},
		"D4": {24, 6, 6}, "D5": {333, 1125, 83}, "D6": {100, 25, 25},
	} {
		for _, d := range allDatasets() {
			c, h, g := d.labelSets()
			if got := [3]int{c, h, g}; d.name == name && got != want {
				t.Errorf("%s = %v, want %v", name, got, want)
			}
		}
	}
}

// metricFile lays out entries as the clients do, with values of the given size.
func metricFile(size int, keys ...string) []byte {
	b := make([]byte, 8)
	for _, key := range keys {
		b = binary.NativeEndian.AppendUint32(b, uint32(len(key)))
		b = append(b, key+strings.Repeat(" ", 8-(4+len(key))%8)...)
		b = binary.NativeEndian.AppendUint64(b, math.Float64bits(float64(len(key))))
		b = append(b, make([]byte, size-8)...)
	}
	binary.NativeEndian.PutUint32(b, uint32(len(b)))
	return append(b, make([]byte, 64)...)
}

func TestValueOffsets(t *testing.T) {
	for name, tc := range map[string]struct {
		in   []byte
		want []float64
		ok   bool
	}{
		"values of eight bytes":            {metricFile(8, `["a"]`, `["bbbb"]`), []float64{5, 8}, true},
		"values with a time":               {metricFile(16, `["a"]`, `["bbbb"]`), []float64{5, 8}, true},
		"a key that ends on a boundary":    {metricFile(8, `["aaaaaaaa"]`), []float64{12}, true},
		"no entries":                       {metricFile(8), nil, true},
		"no header":                        {[]byte{8, 0}, nil, false},
		"a header beyond the file":         {[]byte{99, 0, 0, 0, 0, 0, 0, 0}, nil, false},
		"a key beyond the file":            {damaged(metricFile(8, `["a"]`), 8, 0xff), nil, false},
		"an end in the middle of an entry": {damaged(metricFile(8, `["a"]`), 0, 20), nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			offsets, err := valueOffsets(tc.in)
			if (err == nil) != tc.ok {
				t.Fatalf("error = %v, want ok %v", err, tc.ok)
			}
			var got []float64
			for _, at := range offsets {
				got = append(got, math.Float64frombits(binary.NativeEndian.Uint64(tc.in[at:])))
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func damaged(b []byte, at int, with byte) []byte {
	b[at] = with
	return b
}

func TestWorkersChangeTheirShare(t *testing.T) {
	dir := t.TempDir()
	keys := []string{`["a"]`, `["bb"]`, `["ccc"]`, `["dddd"]`}
	for _, name := range []string{"counter_1.db", "histogram_1-0.db", "histogram_1.db"} {
		if err := os.WriteFile(filepath.Join(dir, name), metricFile(8, keys...), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	w, err := openWorkers(dir, 50)
	if err != nil {
		t.Fatal(err)
	}
	w.advance()
	w.advance()
	w.advance()
	if err := w.close(); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string][]float64{
		"counter_1.db":     {7, 7, 9, 9},
		"histogram_1.db":   {7, 7, 9, 9},
		"histogram_1-0.db": {5, 6, 7, 8}, // Ruby's buckets stay
	} {
		if diff := cmp.Diff(want, valuesOf(t, filepath.Join(dir, name))); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	bytes, files, err := usedBytes(dir)
	if err != nil || files != 3 || bytes != 3*int64(len(metricFile(8, keys...))-64) {
		t.Errorf("usedBytes = %d, %d, %v", bytes, files, err)
	}
}

func valuesOf(t *testing.T, path string) []float64 {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	offsets, err := valueOffsets(b)
	if err != nil {
		t.Fatal(err)
	}
	var values []float64
	for _, at := range offsets {
		values = append(values, math.Float64frombits(binary.NativeEndian.Uint64(b[at:])))
	}
	return values
}

// TestChurn runs the generator twice with the real client and looks at what came and went.
func TestChurn(t *testing.T) {
	python := needPython(t)
	ws, err := newWorkspace(options{data: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := ws.remove(); err != nil {
			t.Error(err)
		}
	}()
	p := pythonPeer(python, ws.scripts)
	d := dataset{name: "small", processes: 20, series: 1000, histogram: 40, churn: true}
	dir, err := ws.fill(t.Context(), d, p)
	if err != nil {
		t.Fatal(err)
	}
	own, err := ws.copy(dir)
	if err != nil {
		t.Fatal(err)
	}
	ws.made = append(ws.made, own)
	before := len(valuesOf(t, filepath.Join(own, "counter_10020.db")))
	for _, step := range []string{"0", "1"} {
		if err := p.generate(t.Context(), "churn", own, append(d.arguments(), step)...); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]bool{
		"counter_10001.db": true, "gauge_livesum_10001.db": false, "gauge_all_10001.db": true, // replaced in step 0
		"gauge_livesum_10002.db": false, "counter_10021.db": true, "counter_10022.db": true,
		"counter_10023.db":       false,
		"gauge_livesum_10021.db": true, "gauge_livesum_10003.db": true,
	} {
		if _, err := os.Stat(filepath.Join(own, name)); (err == nil) != want {
			t.Errorf("%s is there: %v, want %v", name, err == nil, want)
		}
	}
	for _, name := range []string{"counter_10020.db", "counter_10022.db"} {
		if got := len(valuesOf(t, filepath.Join(own, name))); got != before+2*counterFamilies {
			t.Errorf("%s has %d values, want %d more than %d", name, got, 2*counterFamilies, before)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "counter_10021.db")); err == nil {
		t.Error("the original changed with its copy")
	}
}

func TestFillKeepsItsHandsOffForeignDirectories(t *testing.T) {
	data := t.TempDir()
	ws, err := newWorkspace(options{data: data})
	if err != nil {
		t.Fatal(err)
	}
	foreign := filepath.Join(data, "D1", pythonFiles)
	if err := os.MkdirAll(foreign, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := ws.fill(t.Context(), allDatasets()[0], pythonPeer("/nowhere/python", ws.scripts)); err == nil {
		t.Error("fill wrote into a directory that it had not made")
	}
	if err := ws.remove(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(foreign); err != nil {
		t.Error(err)
	}
}
