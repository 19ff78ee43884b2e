package registry

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/prefork-exporter/prefork_exporter/multiproc/writer"
)

// Metrics are the metrics of a worker or a master, in the files that all of them
// share: definitions of this catalogue, bound to a [writer.Writer]. A file is made
// when the first metric of its kind counts. All is safe for concurrent use.
type Metrics struct {
	WorkerRequests        *writer.CounterVec   // worker_id
	WorkerRequestDuration *writer.HistogramVec // worker_id
	WorkerMemory          *writer.GaugeVec     // worker_id
	WorkerCPU             *writer.GaugeVec     // worker_id
	WorkerUptime          *writer.GaugeVec     // worker_id
	WorkerState           *writer.GaugeVec     // worker_id, state
	WorkerFailedRequests  *writer.CounterVec   // worker_id, method, endpoint, error_type
	WorkerErrorHandling   *writer.CounterVec   // worker_id, method, endpoint, error_type
	WorkerRequestSize     *writer.HistogramVec // worker_id
	WorkerResponseSize    *writer.HistogramVec // worker_id
	WorkerRestartReason   *writer.CounterVec   // worker_id, reason
	WorkerRestartCount    *writer.CounterVec   // worker_id, restart_type, reason

	WorkerRequestsInProgress *writer.GaugeVec     // worker_id
	WorkerRequestQueue       *writer.HistogramVec // worker_id

	MasterWorkerRestarts     *writer.CounterVec // reason
	MasterWorkerRestartCount *writer.CounterVec // worker_id, restart_type, reason

	writer  *writer.Writer
	dir     string
	onError func(error)
	caps    caps

	mu   sync.Mutex
	slot string // empty: not looked up yet
	lock int    // descriptor of the slot's lock; negative: none
}

// Options say where and how a worker or a master counts. All may be left out.
type Options struct {
	// Dir is the directory of the metric files, made if it is not there. Empty:
	// $PROMETHEUS_MULTIPROC_DIR, else ~/.gunicorn_prometheus.
	Dir string

	// Worker is the worker's slot: the label worker_id. Empty: what the supervisor
	// says in $PREFORK_WORKER_ID, else the lowest number that no living worker of the
	// directory has. It is looked up when it is needed first.
	Worker string

	// ID names the files: [writer.Options]. Empty: the process id. One that outlives
	// processes, such as the slot, keeps the number of files small.
	ID string

	// DurationBuckets are the upper bounds for request durations, in seconds. All
	// workers need the same. Nil: .1 .5 1 2.5 5 10 30 60.
	DurationBuckets []float64

	// OnError is told once what goes wrong with each file, or with the slot: counting
	// goes on. It may count. Nil: it is logged with [slog.Default].
	OnError func(error)
}

// Shared returns the metrics of this process in dir, with the defaults of [Options].
func Shared(dir string) (*Metrics, error) { return Open(Options{Dir: dir}) }

// Open returns the metrics of this process. A process opens a directory once and
// passes the result on: a second time it would get files and a slot of their own.
// The error says why the directory cannot be used.
func Open(o Options) (*Metrics, error) {
	dir, err := directory(o.Dir)
	if err != nil {
		return nil, err
	}
	if !ascend(o.DurationBuckets) {
		return nil, fmt.Errorf("duration buckets %v: want ascending bounds", o.DurationBuckets)
	}
	if o.OnError == nil {
		o.OnError = func(err error) {
			slog.Default().Error("metrics are not written as they should", "err", err)
		}
	}
	w, err := writer.Open(writer.Options{Dir: dir, ID: o.ID, OnError: o.OnError})
	if err != nil {
		return nil, fmt.Errorf("%w: want a directory that this process can write, or can make: set PROMETHEUS_MULTIPROC_DIR to one", err)
	}
	m := &Metrics{writer: w, dir: dir, onError: o.OnError, slot: cmp.Or(o.Worker, os.Getenv("PREFORK_WORKER_ID")), lock: -1}
	m.register(o.DurationBuckets)
	return m, nil
}

// ascend says whether they are the bounds of a histogram.
func ascend(bounds []float64) bool {
	for i, b := range bounds {
		if b != b || i > 0 && b <= bounds[i-1] {
			return false
		}
	}
	return true
}

