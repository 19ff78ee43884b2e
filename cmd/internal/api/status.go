package api

import (
	"cmp"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/prefork-exporter/prefork_exporter/collector"
	"github.com/prefork-exporter/prefork_exporter/collector/watch"
)

// StatusOptions say what the status is of. All but MaxRequests are needed.
type StatusOptions struct {
	Log         *slog.Logger
	Set         *collector.Set     // that measures
	Targets     func() []Watched   // at the moment; called by several goroutines at once
	Directories func() []Directory // of metric files; likewise
	Version     string             // of the exporter
	PID         int                // likewise
	Started     time.Time          // likewise
	Now         func() time.Time   // the clock
	MaxRequests int                // answered at the same time; 0: any number
}

// Watched is what a target is made of.
type Watched struct {
	Labels map[string]string // of all its series: no other target has the same
	Source watch.Source      // knows the master
}

// status serves the document.
type status struct {
	StatusOptions
	slots chan struct{} // nil: no limit
}

// NewStatus returns the handler of /api/v1/status: GET and HEAD are answered with a
// [Status], measured when it is asked for. What cannot be measured is not in it, and is
// no error. It does not ask who the client is: [Access] does.
func NewStatus(o StatusOptions) http.Handler {
	s := &status{StatusOptions: o}
	if o.MaxRequests > 0 {
		s.slots = make(chan struct{}, o.MaxRequests)
	}
	return s
}

// ServeHTTP implements [http.Handler].
func (s *status) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "method not allowed: want GET or HEAD", http.StatusMethodNotAllowed)
		return
	}
	if !s.enter() {
		w.Header().Set("Retry-After", "1")
		http.Error(w, fmt.Sprintf("%d requests for the status are being answered: try again later, or raise --web.max-requests", cap(s.slots)),
			http.StatusServiceUnavailable)
		return
	}
	defer s.leave()
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if r.Method == http.MethodHead {
		return
	}
	scrape, err := s.Set.Gather(r.Context(), s.Set.Names())
	if err != nil {
		s.Log.Error("families contradict each other: the status is without them", "err", err)
	}
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	if err := e.Encode(s.document(scrape)); err != nil {
		s.Log.Debug("client went away", "err", err)
	}
}

func (s *status) enter() bool {
	if s.slots == nil {
		return true
	}
	select {
	case s.slots <- struct{}{}:
		return true
	default:
		return false
	}
}

func (s *status) leave() {
	if s.slots != nil {
		<-s.slots
	}
}

// document puts together what is known now and what was measured.
func (s *status) document(scrape *collector.Scrape) Status {
	now := s.Now()
	d := Status{
		Version: ShapeVersion, Time: Time{now}, Targets: []Target{},
		Exporter:    Exporter{s.Version, s.PID, Time{s.Started}, seconds(now.Sub(s.Started))},
		MetricFiles: metricFiles(sorted(s.Directories()), scrape), Features: Features(scrape), Errors: failures(scrape),
	}
	for _, w := range s.Targets() {
		d.Targets = append(d.Targets, w.document(view{scrape, w.Labels}, now))
	}
	return d
}

func (w Watched) document(measured view, now time.Time) Target {
	t := Target{Labels: orNone(w.Labels)}
	if s, ok := w.Source.State(); ok {
		t.tell(s, now)
	}
	fillWorkers(t.Workers, measured)
	t.ListenQueues, t.Cgroup = listenQueues(measured), cgroup(measured)
	return t
}

func sorted(dirs []Directory) (all []Directory) {
	for _, d := range dirs {
		all = append(all, Directory{d.Path, orNone(d.Labels)})
	}
	slices.SortFunc(all, func(a, b Directory) int { return cmp.Compare(a.Path, b.Path) })
	return all
}

// orNone returns labels that JSON has as an object in any case.
func orNone(labels map[string]string) map[string]string {
	all := map[string]string{}
	maps.Copy(all, labels)
	return all
}
