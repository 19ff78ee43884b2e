package supervisor

import (
	"io"
	"os"
	"strings"
	"sync"
	"testing"
)

// sink takes what is written to it, while it is open.
type sink struct {
	mu    sync.Mutex
	text  strings.Builder
	comes chan struct{} // told when somebody begins to write
	moved chan struct{} // and when it was written
	gate  sync.Mutex    // held: nobody reads
}

func newSink() *sink { return &sink{comes: make(chan struct{}, 100), moved: make(chan struct{}, 1)} }

func (s *sink) Write(b []byte) (int, error) {
	select {
	case s.comes <- struct{}{}:
	default:
	}
	s.gate.Lock()
	defer s.gate.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.text.Write(b)
	select {
	case s.moved <- struct{}{}:
	default:
	}
	return len(b), nil
}

// await waits until so much was written, and returns it.
func (s *sink) await(length int) string {
	for {
		s.mu.Lock()
		text := s.text.String()
		s.mu.Unlock()
		if len(text) >= length {
			return text
		}
		<-s.moved
	}
}

// streams returns what a worker of slot 7 writes to.
func streams(t *testing.T, o *Output) (stdout, stderr *os.File) {
	t.Helper()
	stdout, stderr, err := o.Streams(7)
	if err != nil {
		t.Fatal(err)
	}
	return stdout, stderr
}

func TestWhatAWorkerWritesIsHandedOnByLine(t *testing.T) {
	long := strings.Repeat("x", maxLine)
	for name, tc := range map[string]struct {
		parts []string
		want  string
	}{
		"a line":                      {[]string{"one\n"}, "[7] one\n"},
		"lines":                       {[]string{"one\ntwo\n"}, "[7] one\n[7] two\n"},
		"a line in parts":             {[]string{"o", "n", "e\n"}, "[7] one\n"},
		"a line without an end":       {[]string{"one"}, "[7] one\n"},
		"an empty line":               {[]string{"\n"}, "[7] \n"},
		"nothing":                     {nil, ""},
		"a line longer than any line": {[]string{long + long}, "[7] " + long + "\n[7] " + long + "\n"},
		"what is no text":             {[]string{"\x00\xff\n"}, "[7] \x00\xff\n"},
	} {
		t.Run(name, func(t *testing.T) {
			out, errs := newSink(), newSink()
			o := NewOutput(out, errs)
			stdout, stderr := streams(t, o)
			for _, part := range tc.parts {
				if _, err := io.WriteString(stderr, part); err != nil {
					t.Fatal(err)
				}
			}
			_, _ = stdout.Close(), stderr.Close()
			o.Drain()
			if got := errs.text.String(); got != tc.want || out.text.Len() > 0 {
				t.Errorf("%q, want %q; and %q on stdout, want nothing", got, tc.want, out.text.String())
			}
		})
	}
}

// Two that stop reading and go on lose nothing.
func TestOutputGoesOnAfterAPause(t *testing.T) {
	out := newSink()
	o := NewOutput(out, out)
	stdout, stderr := streams(t, o)
	want := ""
	for range 100 {
		if err := o.Pause(); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(stdout, "half"); err != nil {
			t.Fatal(err)
		}
		o.Resume()
		if _, err := io.WriteString(stdout, " and half\n"); err != nil {
			t.Fatal(err)
		}
		want += "[7] half and half\n"
		if got := out.await(len(want)); got != want {
			t.Fatalf("%q, want %q", got, want)
		}
	}
	_, _ = stdout.Close(), stderr.Close()
	o.Drain()
}

// One that is born in the middle of a pause is handed over like the others.
func TestAStreamThatBeginsInAPauseIsParked(t *testing.T) {
	out := newSink()
	o := NewOutput(out, out)
	if err := o.Pause(); err != nil {
		t.Fatal(err)
	}
	stdout, stderr := streams(t, o)
	if _, err := io.WriteString(stdout, "one\n"); err != nil {
		t.Fatal(err)
	}
	if !o.parked() {
		t.Error("it is read from")
	}
	var keep keepsakes
	if n := len(o.bequests(&keep)); n != 2 || keep.err != nil {
		t.Errorf("%d streams are left, %v; want 2", n, keep.err)
	}
	keep.close()
	o.Resume()
	_, _ = stdout.Close(), stderr.Close()
	o.Drain()
	if got := out.text.String(); got != "[7] one\n" {
		t.Errorf("it wrote %q", got)
	}
}

func TestAPauseIsGivenUpWhenNobodyReads(t *testing.T) {
	out := newSink()
	o := NewOutput(out, out)
	stdout, stderr := streams(t, o)
	out.gate.Lock()
	if _, err := io.WriteString(stdout, "one\n"); err != nil {
		t.Fatal(err)
	}
	<-out.comes
	if err := o.Pause(); err == nil {
		t.Error("it is paused, in the middle of a write")
	}
	o.Resume()
	out.gate.Unlock()
	if _, err := io.WriteString(stdout, "two\n"); err != nil {
		t.Fatal(err)
	}
	_, _ = stdout.Close(), stderr.Close()
	o.Drain()
	if got := out.text.String(); got != "[7] one\n[7] two\n" {
		t.Errorf("it wrote %q", got)
	}
}
