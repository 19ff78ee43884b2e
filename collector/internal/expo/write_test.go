package expo

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/prefork-exporter/prefork_exporter/multiproc"
)

// metricFile returns a file of era D with one entry for each key.
func metricFile(value float64, keys ...string) []byte {
	b := make([]byte, 8)
	for _, key := range keys {
		b = binary.LittleEndian.AppendUint32(b, uint32(len(key)))
		b = append(b, key...)
		b = append(b, "        "[:8-(len(key)+4)%8]...)
		b = binary.LittleEndian.AppendUint64(b, math.Float64bits(value))
		b = binary.LittleEndian.AppendUint64(b, 0)
	}
	binary.LittleEndian.PutUint32(b, uint32(len(b)))
	return b
}

// keyOf returns a key as client_python writes it.
func keyOf(family, sample string, labels map[string]string, help string) string {
	if labels == nil {
		labels = map[string]string{}
	}
	b, err := json.Marshal([]any{family, sample, labels, help})
	if err != nil {
		panic(fmt.Sprintf("key of %q: %v", family, err))
	}
	return string(b)
}

// mergeFiles merges a directory with those files.
func mergeFiles(tb testing.TB, files map[string][]byte) *multiproc.Snapshot {
	tb.Helper()
	dir := tb.TempDir()
	for name, b := range files {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			tb.Fatal(err)
		}
	}
	return merge(tb, multiproc.Source{Path: dir})
}

// snapshotOf returns a snapshot of families that no file has.
func snapshotOf(values []float64, families ...multiproc.Family) *multiproc.Snapshot {
	at := 0
	for i := range families {
		families[i].First = at
		at += len(families[i].Samples)
	}
	return &multiproc.Snapshot{Layout: &multiproc.Layout{Families: families, Samples: at}, Values: values}
}
