package middleware

import (
	"bufio"
	"io"
	"net"
	"net/http"
)

// recorder notes what a handler answers. A handler sees it as one of its writers,
// which has no optional interface that the server's has not: handlers ask for them.
// Each request has its own, for a handler may keep it too long.
type recorder struct {
	http.ResponseWriter

	status   int // of the final header, zero before
	bytes    int64
	hijacked bool

	flusher  flusher
	hijacker hijacker
}

func newRecorder(w http.ResponseWriter) *recorder { return &recorder{ResponseWriter: w} }

// flusher is the writer for a server of HTTP/2.
type flusher struct{ *recorder }

// hijacker is the writer for a server of HTTP/1.
type hijacker struct{ *recorder }

// writer returns what the handler sees.
func (r *recorder) writer() http.ResponseWriter {
	if _, ok := r.ResponseWriter.(http.Flusher); !ok {
		return r
	}
	_, hijacks := r.ResponseWriter.(http.Hijacker)
	_, reads := r.ResponseWriter.(io.ReaderFrom)
	if !hijacks || !reads {
		r.flusher.recorder = r
		return &r.flusher
	}
	r.hijacker.recorder = r
	return &r.hijacker
}

// Unwrap is for http.ResponseController.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// WriteHeader implements http.ResponseWriter. Headers of informational statuses
// come before the final one, but that of a switch to another protocol.
func (r *recorder) WriteHeader(status int) {
	if r.status == 0 && (status >= http.StatusOK || status == http.StatusSwitchingProtocols) {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

// Write implements io.Writer.
func (r *recorder) Write(b []byte) (int, error) {
	n, err := r.ResponseWriter.Write(b)
	r.wrote(int64(n))
	return n, err
}

// WriteString implements io.StringWriter, without the copy that Write would need.
func (r *recorder) WriteString(s string) (int, error) {
	n, err := io.WriteString(r.ResponseWriter, s)
	r.wrote(int64(n))
	return n, err
}

func (r *recorder) wrote(n int64) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	r.bytes += n
}

// flush sends what is written.
func (r *recorder) flush() error {
	r.wrote(0)
	return http.NewResponseController(r.ResponseWriter).Flush()
}

// Flush implements http.Flusher.
func (f *flusher) Flush() { _ = f.flush() }

// FlushError is for http.ResponseController.
func (f *flusher) FlushError() error { return f.flush() }

// Flush implements http.Flusher.
func (h *hijacker) Flush() { _ = h.flush() }

// FlushError is for http.ResponseController.
func (h *hijacker) FlushError() error { return h.flush() }

// Hijack implements http.Hijacker.
func (h *hijacker) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := h.ResponseWriter.(http.Hijacker).Hijack()
	h.hijacked = h.hijacked || err == nil
	return conn, rw, err
}

// ReadFrom implements io.ReaderFrom: a file is sent without being copied.
func (h *hijacker) ReadFrom(src io.Reader) (int64, error) {
	n, err := h.ResponseWriter.(io.ReaderFrom).ReadFrom(src)
	h.wrote(n)
	return n, err
}
