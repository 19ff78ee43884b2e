// Package writer lets the workers of a Go pre-fork server write their metrics
// into per-process memory-mapped files, as client_python 0.18 and later does: a
// prefork_exporter beside the server, or client_python itself, merges the files
// of all workers.
//
//	package main
//
//	import (
//		"log"
//		"net/http"
//
//		"github.com/prefork-exporter/prefork_exporter/multiproc/writer"
//	)
//
//	func main() {
//		w, err := writer.Open(writer.Options{}) // $PROMETHEUS_MULTIPROC_DIR
//		if err != nil {
//			log.Fatal(err)
//		}
//		requests := w.NewCounterVec(writer.Opts{
//			Name: "http_requests_total", Help: "Requests that were answered.",
//		}, []string{"method"})
//		http.HandleFunc("/", func(rw http.ResponseWriter, r *http.Request) {
//			requests.WithLabelValues(r.Method).Inc()
//		})
//		log.Fatal(http.ListenAndServe("localhost:8000", nil))
//	}
//
// Names, labels and vectors are those of client_golang. What it has and this package
// has not: series that go (a file has no place for their end), functions for values
// (nobody would call them), and metrics of the whole package (a worker opens its
// writer after it was forked). Names that begin with prefork_ are the exporter's, which
// leaves out those that it does not know. Counting changes eight
// bytes of a mapping with one atomic instruction: no system call, no lock, no
// allocation, and nothing to flush. What was counted is in the file though the
// process is killed in the next moment.
//
// # Whose file
//
// A file is named by the process's id, or by Options.ID, and locked for as long as
// its writer lives: by the lock readers can tell that the process does.
//
// With an id that was given, a file is continued. A second writer at the same time
// gets an error, and counts in memory. What cannot be continued, because it is damaged or of another era,
// is set aside as counter_ID-1.db, which readers count as any other.
//
// With the process id, a file that is there is a stranger's, who had the id before or
// has it in another container. It is never continued: a dead one's is set aside, and
// its live gauges deleted; a living one's is left alone, and counter_PID-1.db taken.
//
// # When there is no room
//
// Space is allocated before it is mapped. When the disk is full, a file may not
// grow, or the directory is gone or cannot be written, Options.OnError is told
// once for each file, and metrics that find no room are counted in memory: nobody
// sees them, and nothing breaks.
//
// # When another program damages a file
//
// A file that is deleted goes on to be written, unseen, and OnError is told at the
// next new series. One that is cut would kill a program at its next count, by a
// signal: here the fault becomes an error, and counting goes on in memory, from zero.
// That holds for every method of a metric, but not in a program that is built with
// the race detector, whose accesses are not Go's. A file that is overwritten cannot
// be told from one that is not, but for its header: when that has changed, new series
// are counted in memory, and the old ones still at their places in the file. Readers
// make of it what they can.
//
// The guard costs two or three nanoseconds, a third of a count.
package writer
