// Package bridge writes what client_golang has counted into the metric files of
// package writer, so that a Go service with several processes, such as a fasthttp
// or fiber server that pre-forks, is merged with all of them:
//
//	package main
//
//	import (
//		"context"
//		"log"
//		"net/http"
//		"os/signal"
//		"syscall"
//
//		"github.com/prometheus/client_golang/prometheus"
//		"github.com/prometheus/client_golang/prometheus/promauto"
//
//		"github.com/prefork-exporter/prefork_exporter/multiproc/writer"
//		"github.com/prefork-exporter/prefork_exporter/multiproc/writer/bridge"
//	)
//
//	func main() {
//		w, err := writer.Open(writer.Options{}) // $PROMETHEUS_MULTIPROC_DIR
//		if err != nil {
//			log.Fatal(err)
//		}
//		defer w.Close() // ends live gauges
//		b := bridge.New(w, prometheus.DefaultGatherer, bridge.Options{})
//		defer b.Close() // writes a last time
//
//		requests := promauto.NewCounter(prometheus.CounterOpts{
//			Name: "http_requests_total", Help: "Requests that were answered.",
//		})
//		http.HandleFunc("/", func(http.ResponseWriter, *http.Request) { requests.Inc() })
//		server := &http.Server{Addr: "localhost:8000"}
//
//		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
//		defer stop() // without it a signal ends the program, and nothing is written
//		context.AfterFunc(ctx, func() { _ = server.Shutdown(context.Background()) })
//		log.Print(server.ListenAndServe())
//	}
//
// Open the writer in the processes that serve, not in the one that starts them. The
// service's own /metrics, which knows one process, may go: Prometheus scrapes
// prefork_exporter.
//
// # When it is written
//
// A goroutine gathers and writes each Options.Interval, and Bridge.Close a last
// time: a process that is killed loses at most what it counted since the last write.
// Metrics of the writer itself are in the file at once; they live beside those of a
// bridge, under other names.
//
// # What it becomes
//
// Counters, histograms and summaries become those of client_python. A counter whose
// name does not end in _total keeps its name: the exporter shows it as it is, and
// client_python's own reader as untyped. A gauge becomes a series for each living
// process, with its id as the label pid, unless Options.Mode has another mode for it.
// In the most recent modes the process wins in which the gauge has changed last.
//
// What the file has when a series is seen first is what earlier processes of the
// same id have counted, and is added to. So is what had been counted when a series
// is lower, or was created, after the last write, because its vector was reset or it
// was deleted and made anew: a written counter never falls. A series that is gone
// stays as it was written.
//
// # What cannot be carried
//
// Options.OnLoss is told once for each family and reason:
//
//   - native buckets: a file has classic ones only, which are carried where a
//     histogram has both
//   - exemplars, created timestamps, units and timestamps of samples
//   - the quantiles of summaries: those of several processes do not become one
//   - untyped families and gauge histograms, for which there is no file
//   - series with a label that readers set: pid of a gauge, le of a histogram,
//     quantile of a summary
//   - series that are there twice, or have a label twice
//   - names that are empty, and text that is not UTF-8
//   - counters that are negative or not a number, and buckets that do not ascend
//   - a family that comes back with another type, and one that is called as a counter
//     without its _total that was there before: the first one stays
//   - a family that the writer has a metric of: it would count twice
//   - process_network_*, which each process has for the whole host
//   - gauges that are gone: they keep their last value, as long as the process lives
package bridge
