package api

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/prefork-exporter/prefork_exporter/collector"
	"github.com/prefork-exporter/prefork_exporter/collector/watch"
)

// allKnown is a master with all that can be known of one, out of order.
func allKnown() known {
	at := begun().Add(30 * time.Minute)
	return known{
		Kind: watch.Gunicorn, Master: 100, Target: 2, StartTime: begun(), Stopping: true, Backoff: 1500 * time.Millisecond, Loop: true,
		Workers: []watch.Worker{
			{Slot: "10", PID: 110, State: "stopping", Born: at},
			{Slot: "2", PID: 103, State: "starting", Born: at.Add(time.Minute)},
			{Slot: "2", PID: 102, State: "running", Born: at, LifeSign: begun().Add(59*time.Minute + 59500*time.Millisecond)},
		},
		Exits:    []watch.Exit{{Signal: "KILL", Count: 1}, {Code: "7", Count: 2}, {Code: "0", Count: 3}, {Count: 4}},
		Restarts: []watch.Restart{{Slot: "10", Reason: "oom", Count: 1}, {Slot: "2", Reason: "signal", Count: 2}, {Slot: "2", Reason: "exit_code", Count: 3}},
		Reloads:  map[string]float64{"success": 4, "failure": 1},
		Signals:  map[string]float64{"HUP": 5},
		Masters:  map[string]float64{"reload": 1},
		Deaths: []watch.Death{
			{At: at, Slot: "2", PID: 101, Born: begun(), Reason: "oom", Signal: "KILL", ResidentBytes: 5 << 20},
			{At: at.Add(1234 * time.Microsecond), Slot: "10", PID: 104, Born: at, Reason: "exit_code", Code: "7"},
			{At: at.Add(time.Second), Reason: "unknown"},
		},
	}
}

// allMeasured is what all collectors may say of it.
func allMeasured() map[string]collector.Collector {
	const listener = "tcp://127.0.0.1:8000"
	return map[string]collector.Collector{
		"restart": measures(errors.New("a part is missing")),
		"worker": measures(nil,
			sample{"prefork_worker_pid", 102, []string{"2"}},
			sample{"prefork_worker_memory_bytes", 3 << 20, []string{"2"}},
			sample{"prefork_worker_memory_pss_bytes", 2 << 20, []string{"2"}},
			sample{"prefork_worker_memory_uss_bytes", 1 << 20, []string{"2"}},
			sample{"prefork_worker_threads", 4, []string{"2"}},
			sample{"prefork_worker_open_fds", 12, []string{"2"}},
			sample{"prefork_worker_busy", 1, []string{"2"}},
			sample{"prefork_worker_cpu_seconds_total", 2.5, []string{"2", "user"}},
			sample{"prefork_worker_cpu_seconds_total", 0.25, []string{"2", "system"}},
			sample{"prefork_worker_pid", 999, []string{"10"}}, // another one since
			sample{"prefork_worker_memory_bytes", 6 << 20, []string{"10"}},
		),
		"listen": measures(nil,
			sample{"prefork_listen_queue_length", 1, []string{listener}},
			sample{"prefork_listen_queue_limit", 128, []string{listener}},
			sample{"prefork_listen_queue_peak", 7, []string{listener}},
			sample{"prefork_listen_queue_drops_total", 2, []string{listener}},
			sample{"prefork_listen_queue_oldest_seconds", 0.5, []string{listener}},
			sample{"prefork_listen_queue_wait_seconds_total", 12.5, []string{listener}},
			sample{"prefork_listen_queue_full_seconds_total", 0, []string{listener}},
			sample{"prefork_listen_queue_length", 0, []string{"unix:///run/a.sock"}},
			sample{"prefork_feature_available", 0, []string{"listen_queue_limit", "the kernel does not answer sock_diag"}},
		),
		"multiproc": measures(nil,
			sample{"prefork_up", 1, nil},
			sample{"prefork_multiproc_files", 3, []string{"alive"}},
			sample{"prefork_multiproc_bytes", 4096, []string{"alive"}},
			sample{"prefork_multiproc_processes", 2, []string{"alive"}},
			sample{"prefork_multiproc_series", 17, nil},
			sample{"prefork_multiproc_file_errors_total", 5, []string{"truncated"}},
			sample{"prefork_multiproc_file_errors_total", 0, []string{"open"}},
			sample{"prefork_feature_available", 1, []string{"multiproc", ""}},
		),
		"cgroup": measures(nil,
			sample{"prefork_cgroup_memory_bytes", 64 << 20, nil},
			sample{"prefork_cgroup_memory_limit_bytes", 128 << 20, nil},
			sample{"prefork_cgroup_oom_kills_total", 1, nil},
			sample{"prefork_cgroup_cpu_throttled_seconds_total", 0.125, nil},
			sample{"prefork_feature_available", 1, []string{"cgroup_memory", ""}},
		),
	}
}

