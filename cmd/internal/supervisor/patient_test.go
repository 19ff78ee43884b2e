package supervisor

import (
	"bytes"
	"strings"
	"sync"
	"testing"
)

// slow is a writer whose reader takes its time.
type slow struct {
	mu   sync.Mutex
	goOn chan bool
	b    bytes.Buffer
}

func (s *slow) Write(b []byte) (int, error) {
	<-s.goOn
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(b)
}

func TestNobodyWaitsForWhoReadsALog(t *testing.T) {
	s := &slow{goOn: make(chan bool)}
	p := NewPatientWriter(s)
	for range 3000 { // more than there is room for
		if n, err := p.Write([]byte("line\n")); n != 5 || err != nil {
			t.Fatalf("wrote %d, %v", n, err)
		}
	}
	s.goOn <- true
	s.goOn <- true
	s.goOn <- true // the second is written, and the third begun
	if _, err := p.Write([]byte("after\n")); err != nil {
		t.Fatal(err)
	}
	close(s.goOn)
	p.Close()
	if _, err := p.Write([]byte("too late\n")); err != nil {
		t.Error(err)
	}
	p.Close()
	if got := read(s); !strings.Contains(got, "log messages were left out: nobody read\n") || strings.Contains(got, "too late") {
		t.Errorf("written: %.100q … %q", got, got[max(0, len(got)-100):])
	}
}

func read(s *slow) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}
