package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-exporter/prefork_exporter/multiproc"
)

// asProgram has the test program be the program.
const asProgram = "EXAMPLE_TEST_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// service is a running master with its processes.
type service struct {
	t        *testing.T
	cmd      *exec.Cmd
	ended    chan error    // nil when it was received
	log      *bytes.Buffer // to be read when it has ended
	dir, url string
	answers  map[string]int // by process
}

// start starts a master that has two processes.
func start(t *testing.T, interval time.Duration) *service {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	address := freeAddress(t)
	s := &service{
		t: t, ended: make(chan error, 1), log: &bytes.Buffer{}, dir: t.TempDir(), url: "http://" + address, answers: map[string]int{},
	}
	s.cmd = exec.Command(program, "-listen", address, "-interval", interval.String())
	s.cmd.Env = append(os.Environ(), asProgram+"=1", "GOMAXPROCS=2", "PROMETHEUS_MULTIPROC_DIR="+s.dir)
	s.cmd.Stdout, s.cmd.Stderr = s.log, s.log
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { s.ended <- s.cmd.Wait() }() // for all: each process has the pipe of the log
	t.Cleanup(s.kill)
	s.await("an answer", func() bool { return s.ask() != "" })
	return s
}

// kill ends what is left: the processes end when their master has.
func (s *service) kill() {
	if s.ended == nil {
		return
	}
	_ = s.cmd.Process.Kill()
	_ = s.wait() // an error: it was killed
	if s.t.Failed() {
		s.t.Logf("the service said:\n%s", s.log)
	}
}

// stop asks the master to end, and waits until all of its processes have.
func (s *service) stop() {
	s.t.Helper()
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		s.t.Fatal(err)
	}
	if err := s.wait(); err != nil {
		s.t.Errorf("the service ended with %v and said:\n%s", err, s.log)
	}
}

// wait waits until the last process has closed the log.
func (s *service) wait() error {
	err := <-s.ended
	s.ended = nil
	return err
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// await waits for a condition. A service that hangs fails the test by its deadline.
func (s *service) await(what string, met func() bool) {
	s.t.Helper()
	deadline, cancel := context.WithTimeout(s.t.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !met() {
		select {
		case <-deadline.Done():
			s.t.Fatalf("no %s in a minute", what)
		case <-tick.C:
		}
	}
}

// ask sends a request over a connection of its own, counts the answer, and returns
// which process gave it: "" for none.
func (s *service) ask() string {
	s.t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second}
	answer, err := client.Get(s.url)
	if err != nil {
		return ""
	}
	defer func() { _ = answer.Body.Close() }()
	body, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK {
		s.t.Fatalf("answer %s %q: %v", answer.Status, body, err)
	}
	pid := strings.TrimSpace(string(body))
	s.answers[pid]++
	return pid
}

// askAll asks n times: all must be answered.
func (s *service) askAll(n int) {
	s.t.Helper()
	for range n {
		if s.ask() == "" {
			s.t.Fatal("no answer")
		}
	}
}

func (s *service) answered() (n int) {
	for _, each := range s.answers {
		n += each
	}
	return n
}

// counted returns what the files of all processes have together: the counter, and
// the histogram's count.
func (s *service) counted() string {
	s.t.Helper()
	m := multiproc.New(multiproc.Options{})
	defer m.Close()
	m.SetSources([]multiproc.Source{{Path: s.dir}})
	snapshot, err := m.Merge(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	values := map[string]float64{}
	for _, f := range snapshot.Families {
		for i, sample := range f.Samples {
			values[f.Name+sample.Part.Suffix()] = snapshot.Values[f.First+i]
		}
	}
	return fmt.Sprint(values["http_requests_total"], values["http_request_duration_seconds_count"])
}

// isCounted says whether the files have each answer, and nothing else.
func (s *service) isCounted() bool { return s.counted() == fmt.Sprint(s.answered(), s.answered()) }

func TestNothingIsLostThatWasWritten(t *testing.T) {
	s := start(t, 20*time.Millisecond)
	for len(s.answers) < 2 {
		s.askAll(1)
	}
	s.askAll(50)
	s.await("file with each answer", s.isCounted)

	killed := s.ask()
	s.await("file with the last answer", s.isCounted) // else the kill would lose it
	pid, err := strconv.Atoi(killed)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	s.await("end of the killed process", func() bool { return syscall.Kill(pid, 0) != nil })
	s.await("answer of the successor", func() bool { _ = s.ask(); return len(s.answers) == 3 })
	s.askAll(50)
	s.await("file with each answer of both, and of the successor", s.isCounted)
	if got := s.answers[killed]; got == 0 || len(s.answers) != 3 {
		t.Errorf("answers %v, want those of three processes", s.answers)
	}
}

func TestAServiceThatIsStoppedWritesTheRest(t *testing.T) {
	s := start(t, time.Hour)
	s.askAll(30)
	if got := s.counted(); got != "0 0" {
		t.Errorf("written %s before the first interval", got)
	}
	s.stop()
	if !s.isCounted() {
		t.Errorf("written %s, answered %d", s.counted(), s.answered())
	}
}

func TestProcessesEndWithTheirMaster(t *testing.T) {
	s := start(t, time.Hour)
	s.askAll(5)
	if err := s.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = s.wait() // an error: it was killed
	if !s.isCounted() {
		t.Errorf("written %s, answered %d", s.counted(), s.answered())
	}
}
