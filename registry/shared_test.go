package registry_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/prefork-exporter/prefork_exporter/multiproc"
	"github.com/prefork-exporter/prefork_exporter/multiproc/writer"
	"github.com/prefork-exporter/prefork_exporter/registry"
)

// open opens the metrics of a process that fails the test when something goes wrong.
func open(t testing.TB, o registry.Options) *registry.Metrics {
	t.Helper()
	o.OnError = func(err error) { t.Errorf("unexpected: %v", err) }
	m, err := registry.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

// merged returns the families of a directory by name, and their values by labels,
// without those of buckets.
func merged(t testing.TB, dir string) (map[string]multiproc.Family, map[string]float64) {
	t.Helper()
	m := multiproc.New(multiproc.Options{})
	defer m.Close()
	m.SetSources([]multiproc.Source{{Path: dir}})
	s, err := m.Merge(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	families, values := map[string]multiproc.Family{}, map[string]float64{}
	for _, f := range s.Families {
		families[f.Name] = f
		for i, sample := range f.Samples {
			if sample.Part == multiproc.PartBucket {
				continue
			}
			labels := make([]string, len(sample.Labels))
			for j, l := range sample.Labels {
				labels[j] = l.Name + "=" + l.Value
			}
			values[strings.TrimPrefix(f.Name, registry.Prefix)+sample.Part.Suffix()+"{"+strings.Join(labels, ",")+"}"] = s.Values[f.First+i]
		}
	}
	return families, values
}

func TestEveryMetricCountsAsItsTypeAllows(t *testing.T) {
	dir := t.TempDir()
	m := open(t, registry.Options{Dir: dir, Worker: "3"})
	m.WorkerRequests.WithLabelValues("3").Inc()
	m.WorkerRequests.WithLabelValues("3").Add(2)
	m.WorkerRequestDuration.WithLabelValues("3").Observe(.3)
	m.WorkerMemory.WithLabelValues("3").Set(1 << 20)
	m.WorkerCPU.WithLabelValues("3").Set(12.5)
	m.WorkerUptime.WithLabelValues("3").Set(60)
	m.WorkerState.WithLabelValues("3", "running").Set(1)
	m.WorkerFailedRequests.WithLabelValues("3", "GET", "/a", "RequestError").Inc()
	m.WorkerErrorHandling.WithLabelValues("3", "GET", "/a", "RequestError").Inc()
	m.WorkerRequestSize.WithLabelValues("3").Observe(10)
	m.WorkerResponseSize.WithLabelValues("3").Observe(20)
	m.WorkerRestartReason.WithLabelValues("3", "timeout").Inc()
	m.WorkerRestartCount.WithLabelValues("3", "forced", "timeout").Inc()
	m.WorkerRequestsInProgress.WithLabelValues("3").Inc()
	m.WorkerRequestsInProgress.WithLabelValues("3").Inc()
	m.WorkerRequestsInProgress.WithLabelValues("3").Dec()
	m.WorkerRequestQueue.WithLabelValues("3").Observe(.01)
	m.MasterWorkerRestarts.WithLabelValues("reload").Inc()
	m.MasterWorkerRestartCount.WithLabelValues("3", "graceful", "reload").Inc()

	families, got := merged(t, dir)
	if diff := cmp.Diff(map[string]float64{
		"worker_requests_total{worker_id=3}":                                                       3,
		"worker_request_duration_seconds_sum{worker_id=3}":                                         .3,
		"worker_request_duration_seconds_count{worker_id=3}":                                       1,
		"worker_memory_bytes{worker_id=3}":                                                         1 << 20,
		"worker_cpu_percent{worker_id=3}":                                                          12.5,
		"worker_uptime_seconds{worker_id=3}":                                                       60,
		"worker_state{state=running,worker_id=3}":                                                  1,
		"worker_failed_requests_total{endpoint=/a,error_type=RequestError,method=GET,worker_id=3}": 1,
		"worker_error_handling_total{endpoint=/a,error_type=RequestError,method=GET,worker_id=3}":  1,
		"worker_request_size_bytes_sum{worker_id=3}":                                               10,
		"worker_request_size_bytes_count{worker_id=3}":                                             1,
		"worker_response_size_bytes_sum{worker_id=3}":                                              20,
		"worker_response_size_bytes_count{worker_id=3}":                                            1,
		"worker_restart_total{reason=timeout,worker_id=3}":                                         1,
		"worker_restart_count_total{reason=timeout,restart_type=forced,worker_id=3}":               1,
		"worker_requests_in_progress{worker_id=3}":                                                 1,
		"worker_request_queue_seconds_sum{worker_id=3}":                                            .01,
		"worker_request_queue_seconds_count{worker_id=3}":                                          1,
		"master_worker_restart_total{reason=reload}":                                               1,
		"master_worker_restart_count_total{reason=reload,restart_type=graceful,worker_id=3}":       1,
	}, got); diff != "" {
		t.Errorf("merged (-want +got):\n%s", diff)
	}
	checkCatalogue(t, families)
}

// checkCatalogue fails the test unless the families are all that may be in files,
// as the catalogue has them.
func checkCatalogue(t *testing.T, families map[string]multiproc.Family) {
	t.Helper()
	for _, d := range registry.Definitions() {
		f, ok := families[d.Name]
		if ok != d.MayBeInFiles() {
			t.Errorf("%s: written %v, in files by the catalogue %v", d.Name, ok, d.MayBeInFiles())
		}
		if ok && (f.Type.String() != string(d.Type) || f.Help != d.Help) {
			t.Errorf("%s is a %s: %q; the catalogue has a %s: %q", d.Name, f.Type, f.Help, d.Type, d.Help)
		}
		delete(families, d.Name)
	}
	for name := range families {
		t.Errorf("%s is not in the catalogue", name)
	}
}

// The names of the seed's reference.
func TestTheMetricsOfTheSeedAreThereByName(t *testing.T) {
	fields := reflect.TypeFor[registry.Metrics]()
	for _, name := range []string{
		"WorkerRequests", "WorkerRequestDuration", "WorkerMemory", "WorkerCPU", "WorkerUptime", "WorkerState", "WorkerFailedRequests",
		"WorkerErrorHandling", "WorkerRequestSize", "WorkerResponseSize", "WorkerRestartReason", "WorkerRestartCount",
		"MasterWorkerRestarts", "MasterWorkerRestartCount",
	} {
		if f, ok := fields.FieldByName(name); !ok || !f.IsExported() {
			t.Errorf("no metric %s", name)
		}
	}
}

func TestOpeningMakesTheDirectoryAndNoFile(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	m := open(t, registry.Options{Dir: dir})
	if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
		t.Errorf("entries %v, %v; want an empty directory", entries, err)
	}
	m.MasterWorkerRestarts.WithLabelValues("reload").Inc()
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 || !strings.HasPrefix(entries[0].Name(), "counter_") {
		t.Errorf("entries %v, %v; want the file of counters", entries, err)
	}
}

func TestWhichDirectoryItIs(t *testing.T) {
	given, env, old, home := t.TempDir(), t.TempDir(), t.TempDir(), t.TempDir()
	for name, tc := range map[string]struct{ dir, env, old, want string }{
		"the one that was given":           {given, env, old, given},
		"that of the environment":          {"", env, old, env},
		"that of the environment, as once": {"", "", old, old},
		"the one at home":                  {"", "", "", filepath.Join(home, ".gunicorn_prometheus")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("PROMETHEUS_MULTIPROC_DIR", tc.env)
			t.Setenv("prometheus_multiproc_dir", tc.old)
			t.Setenv("HOME", home)
			m, err := registry.Shared(tc.dir)
			if err != nil {
				t.Fatal(err)
			}
			m.WorkerRequests.WithLabelValues("0").Inc()
			if _, got := merged(t, tc.want); got["worker_requests_total{worker_id=0}"] != 1 {
				t.Errorf("merged %v: nothing was counted there", got)
			}
			if slot := m.Worker(); slot != "0" {
				t.Errorf("slot %s, want 0", slot)
			}
			if _, err := os.Stat(filepath.Join(tc.want, "worker_0.lock")); err != nil {
				t.Errorf("the slot was taken elsewhere: %v", err)
			}
			if err := m.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestADirectoryThatCannotBeUsedIsAnErrorThatSaysWhatToDo(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := registry.Shared(filepath.Join(file, "sub"))
	if err == nil || !strings.Contains(err.Error(), "not a directory") || !strings.Contains(err.Error(), "set PROMETHEUS_MULTIPROC_DIR to one") {
		t.Errorf("error %v", err)
	}
	for _, name := range []string{"PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir", "HOME"} {
		t.Setenv(name, "")
	}
	if _, err := registry.Shared(""); err == nil || !strings.Contains(err.Error(), "set PROMETHEUS_MULTIPROC_DIR") {
		t.Errorf("without a home: error %v", err)
	}
}

func TestWhichSlotAWorkerHas(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PREFORK_WORKER_ID", "7")
	if got := open(t, registry.Options{Dir: dir}).Worker(); got != "7" {
		t.Errorf("slot %s, want the supervisor's", got)
	}
	if got := open(t, registry.Options{Dir: dir, Worker: "w"}).Worker(); got != "w" {
		t.Errorf("slot %s, want the one that was given", got)
	}
	t.Setenv("PREFORK_WORKER_ID", "")
	first, second := open(t, registry.Options{Dir: dir}), open(t, registry.Options{Dir: dir})
	got := []string{first.Worker(), second.Worker(), first.Worker()}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	got = append(got, open(t, registry.Options{Dir: dir}).Worker(), open(t, registry.Options{Dir: dir}).Worker())
	if !slices.Equal(got, []string{"0", "1", "0", "0", "2"}) {
		t.Errorf("slots %v, want 0 1 0, and 0 again when its worker is gone", got)
	}
}

// What is in the way of one slot costs that slot.
func TestASlotThatCannotBeTakenIsPassedOver(t *testing.T) {
	dir := t.TempDir()
	if err := os.Symlink("nowhere", filepath.Join(dir, "worker_0.lock")); err != nil {
		t.Fatal(err)
	}
	if got := open(t, registry.Options{Dir: dir}).Worker(); got != "1" {
		t.Errorf("slot %s, want 1", got)
	}
}

func TestASlotIsKeptThoughItsMetricsAreForgotten(t *testing.T) {
	dir := t.TempDir()
	m, err := registry.Shared(dir)
	if err != nil {
		t.Fatal(err)
	}
	if got := m.Worker(); got != "0" {
		t.Fatalf("slot %s, want 0", got)
	}
	m = nil
	for range 3 {
		runtime.GC()
	}
	if got := open(t, registry.Options{Dir: dir}).Worker(); got != "1" {
		t.Errorf("slot %s, want 1: 0 is taken for as long as its process lives", got)
	}
	_ = m
}

func TestWithoutADirectoryThereIsNoSlot(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "gone")
	var m *registry.Metrics
	var errs []error
	m, err := registry.Open(registry.Options{Dir: dir, OnError: func(err error) { // who is told may ask again, and count
		errs = append(errs, err)
		m.RecordError(m.Worker(), "GET", "/", registry.MemoryError)
	}})
	if err == nil {
		err = os.Remove(dir)
	}
	if err != nil {
		t.Fatal(err)
	}
	if got := m.Worker(); got != "unknown" || len(errs) == 0 || !strings.Contains(errs[0].Error(), "take a worker's slot") {
		t.Errorf("slot %s, errors %v; want none, and why", got, errs)
	}
}

func TestDurationBucketsThatFallAreAnError(t *testing.T) {
	_, err := registry.Open(registry.Options{Dir: t.TempDir(), DurationBuckets: []float64{2, 1}})
	if err == nil || !strings.Contains(err.Error(), "want ascending bounds") {
		t.Errorf("error %v", err)
	}
}

// A worker that is killed leaves its slot to the next one.
func TestASlotIsFreeWhenItsWorkerIsKilled(t *testing.T) {
	dir := t.TempDir()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	child := exec.CommandContext(t.Context(), program)
	child.Env = append(os.Environ(), "REGISTRY_TEST_SLOT_IN="+dir)
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	slot := make([]byte, 1)
	if _, err := out.Read(slot); err != nil || string(slot) != "0" {
		t.Fatalf("the child has slot %q, %v; want 0", slot, err)
	}
	if got := open(t, registry.Options{Dir: dir}).Worker(); got != "1" {
		t.Errorf("beside it slot %s, want 1", got)
	}
	_ = child.Process.Kill()
	_ = child.Wait()
	if got := open(t, registry.Options{Dir: dir}).Worker(); got != "0" {
		t.Errorf("after it slot %s, want 0", got)
	}
}

func TestMain(m *testing.M) {
	if dir := os.Getenv("REGISTRY_TEST_SLOT_IN"); dir != "" {
		metrics, err := registry.Shared(dir)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Print(metrics.Worker())
		select {} // until it is killed
	}
	os.Exit(m.Run())
}

func TestErrorsHaveLabelsThatNoClientCanMultiply(t *testing.T) {
	dir := t.TempDir()
	m := open(t, registry.Options{Dir: dir})
	for i := range 1000 {
		m.RecordError("0", "GET", "/", fmt.Sprintf("Error%d", i))
		m.RecordError("0", "GET", fmt.Sprintf("/%d", i), registry.TimeoutError)
		m.RecordError("0", fmt.Sprintf("M%d", i), "/", registry.CPUError)
		m.RecordFailure("0", "GET", "/", registry.MemoryError)
	}
	m.RecordError("0", "GET", "/", registry.RequestError) // documented: however many others there were
	_, got := merged(t, dir)
	for series, want := range map[string]float64{
		"worker_error_handling_total{endpoint=/,error_type=Error63,method=GET,worker_id=0}":          1,
		"worker_error_handling_total{endpoint=/,error_type=OTHER,method=GET,worker_id=0}":            1000 - 64,
		"worker_error_handling_total{endpoint=OTHER,error_type=TimeoutError,method=GET,worker_id=0}": 1000 - 255,
		"worker_error_handling_total{endpoint=/,error_type=CPUError,method=OTHER,worker_id=0}":       1000,
		"worker_error_handling_total{endpoint=/,error_type=RequestError,method=GET,worker_id=0}":     1,
		"worker_failed_requests_total{endpoint=/,error_type=MemoryError,method=GET,worker_id=0}":     1000,
	} {
		if got[series] != want {
			t.Errorf("%s is %v, want %v", series, got[series], want)
		}
	}
	if len(got) != 64+1+255+1+1+1+1 {
		t.Errorf("%d series", len(got))
	}
}

func TestDurationsMayBeFiner(t *testing.T) {
	dir := t.TempDir()
	m := open(t, registry.Options{Dir: dir, DurationBuckets: []float64{.001, .01}})
	m.WorkerRequestDuration.WithLabelValues("0").Observe(.005)
	b, err := os.ReadFile(filepath.Join(dir, fmt.Sprintf("histogram_%d.db", os.Getpid())))
	if err != nil || !bytes.Contains(b, []byte(`"le": "0.001"`)) || bytes.Contains(b, []byte(`"le": "60.0"`)) {
		t.Errorf("the file has %q, %v; want the bounds that were given and no others", bytes.Trim(b, "\x00"), err)
	}
}

func ExampleShared() {
	dir := filepath.Join(os.TempDir(), "metrics-of-shared")
	defer func() { _ = os.RemoveAll(dir) }()
	m, err := registry.Shared(dir) // "" for the directory of the environment
	if err != nil {
		fmt.Println(err)
		return
	}
	requests := m.WorkerRequests.With(writer.Labels{"worker_id": m.Worker()})
	requests.Inc()
	m.Writer().NewCounter(writer.Opts{Name: "orders_total", Help: "Orders that were taken."}).Inc() // the application's own
	m.RecordError(m.Worker(), "GET", "/users/{id}", registry.TimeoutError)
	fmt.Println(requests.Value(), m.Close())
	// Output: 1 <nil>
}