// register binds the definitions of the catalogue.
func (m *Metrics) register(durations []float64) {
	r := registrar{m.writer, map[string]Definition{}}
	for _, d := range Definitions() {
		if d.Name == "prefork_worker_request_duration_seconds" && len(durations) > 0 {
			d.Buckets = durations
		}
		r.definitions[d.Name] = d
	}
	m.WorkerRequests = r.counter("prefork_worker_requests_total")
	m.WorkerRequestDuration = r.histogram("prefork_worker_request_duration_seconds")
	m.WorkerMemory = r.gauge("prefork_worker_memory_bytes")
	m.WorkerCPU = r.gauge("prefork_worker_cpu_percent")
	m.WorkerUptime = r.gauge("prefork_worker_uptime_seconds")
	m.WorkerState = r.gauge("prefork_worker_state")
	m.WorkerFailedRequests = r.counter("prefork_worker_failed_requests_total")
	m.WorkerErrorHandling = r.counter("prefork_worker_error_handling_total")
	m.WorkerRequestSize = r.histogram("prefork_worker_request_size_bytes")
	m.WorkerResponseSize = r.histogram("prefork_worker_response_size_bytes")
	m.WorkerRestartReason = r.counter("prefork_worker_restart_total")
	m.WorkerRestartCount = r.counter("prefork_worker_restart_count_total")
	m.WorkerRequestsInProgress = r.gauge("prefork_worker_requests_in_progress")
	m.WorkerRequestQueue = r.histogram("prefork_worker_request_queue_seconds")
	m.MasterWorkerRestarts = r.counter("prefork_master_worker_restart_total")
	m.MasterWorkerRestartCount = r.counter("prefork_master_worker_restart_count_total")
}

// registrar registers metrics as the catalogue defines them.
type registrar struct {
	writer      *writer.Writer
	definitions map[string]Definition
}

func (r registrar) opts(name string) writer.Opts {
	return writer.Opts{Name: name, Help: r.definitions[name].Help}
}

func (r registrar) counter(name string) *writer.CounterVec {
	return r.writer.NewCounterVec(r.opts(name), r.definitions[name].Labels)
}

func (r registrar) gauge(name string) *writer.GaugeVec {
	d := r.definitions[name]
	return r.writer.NewGaugeVec(writer.GaugeOpts{Opts: r.opts(name), Mode: writer.Mode(d.Mode)}, d.Labels)
}

func (r registrar) histogram(name string) *writer.HistogramVec {
	d := r.definitions[name]
	return r.writer.NewHistogramVec(writer.HistogramOpts{Opts: r.opts(name), Buckets: d.Buckets}, d.Labels)
}

// directory returns where the files are.
func directory(dir string) (string, error) {
	if dir := cmp.Or(dir, os.Getenv("PROMETHEUS_MULTIPROC_DIR"), os.Getenv("prometheus_multiproc_dir")); dir != "" {
		return filepath.Abs(dir)
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("%w (no home directory either: %w)", writer.ErrNoDirectory, err)
	}
	return filepath.Join(home, ".gunicorn_prometheus"), nil
}

// Worker returns this worker's slot, the value of the label worker_id; "unknown"
// when it cannot be found.
func (m *Metrics) Worker() string {
	slot, err := m.findSlot()
	if err != nil {
		m.onError(err) // without the lock: who is told may ask for the slot
	}
	return slot
}

func (m *Metrics) findSlot() (slot string, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.slot == "" {
		if m.slot, m.lock, err = takeSlot(m.dir); err != nil {
			m.slot = "unknown"
		}
	}
	return m.slot, err
}

// Writer returns what writes the files, for metrics of one's own in the same.
func (m *Metrics) Writer() *writer.Writer { return m.writer }

// Close lets go of the files and of the slot.
func (m *Metrics) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	err := m.writer.Close()
	m.slot = cmp.Or(m.slot, "unknown") // none is taken any more
	if m.lock >= 0 {
		err = errors.Join(err, unix.Close(m.lock))
		m.lock = -1
	}
	return err
}
