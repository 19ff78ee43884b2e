package registry

import (
	"slices"
	"sync"
)

// Types of errors, as gunicorn's exporter documents them; any other name can be one
// as well.
const (
	RequestError = "RequestError"
	TimeoutError = "TimeoutError"
	MemoryError  = "MemoryError"
	CPUError     = "CPUError"
)

// RecordError counts an error that was handled, in WorkerErrorHandling. The
// endpoint is a route pattern, not a path. Methods that HTTP does not know become
// OTHER; so do error types beyond the first 64 others, and endpoints beyond the
// first 256.
func (m *Metrics) RecordError(worker, method, endpoint, errorType string) {
	m.WorkerErrorHandling.WithLabelValues(m.caps.labels(worker, method, endpoint, errorType)...).Inc()
}

// RecordFailure counts a request that failed, in WorkerFailedRequests, with labels
// as those of [Metrics.RecordError].
func (m *Metrics) RecordFailure(worker, method, endpoint, errorType string) {
	m.WorkerFailedRequests.WithLabelValues(m.caps.labels(worker, method, endpoint, errorType)...).Inc()
}

// other stands for what is beyond a cap.
const other = "OTHER"

// caps bound the labels that a client could fill with anything. The zero value is
// ready, and safe for concurrent use.
type caps struct {
	mu         sync.Mutex
	errorTypes map[string]bool
	endpoints  map[string]bool
}

const (
	maxErrorTypes = 64
	maxEndpoints  = 256
)

func (c *caps) labels(worker, method, endpoint, errorType string) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !slices.Contains(documented(), errorType) {
		errorType = capped(&c.errorTypes, errorType, maxErrorTypes)
	}
	return []string{worker, knownMethod(method), capped(&c.endpoints, endpoint, maxEndpoints), errorType}
}

func documented() []string { return []string{RequestError, TimeoutError, MemoryError, CPUError} }

// capped returns value if it is one of the first that seen has room for.
func capped(seen *map[string]bool, value string, room int) string {
	if (*seen)[value] {
		return value
	}
	if len(*seen) >= room {
		return other
	}
	if *seen == nil {
		*seen = map[string]bool{}
	}
	(*seen)[value] = true
	return value
}

// knownMethod returns a method of RFC 9110 or PATCH as it is, and any other as OTHER.
func knownMethod(method string) string {
	switch method {
	case "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE":
		return method
	}
	return other
}
