package bridge_test

import (
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/prefork-exporter/prefork_exporter/multiproc"
	"github.com/prefork-exporter/prefork_exporter/multiproc/writer"
	"github.com/prefork-exporter/prefork_exporter/multiproc/writer/bridge"
)

func Example() {
	registry := prometheus.NewRegistry() // or prometheus's default one
	requests := promauto.With(registry).NewCounterVec(prometheus.CounterOpts{
		Name: "http_requests_total", Help: "Requests that were answered.",
	}, []string{"method"})

	dir := filepath.Join(os.TempDir(), "metrics-of-bridge")
	w, err := writer.Open(writer.Options{Dir: dir, ID: "worker-3"})
	if err != nil {
		log.Fatal(err)
	}
	b := bridge.New(w, registry, bridge.Options{})
	requests.WithLabelValues("GET").Add(2)
	fmt.Println(b.Close()) // writes a last time

	file, err := multiproc.Inspect(filepath.Join(dir, "counter_worker-3.db"))
	if err != nil {
		log.Fatal(err)
	}
	for _, e := range file.Entries {
		fmt.Println(e.Sample, e.Labels, e.Value)
	}
	fmt.Println(w.Close(), os.RemoveAll(dir))
	// Output:
	// <nil>
	// http_requests_total [{method GET}] 2
	// <nil> <nil>
}
