package e2e

import (
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"testing"
)

// metric is one entry of a metric file.
type metric struct {
	family, sample, labels string // labels as a JSON object
	value                  float64
}

// jobs is the counter that tests without a real application look for.
func jobs(queue string, n float64) metric {
	return metric{"jobs", "jobs_total", fmt.Sprintf(`{"queue": %q}`, queue), n}
}

// jobsSeries is the series of jobs in an exposition.
func jobsSeries(queue string) string { return series("jobs_total", "queue", queue) }

// fileBytes returns a file as the Python client writes it since 0.18: see FORMAT.md, era D.
func fileBytes(metrics ...metric) []byte {
	b := make([]byte, 8)
	for _, m := range metrics {
		key := fmt.Sprintf(`[%q, %q, %s, "Jobs done."]`, m.family, m.sample, m.labels)
		b = binary.LittleEndian.AppendUint32(b, uint32(len(key)))
		b = append(b, key...)
		for padding := 8 - (len(key)+4)%8; padding > 0; padding-- {
			b = append(b, ' ')
		}
		b = binary.LittleEndian.AppendUint64(b, math.Float64bits(m.value))
		b = binary.LittleEndian.AppendUint64(b, 0) // counters have no time stamp
	}
	binary.LittleEndian.PutUint32(b, uint32(len(b)))
	return b
}

func writeFile(t *testing.T, dir, name string, b []byte) {
	t.Helper()
	must(t, os.WriteFile(filepath.Join(dir, name), b, 0o644))
}

func fileNames(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func copyFile(t *testing.T, from, name, to string) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(from, name))
	must(t, err)
	writeFile(t, to, name, b)
}
