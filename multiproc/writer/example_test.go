package writer_test

import (
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/prefork-exporter/prefork_exporter/multiproc/writer"
)

// exampleWriter returns a writer into a new directory, and how to remove it.
func exampleWriter() (*writer.Writer, func()) {
	dir, err := os.MkdirTemp("", "metrics")
	if err != nil {
		log.Fatal(err)
	}
	w, err := writer.Open(writer.Options{Dir: dir})
	if err != nil {
		log.Fatal(err)
	}
	return w, func() {
		_ = w.Close()
		_ = os.RemoveAll(dir)
	}
}

func ExampleOpen() {
	dir := filepath.Join(os.TempDir(), "metrics-of-example")
	w, err := writer.Open(writer.Options{
		Dir: dir,
		ID:  "worker-3", // else the process id
		OnError: func(err error) {
			log.Printf("metrics are counted in memory only: %v", err)
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	w.NewCounter(writer.Opts{Name: "jobs_total", Help: "Jobs that are done."}).Inc()
	fmt.Println(w.Close())

	files, err := filepath.Glob(filepath.Join(dir, "*"))
	fmt.Println(filepath.Base(files[0]), err, os.RemoveAll(dir))
	// Output:
	// <nil>
	// counter_worker-3.db <nil> <nil>
}

func ExampleCounter() {
	w, done := exampleWriter()
	defer done()
	jobs := w.NewCounter(writer.Opts{Namespace: "app", Name: "jobs_total", Help: "Jobs that are done."})
	jobs.Inc()
	jobs.Add(2)
	fmt.Println(jobs.Value())
	// Output: 3
}

func ExampleCounterVec() {
	w, done := exampleWriter()
	defer done()
	requests := w.NewCounterVec(writer.Opts{
		Name: "http_requests_total", Help: "Requests that were answered.",
	}, []string{"method", "code"})
	requests.WithLabelValues("GET", "200").Inc()
	requests.With(writer.Labels{"method": "GET", "code": "200"}).Inc()

	posts, err := requests.CurryWith(writer.Labels{"method": "POST"})
	posts.WithLabelValues("500").Inc()
	fmt.Println(err, requests.WithLabelValues("GET", "200").Value(), requests.WithLabelValues("POST", "500").Value())
	// Output: <nil> 2 1
}

func ExampleGauge() {
	w, done := exampleWriter()
	defer done()
	inProgress := w.NewGauge(writer.GaugeOpts{
		Opts: writer.Opts{Name: "requests_in_progress", Help: "Requests that are being answered."},
		Mode: writer.ModeLiveSum, // of the living workers
	})
	inProgress.Inc()
	inProgress.Inc()
	inProgress.Dec()
	fmt.Println(inProgress.Value())
	// Output: 1
}

func ExampleGaugeVec() {
	w, done := exampleWriter()
	defer done()
	depth := w.NewGaugeVec(writer.GaugeOpts{
		Opts: writer.Opts{Name: "queue_depth", Help: "Jobs that wait, as the last worker to look saw them."},
		Mode: writer.ModeMostRecent,
	}, []string{"queue"})
	depth.WithLabelValues("mail").Set(12)
	fmt.Println(depth.WithLabelValues("mail").Value())
	// Output: 12
}

func ExampleHistogram() {
	w, done := exampleWriter()
	defer done()
	duration := w.NewHistogram(writer.HistogramOpts{
		Opts:    writer.Opts{Name: "request_duration_seconds", Help: "Time to answer."},
		Buckets: []float64{.01, .1, 1},
	})
	duration.Observe(.25)
	// Output:
}

func ExampleHistogramVec() {
	w, done := exampleWriter()
	defer done()
	duration := w.NewHistogramVec(writer.HistogramOpts{
		Opts: writer.Opts{Name: "request_duration_seconds", Help: "Time to answer."},
	}, []string{"route"})
	duration.WithLabelValues("/users/{id}").Observe(.25)
	// Output:
}

func ExampleSummary() {
	w, done := exampleWriter()
	defer done()
	size := w.NewSummary(writer.Opts{Name: "response_size_bytes", Help: "Bytes of answers."})
	size.Observe(512) // size_sum / size_count is the mean
	// Output:
}

func ExampleSummaryVec() {
	w, done := exampleWriter()
	defer done()
	size := w.NewSummaryVec(writer.Opts{Name: "response_size_bytes", Help: "Bytes of answers."}, []string{"route"})
	size.WithLabelValues("/").Observe(512)
	// Output:
}

func ExampleWriter_Sample() {
	w, done := exampleWriter()
	defer done()
	s := w.Sample(writer.SampleOpts{
		Kind: "counter", Family: "jobs", Name: "jobs_total", Labels: writer.Labels{"queue": "mail"}, Help: "Jobs that are done.",
	})
	s.Set(7) // as another library has counted
	fmt.Println(s.Value())
	// Output: 7
}
