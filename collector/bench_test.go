package collector

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/common/expfmt"

	"github.com/prefork-exporter/prefork_exporter/collector/internal/expo"
	"github.com/prefork-exporter/prefork_exporter/multiproc"
)

// thousand returns a merge of about a thousand samples, two in five of
// histograms: what the benchmark of the whole program calls D2.
func thousand(b *testing.B) *multiproc.Snapshot {
	b.Helper()
	dir := b.TempDir()
	var counters, histograms []string
	for i := range 600 {
		labels := fmt.Sprintf(`{"method": "GET", "path": "/api/v1/resource/%d", "status": "200"}`, i%60)
		counters = append(counters, fmt.Sprintf(`["requests_%d", "requests_%d_total", %s, "Requests."]`, i/60, i/60, labels))
	}
	for i := range 34 {
		for _, le := range strings.Fields("0.005 0.01 0.025 0.05 0.1 0.25 0.5 1.0 2.5 +Inf") {
			histograms = append(histograms, fmt.Sprintf(`["seconds", "seconds_bucket", {"path": "/%d", "le": %q}, "Seconds."]`, i, le))
		}
		histograms = append(histograms, fmt.Sprintf(`["seconds", "seconds_sum", {"path": "/%d"}, "Seconds."]`, i))
	}
	for name, keys := range map[string][]string{"counter_1.db": counters, "histogram_1.db": histograms} {
		if err := os.WriteFile(filepath.Join(dir, name), metricFile(keys), 0o600); err != nil {
			b.Fatal(err)
		}
	}
	m := multiproc.New(multiproc.Options{})
	defer m.Close()
	m.SetSources([]multiproc.Source{{Path: dir}})
	s, err := m.Merge(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	return s
}

// metricFile returns a file of era D with those keys, whose values are 1.5, 2.5 and so on.
func metricFile(keys []string) []byte {
	file := make([]byte, 8)
	for i, key := range keys {
		file = binary.LittleEndian.AppendUint32(file, uint32(len(key)))
		file = append(append(file, key...), "        "[:8-(len(key)+4)%8]...)
		file = binary.LittleEndian.AppendUint64(file, math.Float64bits(float64(i)+1.5))
		file = binary.LittleEndian.AppendUint64(file, 0)
	}
	binary.LittleEndian.PutUint32(file, uint32(len(file)))
	return file
}

func BenchmarkText(b *testing.B) {
	s := thousand(b)
	options := expo.Options{Escaping: expfmt.FmtText.ToEscapingScheme(), Refuse: Refused()}
	b.Run("layout as before", func(b *testing.B) {
		var t expo.Text
		b.ReportAllocs()
		for b.Loop() {
			if _, err := t.Write(io.Discard, s, options); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("new layout", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			var t expo.Text
			if _, err := t.Write(io.Discard, s, options); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("families", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, dropped := expo.Families(s, options); dropped != 0 {
				b.Fatalf("dropped %d samples", dropped)
			}
		}
	})
}

func BenchmarkScrape(b *testing.B) {
	h := newHandler(b, HandlerOptions{}, map[string]Collector{
		"multiproc": newMultiproc(b, multiproc.Options{}, unpack(b, "client_python-0.18.0/basic")), "exporter": newExporter(b),
	})
	s := httptest.NewServer(h)
	defer s.Close()
	client := &http.Client{Transport: &http.Transport{DisableCompression: true}}
	defer client.CloseIdleConnections()
	for _, encoding := range []string{"identity", "gzip", "zstd"} {
		for name, accept := range map[string]string{"text": "text/plain", "OpenMetrics": prometheus2, "protobuf": acceptProtobuf} {
			b.Run(encoding+" "+name, func(b *testing.B) {
				for b.Loop() {
					r, err := http.NewRequestWithContext(b.Context(), http.MethodGet, s.URL, nil)
					if err != nil {
						b.Fatal(err)
					}
					r.Header.Set("Accept", accept)
					r.Header.Set("Accept-Encoding", encoding)
					resp, err := client.Do(r)
					if err != nil {
						b.Fatal(err)
					}
					_, err = io.Copy(io.Discard, resp.Body)
					_ = resp.Body.Close()
					if err != nil || resp.StatusCode != http.StatusOK {
						b.Fatalf("status %d, %v", resp.StatusCode, err)
					}
				}
			})
		}
	}
}
