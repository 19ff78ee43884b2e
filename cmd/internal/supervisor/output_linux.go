package supervisor

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

// Output hands on what workers write, each line behind the number of its worker's slot.
// A worker whose output nobody reads waits, as it would without us; nobody else does.
// It is safe for concurrent use.
type Output struct {
	stdout, stderr io.Writer
	moved          chan struct{} // told when a relay was parked, or ended

	mu     sync.Mutex
	paused bool
	relays map[*relay]bool // that have not come to their end, and whether they are parked
}

// NewOutput returns an output that hands on to stdout and stderr.
func NewOutput(stdout, stderr io.Writer) *Output {
	return &Output{stdout: stdout, stderr: stderr, moved: make(chan struct{}, 1), relays: map[*relay]bool{}}
}

// relay hands on one stream of one worker.
type relay struct {
	from    *os.File
	to      io.Writer
	slot    int
	stream  int    // descriptor 1 or 2
	pending []byte // that was read, and not written
}

// maxLine is where a line is broken that has no end.
const maxLine = 64 << 10

// Streams returns what a worker of a slot writes to. The caller closes both.
func (o *Output) Streams(slot int) (stdout, stderr *os.File, err error) {
	outR, outW, err := os.Pipe()
	if err != nil {
		return nil, nil, fmt.Errorf("make a pipe for a worker's output: %w", err)
	}
	errR, errW, err := os.Pipe()
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("make a pipe for a worker's output: %w", err), outR.Close(), outW.Close())
	}
	o.relay(outR, slot, 1, nil)
	o.relay(errR, slot, 2, nil)
	return outW, errW, nil
}

// relay begins to hand on a stream, and pending before it. The stream is closed at its end.
func (o *Output) relay(from *os.File, slot, stream int, pending []byte) {
	r := &relay{from: from, to: o.stdout, slot: slot, stream: stream, pending: pending}
	if stream == 2 {
		r.to = o.stderr
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.relays[r] = o.paused
	if !o.paused {
		go o.run(r)
	}
}

// bequests returns what another program needs to go on with what is parked.
func (o *Output) bequests(keep *keepsakes) (all []relayBequest) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for r := range o.relays {
		all = append(all, relayBequest{keep.file(r.from), r.slot, r.stream, r.pending})
	}
	return all
}

// run hands on until the end, or until it is parked.
func (o *Output) run(r *relay) {
	for {
		err := r.copy()
		o.mu.Lock()
		switch interrupted := errors.Is(err, os.ErrDeadlineExceeded); {
		case interrupted && !o.paused:
			o.mu.Unlock()
			continue // it is over by now
		case interrupted:
			o.relays[r] = true
		default:
			_ = r.from.Close()
			delete(o.relays, r)
		}
		o.mu.Unlock()
		select {
		case o.moved <- struct{}{}:
		default: // it is told already
		}
		return
	}
}

// copy hands on until the end, or an interruption.
func (r *relay) copy() error {
	chunk := make([]byte, 32<<10)
	for {
		n, err := r.from.Read(chunk)
		r.pending = append(r.pending, chunk[:n]...)
		r.write(err == nil || errors.Is(err, os.ErrDeadlineExceeded))
		if err != nil {
			return err
		}
	}
}

// write writes the lines that are pending, and what is no line yet only if nothing more
// comes. It writes them at once, so that lines of others do not come between.
func (r *relay) write(more bool) {
	end := bytes.LastIndexByte(r.pending, '\n') + 1
	if !more || end == 0 && len(r.pending) >= maxLine {
		end = len(r.pending)
	}
	if end == 0 {
		return
	}
	var b bytes.Buffer
	for line := range bytes.Lines(r.pending[:end]) {
		fmt.Fprintf(&b, "[%d] %s\n", r.slot, bytes.TrimSuffix(line, []byte("\n")))
	}
	_, _ = r.to.Write(b.Bytes()) // who should be told that it cannot be?
	r.pending = append(r.pending[:0], r.pending[end:]...)
}

// Pause interrupts reading: workers go on to write into their pipes. It gives up where
// nobody reads behind us. Resume has to follow.
func (o *Output) Pause() error {
	o.mu.Lock()
	o.paused = true
	o.interrupt(time.Unix(1, 0))
	o.mu.Unlock()
	if !o.await(o.parked) {
		return errors.New("nobody reads what workers write")
	}
	return nil
}

// Drain waits until all has been handed on, as far as it soon is.
func (o *Output) Drain() {
	o.await(func() bool {
		o.mu.Lock()
		defer o.mu.Unlock()
		return len(o.relays) == 0
	})
}

// await waits until ok, and gives up soon.
func (o *Output) await(ok func() bool) bool {
	timer := time.NewTimer(soon)
	defer timer.Stop()
	for !ok() {
		select {
		case <-o.moved:
		case <-timer.C:
			return false
		}
	}
	return true
}

func (o *Output) interrupt(deadline time.Time) {
	for r := range o.relays {
		_ = r.from.SetReadDeadline(deadline)
	}
}

func (o *Output) parked() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, parked := range o.relays {
		if !parked {
			return false
		}
	}
	return true
}

// Resume goes on.
func (o *Output) Resume() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.paused = false
	o.interrupt(time.Time{})
	for r, parked := range o.relays {
		if parked {
			o.relays[r] = false
			go o.run(r)
		}
	}
}