// everything is of a target with labels, which the metric files are not of.
func everything() *status {
	shop, measured := map[string]string{"app": "shop"}, allMeasured()
	for _, name := range []string{"worker", "listen", "cgroup"} {
		measured[name] = collector.Labelled(shop, measured[name])
	}
	s := newStatus(Watched{Labels: shop, Source: allKnown()}, measured)
	s.Directories = func() []Directory {
		return []Directory{{"/run/shop/b", nil}, {"/run/shop/a", map[string]string{"app": "shop", "part": "a"}}}
	}
	return s
}

func TestTheWholeStatus(t *testing.T) {
	w := ask(everything(), "GET")
	golden(t, "testdata/status.json", w.Body.String())
	for name, want := range map[string]string{
		"Content-Type": "application/json", "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff",
	} {
		if got := w.Header().Get(name); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}

func TestTheStatusSurvivesARoundTrip(t *testing.T) {
	text := ask(everything(), "GET").Body.String()
	var s Status
	d := json.NewDecoder(strings.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&s); err != nil {
		t.Fatal(err)
	}
	again, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(text, string(again)+"\n"); diff != "" {
		t.Errorf("-before +after:\n%s", diff)
	}
}

// shape lists the fields of a type, by path, with their types.
func shape(path string, typ reflect.Type) (fields []string) {
	switch {
	case typ == reflect.TypeFor[Time]():
		return []string{path + " time"}
	case typ.Kind() == reflect.Pointer:
		return shape(path, typ.Elem())
	case typ.Kind() == reflect.Slice:
		return shape(path+"[]", typ.Elem())
	case typ.Kind() == reflect.Map:
		return []string{path + " object of texts"}
	case typ.Kind() == reflect.Struct:
		for i := range typ.NumField() {
			name, rest, _ := strings.Cut(typ.Field(i).Tag.Get("json"), ",")
			below := shape(strings.TrimPrefix(path+"."+name, "."), typ.Field(i).Type)
			if rest == "omitzero" {
				below = mayBeAbsent(strings.TrimPrefix(path+"."+name, "."), typ.Field(i).Type, below)
			}
			fields = append(fields, below...)
		}
		return fields
	}
	return []string{path + " " + map[reflect.Kind]string{
		reflect.String: "text", reflect.Int: "integer", reflect.Float64: "number", reflect.Bool: "boolean",
	}[typ.Kind()]}
}

// mayBeAbsent notes of a field that it may be, and with it those below it.
func mayBeAbsent(path string, typ reflect.Type, below []string) []string {
	const note = ", may be absent"
	switch {
	case typ.Kind() == reflect.Slice:
		return append([]string{path + " list" + note}, below...)
	case typ.Kind() == reflect.Pointer && typ.Elem().Kind() == reflect.Struct:
		return append([]string{path + " object" + note}, below...)
	}
	return []string{below[0] + note}
}

func statusShape() []string { return shape("", reflect.TypeFor[Status]()) }

// A field that is renamed, removed or of another type is another version.
func TestTheShapeOfTheStatus(t *testing.T) {
	golden(t, "testdata/status.shape", strings.Join(statusShape(), "\n")+"\n")
}

// paths lists the fields of a document, lists and objects included.
func paths(path string, v any) (fields []string) {
	switch v := v.(type) {
	case []any:
		for _, one := range v {
			fields = append(fields, paths(path+"[]", one)...)
		}
		return append(fields, path)
	case map[string]any:
		for name, one := range v {
			fields = append(fields, paths(strings.TrimPrefix(path+"."+name, "."), one)...)
		}
		return append(fields, path)
	}
	return []string{path}
}

func TestTheGoldenStatusHasEveryField(t *testing.T) {
	var document any
	if err := json.Unmarshal([]byte(read(t, "testdata/status.json")), &document); err != nil {
		t.Fatal(err)
	}
	got := paths("", document)
	for _, field := range statusShape() {
		if path, _, _ := strings.Cut(field, " "); !slices.Contains(got, path) {
			t.Errorf("testdata/status.json has no %s: give the test a value for it", path)
		}
	}
}

// docs/status.md has a row for each field, and the golden document as its example.
func TestTheStatusIsDocumented(t *testing.T) {
	doc := read(t, "../../../docs/status.md")
	var rows []string
	for line := range strings.Lines(doc) {
		if cells := strings.Split(line, "|"); len(cells) > 4 && strings.HasPrefix(line, "| `") {
			rows = append(rows, strings.Trim(cells[1], " `")+" "+strings.TrimSpace(cells[2]))
		}
	}
	if diff := cmp.Diff(statusShape(), rows); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
	if !strings.Contains(doc, "```json\n"+read(t, "testdata/status.json")+"```\n") {
		t.Error("the example is not testdata/status.json")
	}
}

// get returns the status as a client has it.
func get(t *testing.T, s *status) Status {
	t.Helper()
	w := ask(s, "GET")
	if w.Code != http.StatusOK {
		t.Fatalf("status %d: %s", w.Code, w.Body)
	}
	var d Status
	if err := json.Unmarshal(w.Body.Bytes(), &d); err != nil {
		t.Fatal(err)
	}
	return d
}

func TestWhatIsNotKnownIsLeftOut(t *testing.T) {
	ended := allKnown()
	ended.Over, ended.Master, ended.Workers = true, 0, nil
	for name, tc := range map[string]struct {
		source     watch.Source
		collectors map[string]collector.Collector
		want       string // the target
	}{
		"nothing": {unknown{}, nil, `{"labels":{}}`},
		"a server whose workers nobody watches": {
			known{Target: -1, StartTime: begun(), Signals: map[string]float64{}, Masters: map[string]float64{}}, nil,
			`{"labels":{},"master":{"started":"2026-11-21T22:00:00.000Z","uptime_seconds":3600,"stopping":false,"ended":false,` +
				`"backoff_seconds":0,"restart_loop":false,"restarts":[],"signals":[]}}`,
		},
		"a master that somebody else has started": {
			known{Kind: watch.Unicorn, Master: 5, Target: -1, Backoff: time.Second, Loop: true, Stopping: true, Reloads: map[string]float64{"success": 1}}, nil,
			`{"labels":{},"kind":"unicorn","master":{"pid":5,"stopping":true,"ended":false,"reloads":[{"result":"success","count":1}]}}`,
		},
		"a master that should have no workers, and has none": {
			known{}, nil,
			`{"labels":{},"master":{"stopping":false,"ended":false},"workers_target":0,"workers":[],"exits":[],"restarts":[],"deaths":[]}`,
		},
		"how many workers there should be": {
			known{Kind: watch.Puma, Target: -1, Workers: []watch.Worker{{Slot: "0", PID: 5, State: "running"}}}, nil,
			`{"labels":{},"kind":"puma","master":{"stopping":false,"ended":false},"workers":[{"slot":"0","pid":5,"state":"running"}],` +
				`"exits":[],"restarts":[],"deaths":[]}`,
		},
		"a number that JSON has not": {
			unknown{}, map[string]collector.Collector{"it": measures(nil,
				sample{"prefork_cgroup_memory_bytes", math.Inf(1), nil}, sample{"prefork_cgroup_oom_kills_total", math.NaN(), nil},
				sample{"prefork_cgroup_cpu_throttled_seconds_total", 1, nil},
			)},
			`{"labels":{},"cgroup":{"cpu_throttled_seconds":1}}`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := json.Marshal(get(t, newStatus(Watched{Source: tc.source}, tc.collectors)).Targets[0])
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, string(got)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
	if m := get(t, newStatus(Watched{Source: ended}, nil)).Targets[0]; !m.Master.Ended || m.Master.UptimeSeconds != nil || len(m.Deaths) != 3 {
		t.Errorf("of a master that has ended: %+v, with %d deaths, want no age of it, and 3 deaths", m.Master, len(m.Deaths))
	}
}

func TestACollectorThatFailsCostsItsPart(t *testing.T) {
	collectors := allMeasured()
	collectors["worker"] = gives(func(*collector.Output) error { panic("a bug") })
	collectors["listen"] = measures(errors.New("no"), sample{"prefork_listen_queue_length", 1, []string{"unix:///a"}})
	got := get(t, newStatus(Watched{Source: allKnown()}, collectors))
	if diff := cmp.Diff([]Failure{{"listen"}, {"restart"}, {"worker"}}, got.Errors); diff != "" {
		t.Errorf("errors (-want +got):\n%s", diff)
	}
	target := got.Targets[0]
	if len(target.Workers) != 3 || target.Workers[0].ResidentBytes != nil {
		t.Errorf("workers %+v, want three without memory", target.Workers)
	}
	if len(target.ListenQueues) != 1 || target.Cgroup == nil {
		t.Errorf("queues %+v and control group %+v, want what there is", target.ListenQueues, target.Cgroup)
	}
}

func TestOfTwoWorkersInASlotTheMeasuredOneHasTheFigures(t *testing.T) {
	for pid, want := range map[float64][]bool{102: {true, false}, 103: {false, true}, 104: {false, false}} {
		s := newStatus(Watched{Source: known{Workers: allKnown().Workers[1:]}}, map[string]collector.Collector{"worker": measures(nil,
			sample{"prefork_worker_pid", pid, []string{"2"}}, sample{"prefork_worker_memory_bytes", 1, []string{"2"}},
		)})
		var got []bool
		for _, w := range get(t, s).Targets[0].Workers {
			got = append(got, w.ResidentBytes != nil)
		}
		if !slices.Equal(got, want) {
			t.Errorf("measured was %v: memory of 102 and 103: %v, want %v", pid, got, want)
		}
	}
}

// ofTargets is a collector of several.
func ofTargets(all ...collector.Collector) gives {
	return func(out *collector.Output) (err error) {
		for _, one := range all {
			err = errors.Join(err, one.Update(context.Background(), out))
		}
		return err
	}
}

// The blog is a target no more, or not yet: what was measured of it is nobody else's.
func TestEachTargetHasItsOwnValues(t *testing.T) {
	shop, red := map[string]string{"app": "shop"}, map[string]string{"app": "shop", "part": "red"}
	measured := func(n float64) gives {
		slot := []string{"0"}
		return measures(nil,
			sample{"prefork_worker_pid", 7, slot}, sample{"prefork_worker_threads", n, slot},
			sample{"prefork_listen_queue_length", n, []string{"unix:///a"}}, sample{"prefork_cgroup_oom_kills_total", n, nil},
		)
	}
	s := newStatus(Watched{}, map[string]collector.Collector{"it": ofTargets(
		collector.Labelled(map[string]string{"app": "blog"}, measures(nil, sample{"prefork_listen_queue_length", 9, []string{"unix:///b"}})),
		collector.Labelled(map[string]string{"app": "blog"}, measured(8)), measured(1), collector.Labelled(shop, measured(2)), collector.Labelled(red, measured(3)),
	)})
	worker := known{Workers: []watch.Worker{{Slot: "0", PID: 7}}}
	s.Targets = func() []Watched {
		return []Watched{{red, worker}, {nil, worker}, {shop, worker}, {map[string]string{"part": "red"}, worker}}
	}
	var got []map[string]float64
	for _, target := range get(t, s).Targets {
		values := map[string]float64{}
		if w := target.Workers[0]; w.Threads != nil {
			values["threads"] = *w.Threads
		}
		for _, q := range target.ListenQueues {
			values[q.Listener] = *q.Length
		}
		if target.Cgroup != nil {
			values["kills"] = *target.Cgroup.OOMKills
		}
		got = append(got, values)
	}
	of := func(n float64) map[string]float64 {
		return map[string]float64{"threads": n, "unix:///a": n, "kills": n}
	}
	if diff := cmp.Diff([]map[string]float64{of(3), of(1), of(2), {}}, got); diff != "" {
		t.Errorf("of four targets (-want +got):\n%s", diff)
	}
}

func TestFeaturesHaveTheLabelsOfTheirTarget(t *testing.T) {
	feature := func(v float64, name, reason string) gives {
		return measures(nil, sample{"prefork_feature_available", v, []string{name, reason}})
	}
	of := func(c collector.Collector, labels ...string) collector.Collector {
		all := map[string]string{}
		for i := 0; i < len(labels); i += 2 {
			all[labels[i]] = labels[i+1]
		}
		return collector.Labelled(all, c)
	}
	s := newStatus(Watched{Source: unknown{}}, map[string]collector.Collector{"it": ofTargets(
		feature(1, "b", ""), of(feature(1, "b", ""), "app", "shop"), of(feature(0, "b", "no"), "app", "blog", "part", "red"),
		of(feature(0, "b", "why"), "app", "blog"), of(feature(1, "a", ""), "app", "shop"),
	)})
	want := []Feature{
		{"a", map[string]string{"app": "shop"}, true, ""},
		{"b", nil, true, ""},
		{"b", map[string]string{"app": "blog"}, false, "why"},
		{"b", map[string]string{"app": "blog", "part": "red"}, false, "no"},
		{"b", map[string]string{"app": "shop"}, true, ""},
	}
	if diff := cmp.Diff(want, get(t, s).Features); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestFeaturesThatSayTheSame(t *testing.T) {
	one := Feature{"a", map[string]string{"app": "shop"}, false, "why"}
	for name, tc := range map[string]struct {
		other Feature
		want  bool
	}{
		"the same":       {Feature{"a", map[string]string{"app": "shop"}, false, "why"}, true},
		"another name":   {Feature{"b", one.Labels, false, "why"}, false},
		"other labels":   {Feature{"a", nil, false, "why"}, false},
		"available":      {Feature{"a", one.Labels, true, "why"}, false},
		"another reason": {Feature{"a", one.Labels, false, ""}, false},
	} {
		if got := one.Equal(tc.other); got != tc.want {
			t.Errorf("%s: %t, want %t", name, got, tc.want)
		}
	}
}

func TestMethodsOfTheStatus(t *testing.T) {
	for method, want := range map[string]int{"GET": 200, "HEAD": 200, "POST": 405, "PUT": 405, "DELETE": 405, "OPTIONS": 405} {
		w := ask(everything(), method)
		if w.Code != want || want == http.StatusMethodNotAllowed && w.Header().Get("Allow") != "GET, HEAD" {
			t.Errorf("%s: %d, Allow %q, want %d", method, w.Code, w.Header().Get("Allow"), want)
		}
		if method == "HEAD" && (w.Body.Len() > 0 || w.Header().Get("Content-Type") != "application/json") {
			t.Errorf("HEAD: %d bytes of %s, want none, of JSON", w.Body.Len(), w.Header().Get("Content-Type"))
		}
	}
}

func TestMoreRequestsThanMayBe(t *testing.T) {
	inside, leave := make(chan struct{}), make(chan struct{})
	o := newStatus(Watched{Source: unknown{}}, map[string]collector.Collector{"slow": gives(func(*collector.Output) error {
		inside <- struct{}{}
		<-leave
		return nil
	})}).StatusOptions
	o.MaxRequests = 1
	h := NewStatus(o)
	first := make(chan int)
	go func() { first <- ask(h, "GET").Code }()
	<-inside
	if w := ask(h, "GET"); w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" {
		t.Errorf("the second: %d, want 503 and when to try again", w.Code)
	}
	close(leave)
	if code := <-first; code != http.StatusOK {
		t.Errorf("the first: %d, want 200", code)
	}
	go func() { <-inside }()
	if w := ask(h, "GET"); w.Code != http.StatusOK {
		t.Errorf("the one after: %d, want 200", w.Code)
	}
}
