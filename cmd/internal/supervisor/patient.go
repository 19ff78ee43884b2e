package supervisor

import (
	"fmt"
	"io"
	"sync"
	"time"
)

// PatientWriter writes what it is given, later: nobody waits for who reads a log. What
// there is no room for is left out, and counted. It is safe for concurrent use.
type PatientWriter struct {
	lines chan []byte   // nil: what is before it is to be told
	told  chan struct{} // for each nil
	done  chan struct{}

	mu     sync.Mutex
	closed bool
	lost   int
}

// NewPatientWriter returns a writer to w. It ends with Close.
func NewPatientWriter(w io.Writer) *PatientWriter {
	const room = 1000
	p := &PatientWriter{lines: make(chan []byte, room), told: make(chan struct{}, 1), done: make(chan struct{})}
	go func() {
		defer close(p.done)
		for line := range p.lines {
			if line == nil {
				p.told <- struct{}{}
				continue
			}
			_, _ = w.Write(line) // who should be told that it cannot be?
		}
	}()
	return p
}

// Write implements io.Writer.
func (p *PatientWriter) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return len(b), nil
	}
	if p.lost > 0 && p.put(fmt.Appendf(nil, "%d log messages were left out: nobody read\n", p.lost)) {
		p.lost = 0
	}
	if !p.put(append([]byte{}, b...)) {
		p.lost++
	}
	return len(b), nil
}

func (p *PatientWriter) put(line []byte) bool {
	select {
	case p.lines <- line:
		return true
	default:
		return false
	}
}

// Flush waits until what there is has been written, as far as somebody reads it soon. Its
// callers take turns.
func (p *PatientWriter) Flush() {
	p.mu.Lock()
	put := !p.closed && p.put(nil)
	p.mu.Unlock()
	if !put {
		return
	}
	select {
	case <-p.told:
	case <-time.After(soon):
		go func() { <-p.told }() // whenever that is
	}
}

// soon is how long anybody waits for who reads a log.
const soon = time.Second

// Close writes what is left, as far as somebody reads it soon.
func (p *PatientWriter) Close() {
	p.mu.Lock()
	if !p.closed {
		p.closed = true
		close(p.lines)
	}
	p.mu.Unlock()
	select {
	case <-p.done:
	case <-time.After(soon):
	}
}
