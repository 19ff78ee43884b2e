package collector

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/klauspost/compress/gzhttp"
	"github.com/klauspost/compress/gzip"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"

	"github.com/prefork-exporter/prefork_exporter/collector/internal/expo"
	"github.com/prefork-exporter/prefork_exporter/multiproc"
)

// HandlerOptions are how /metrics is served.
type HandlerOptions struct {
	MaxRequests        int           // answered at the same time; 0: any number
	TimeoutOffset      time.Duration // by how much a scrape ends before Prometheus gives it up
	DisableCompression bool
	Observed           []string // families that files may not have: [Refused]
}

// scrapeTimeoutHeader is where Prometheus tells how many seconds it waits.
const scrapeTimeoutHeader = "X-Prometheus-Scrape-Timeout-Seconds"

// handler serves the scrapes of a set.
type handler struct {
	log    *slog.Logger
	set    *Set
	offset time.Duration
	slots  chan struct{} // nil: no limit
	text   expo.Text
	refuse func(name string) bool // names that are our own, which escaping must not make either

	buffers sync.Pool // of *bufio.Writer
}

// bufferSize is how much of an answer is written at once: a system call costs
// more than a family of ours.
const bufferSize = 64 << 10

// NewHandler returns the handler of /metrics: text, OpenMetrics or protobuf as
// the client prefers, compressed with gzip or zstd. The query selects: collect[]
// and exclude[] name collectors, name[] families or samples.
func NewHandler(log *slog.Logger, set *Set, o HandlerOptions) (http.Handler, error) {
	h := &handler{log: log, set: set, offset: o.TimeoutOffset, refuse: Refused(o.Observed...)}
	if o.MaxRequests > 0 {
		h.slots = make(chan struct{}, o.MaxRequests)
	}
	if o.DisableCompression {
		return h, nil
	}
	return Compressed(h)
}

// Compressed is h, whose answers are compressed with gzip or zstd if the client takes that.
func Compressed(h http.Handler) (http.Handler, error) {
	wrap, err := gzhttp.NewWrapper(gzhttp.CompressionLevel(gzip.BestSpeed), gzhttp.PreferZstd(true), gzhttp.MinSize(512),
		gzhttp.ContentTypeFilter(gzhttp.CompressAllContentTypeFilter))
	if err != nil {
		return nil, fmt.Errorf("set up compression: %w", err)
	}
	return wrap(h), nil
}

// ServeHTTP implements [http.Handler].
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "method not allowed: want GET or HEAD", http.StatusMethodNotAllowed)
		return
	}
	if !h.enter() {
		w.Header().Set("Retry-After", "1")
		http.Error(w, fmt.Sprintf("%d scrapes are being answered: try again later, or raise --web.max-requests", cap(h.slots)),
			http.StatusServiceUnavailable)
		return
	}
	defer h.leave()
	query, err := h.parse(r.URL.Query())
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	ctx, cancel := h.deadline(r)
	defer cancel()
	scrape, err := h.set.Gather(ctx, query.collectors)
	if err != nil {
		h.log.Error("families contradict each other: they are left out", "err", err)
	}
	h.write(w, r, scrape, query)
}

func (h *handler) enter() bool {
	if h.slots == nil {
		return true
	}
	select {
	case h.slots <- struct{}{}:
		return true
	default:
		return false
	}
}

func (h *handler) leave() {
	if h.slots != nil {
		<-h.slots
	}
}

// deadline gives the scrape the time that Prometheus waits, less the offset. A
// header that makes no sense is ignored.
func (h *handler) deadline(r *http.Request) (context.Context, context.CancelFunc) {
	seconds, err := strconv.ParseFloat(r.Header.Get(scrapeTimeoutHeader), 64)
	if err != nil || !(seconds >= time.Nanosecond.Seconds()) || seconds > 24*time.Hour.Seconds() {
		return context.WithCancel(r.Context())
	}
	timeout := time.Duration(seconds * float64(time.Second))
	if timeout > h.offset {
		timeout -= h.offset
	}
	return context.WithTimeout(r.Context(), timeout)
}

// query is what a scrape asks for.
type query struct {
	collectors []string
	names      []string // of families or samples; nil: all
}

// parse reads the query. A collector that is unknown or switched off is an error.
func (h *handler) parse(v url.Values) (query, error) {
	q := query{collectors: h.set.Names(), names: v["name[]"]}
	collect, exclude := v["collect[]"], v["exclude[]"]
	if len(collect) > 0 && len(exclude) > 0 {
		return q, errors.New("collect[] and exclude[] in one query: want one of them")
	}
	for _, name := range slices.Concat(collect, exclude) {
		if !slices.Contains(q.collectors, name) {
			return q, fmt.Errorf("unknown collector %q: want some of %s", name, strings.Join(q.collectors, ", "))
		}
	}
	if len(collect) > 0 {
		q.collectors = slices.Compact(slices.Sorted(slices.Values(collect)))
	}
	q.collectors = slices.DeleteFunc(q.collectors, func(name string) bool { return slices.Contains(exclude, name) })
	return q, nil
}

