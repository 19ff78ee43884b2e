package supervisor

import (
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"
)

// sidecar is a sidecar that is played by the test: each launch hands over its socket.
func sidecar(t *testing.T, backoff Backoff) (s *Sidecar, sockets chan *os.File, processes chan *fake, stop func()) {
	t.Helper()
	sockets, processes = make(chan *os.File, 10), make(chan *fake, 10)
	s = &Sidecar{
		Backoff: backoff, StopTimeout: 50 * time.Millisecond, Logger: discard(),
		Launch: func(socket *os.File) (Process, error) {
			fd, err := syscall.Dup(int(socket.Fd()))
			if err != nil {
				return nil, err
			}
			f := newFake(1, Birth{})
			sockets <- os.NewFile(uintptr(fd), "socket")
			processes <- f
			return f, nil
		},
	}
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	group.Go(func() { s.Run(ctx) })
	return s, sockets, processes, func() { cancel(); group.Wait() }
}

// hearAll hears all that comes over a socket.
func hearAll(socket *os.File, take func(Report), wrong func(error)) error {
	reports, err := OpenReports(socket)
	if err != nil {
		return err
	}
	return errors.Join(reports.Hear(take, wrong), reports.Close())
}

func TestEverySidecarHearsTheNewestReport(t *testing.T) {
	s, sockets, processes, stop := sidecar(t, Backoff{})
	s.Take(Report{Version: 1, Target: 1})
	for n := 2; n < 5; n++ { // each hears what was before it, and what comes
		heard, over := make(chan int, 10), make(chan error, 1)
		socket := <-sockets
		go func() {
			over <- hearAll(socket, func(r Report) { heard <- r.Target }, func(err error) { t.Error(err) })
		}()
		if got := <-heard; got != n-1 {
			t.Errorf("a new one hears of %d, want %d", got, n-1)
		}
		s.Take(Report{Version: 1, Target: n})
		if got := <-heard; got != n {
			t.Errorf("it hears of %d, want %d", got, n)
		}
		(<-processes).exit(Status{Code: 1})
		if err := <-over; !errors.Is(err, io.EOF) {
			t.Errorf("the end is %v, want EOF", err)
		}
	}
	_ = (<-sockets).Close()
	stop()
}

// One that does not read costs nothing, and hears the newest when it does.
func TestASidecarThatHangsKeepsNobodyWaiting(t *testing.T) {
	s, sockets, processes, stop := sidecar(t, Backoff{})
	socket := <-sockets
	for connected := false; !connected; time.Sleep(time.Millisecond) { // what comes before is not sent
		s.mu.Lock()
		connected = s.conn != nil
		s.mu.Unlock()
	}
	big := Report{Version: 1, Workers: make([]WorkerReport, 300)}
	for n := range 1000 {
		big.Target = n
		s.Take(big)
	}
	heard := make(chan int, 2000)
	over := make(chan error, 1)
	go func() {
		over <- hearAll(socket, func(r Report) { heard <- r.Target }, func(err error) { t.Error(err) })
	}()
	if first := <-heard; first != 0 {
		t.Fatalf("the first that found room is %d, want 0", first)
	}
	for last := 0; last < 5000; {
		big.Target = 5000
		s.Take(big)
		last = <-heard
	}
	f := <-processes
	f.mu.Lock()
	f.obeys = stubborn
	f.mu.Unlock()
	stop() // by a kill
	if got := f.got(); !slices.Equal(got, []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL}) {
		t.Errorf("it got %v", got)
	}
	for range len(heard) {
		<-heard
	}
	if err := <-over; !errors.Is(err, io.EOF) {
		t.Errorf("the end is %v, want EOF", err)
	}
}

func TestWhatIsNoReport(t *testing.T) {
	ours, theirs, err := socketPair()
	if err != nil {
		t.Fatal(err)
	}
	var wrong, right int
	over := make(chan error, 1)
	go func() {
		over <- hearAll(theirs, func(Report) { right++ }, func(error) { wrong++ })
	}()
	for _, packet := range []string{"{", "[]", `{"version":2}`, `{"version":1}`, "\x00\xff", `{"version":1,"unknown":[]}`} {
		if _, err := ours.Write([]byte(packet)); err != nil {
			t.Fatal(err)
		}
	}
	if err := ours.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-over; !errors.Is(err, io.EOF) || wrong != 4 || right != 2 {
		t.Errorf("%d wrong, %d right, %v; want 4, 2 and EOF", wrong, right, err)
	}
}