// write renders the scrape in the format that the client likes best and that
// can hold it.
func (h *handler) write(w http.ResponseWriter, r *http.Request, s *Scrape, q query) {
	accepted := []expfmt.Format{
		expfmt.FmtText, expfmt.FmtProtoDelim,
	}
	if s.Merged == nil || expo.OpenMetrics(s.Merged.Layout) {
		accepted = append(accepted, expfmt.FmtOpenMetrics_1_0_0, expfmt.FmtOpenMetrics_0_0_1)
	}
	format := expfmt.NegotiateAccept(r.Header, accepted...)
	w.Header().Set("Content-Type", string(format))
	w.Header().Add("Vary", "Accept")
	if r.Method == http.MethodHead {
		return
	}
	buffer, _ := h.buffers.Get().(*bufio.Writer)
	if buffer == nil {
		buffer = bufio.NewWriterSize(nil, bufferSize)
	}
	defer h.buffers.Put(buffer)
	buffer.Reset(w)
	err := h.render(buffer, format, s, q)
	// When all of it is there, the client need not look for its end. When a part has been sent, so have the headers.
	w.Header().Set("Content-Length", strconv.Itoa(buffer.Buffered()))
	if err := errors.Join(err, buffer.Flush()); err != nil {
		h.log.Debug("client went away", "err", err)
	}
}

func (h *handler) render(w io.Writer, f expfmt.Format, s *Scrape, q query) error {
	dropped, as, err := h.merged(w, f, s.Merged, q)
	if err != nil {
		return err
	}
	for _, c := range h.set.collectors {
		if m, ok := c.(*Multiproc); ok && dropped > 0 {
			m.drop(as, dropped)
		}
	}
	families := s.rest
	switch f.FormatType() {
	case expfmt.TypeTextPlain:
		err = s.writeText(w, false, q)
	case expfmt.TypeOpenMetrics:
		err = s.writeText(w, true, q)
	default:
		families = s.Families()
	}
	if err != nil {
		return err
	}
	e := expfmt.NewEncoder(w, f)
	for _, family := range families {
		if !q.wants(family.GetName(), family.GetType()) {
			continue
		}
		if err := e.Encode(family); err != nil {
			return err
		}
	}
	if c, ok := e.(expfmt.Closer); ok {
		return c.Close() // OpenMetrics' end mark
	}
	return nil
}

// writeText writes the values of the catalogue. client_golang would need an
// object for each of them, in each scrape.
func (s *Scrape) writeText(w io.Writer, openMetrics bool, q query) error {
	var b []byte
	for i, v := range s.own {
		if !q.wants(v.definition.Name, v.typ()) {
			continue
		}
		if first := i == 0 || !v.isOf(s.own[i-1]); first && openMetrics {
			b = append(b, v.heads.openMetrics...)
		} else if first {
			b = append(b, v.heads.text...)
		}
		b = v.appendText(b)
	}
	_, err := w.Write(b)
	return err
}

// merged renders the merged families. It returns how many samples it left out.
func (h *handler) merged(w io.Writer, f expfmt.Format, s *multiproc.Snapshot, q query) (int, format, error) {
	if s == nil {
		return 0, formatText, nil
	}
	o := expo.Options{Escaping: f.ToEscapingScheme(), Keep: q.keep(), Refuse: h.refuse}
	switch f.FormatType() {
	case expfmt.TypeTextPlain:
		n, err := h.text.Write(w, s, o)
		return n, formatText, err
	case expfmt.TypeOpenMetrics:
		o.OpenMetrics = true
		n, err := h.text.Write(w, s, o)
		return n, formatOpenMetrics, err
	}
	families, n := expo.Families(s, o)
	e := expfmt.NewEncoder(w, f)
	for _, family := range families {
		if err := e.Encode(family); err != nil {
			return n, formatProtobuf, err
		}
	}
	return n, formatProtobuf, nil
}

// keep returns which merged families the query wants, or nil for all.
func (q query) keep() func(*multiproc.Family) bool {
	if q.names == nil {
		return nil
	}
	return func(f *multiproc.Family) bool {
		switch f.Type {
		case multiproc.Counter:
			return q.named(f.Name, "", "_total")
		case multiproc.Histogram:
			return q.named(f.Name, "", "_bucket", "_sum", "_count")
		case multiproc.Summary:
			return q.named(f.Name, "", "_sum", "_count")
		}
		return q.named(f.Name, "")
	}
}

// wants says whether the query wants a family of ours.
func (q query) wants(name string, typ dto.MetricType) bool {
	if q.names == nil {
		return true
	}
	switch typ {
	case dto.MetricType_COUNTER:
		return q.named(name, "", "_total")
	case dto.MetricType_HISTOGRAM, dto.MetricType_SUMMARY:
		return q.named(name, "", "_bucket", "_sum", "_count")
	}
	return q.named(name, "")
}

// named says whether one of the names is that of the family with one of the
// suffixes, or without it.
func (q query) named(family string, suffixes ...string) bool {
	for _, suffix := range suffixes {
		if slices.Contains(q.names, family+suffix) || suffix == "_total" && slices.Contains(q.names, strings.TrimSuffix(family, suffix)) {
			return true
		}
	}
	return false
}

// WriteText writes a snapshot in text format 0.0.4, or with openMetrics as
// OpenMetrics 1.0.0.
func WriteText(w io.Writer, s *multiproc.Snapshot, openMetrics bool) error {
	var text expo.Text
	_, err := text.Write(w, s, expo.Options{
		OpenMetrics: openMetrics, Escaping: expfmt.FmtText.ToEscapingScheme(), Refuse: Refused(),
	})
	if err == nil && openMetrics {
		_, err = io.WriteString(w, "# EOF\n")
	}
	return err
}

// OpenMetrics says whether every family of the snapshot survives OpenMetrics.
func OpenMetrics(s *multiproc.Snapshot) bool { return expo.OpenMetrics(s.Layout) }

// WriteJSON writes a snapshot as a JSON list of families.
func WriteJSON(w io.Writer, s *multiproc.Snapshot) error { return expo.WriteJSON(w, s) }
