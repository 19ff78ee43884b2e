package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/klauspost/compress/zstd"
)

// ours is the name of the exporter in tables.
const ours = "prefork_exporter"

// Content encodings that a scrape may ask for.
const (
	identity  = "identity"
	gzipped   = "gzip"
	zstandard = "zstd"
)

// exporter is a running prefork_exporter and one connection to it. It is not safe for concurrent use.
type exporter struct {
	cmd    *exec.Cmd
	addr   string
	query  string   // of all scrapes
	conn   net.Conn // nil before the first scrape
	answer *bufio.Reader
	body   bytes.Buffer // of the last scrape
	stderr bytes.Buffer // read only once the process is gone
	gone   chan struct{}
	waited error // of the process; read only once gone is closed
}

// startExporter starts binary on dir and returns once it accepts connections; it does not scrape. wrap is put
// before the command, for a start inside a control group. The exporter's state goes to scratch.
func startExporter(ctx context.Context, binary, dir, scratch string, wrap ...string) (*exporter, error) {
	addr, err := freeAddress()
	if err != nil {
		return nil, err
	}
	argv := slices.Concat(wrap, []string{
		binary, "--multiproc.dir", dir, "--web.listen-address", addr, "--multiproc.liveness=off",
	})
	return launch(ctx, argv, addr, scratch)
}

// launch starts a program that serves on addr, and returns once it accepts connections there.
func launch(ctx context.Context, argv []string, addr, scratch string) (*exporter, error) {
	e := newExporter(addr)
	e.cmd = exec.CommandContext(ctx, argv[0], argv[1:]...)
	e.cmd.Env = exporterEnvironment(os.Environ(), scratch)
	e.cmd.Stderr = &e.stderr
	if err := e.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", filepath.Base(argv[0]), err)
	}
	go func() {
		e.waited = e.cmd.Wait()
		close(e.gone)
	}()
	if err := e.listening(ctx); err != nil {
		return nil, errors.Join(err, e.close())
	}
	return e, nil
}

// newExporter is the half that scrapes, without a process.
func newExporter(addr string) *exporter { return &exporter{addr: addr, gone: make(chan struct{})} }

// name is that of its program.
func (e *exporter) name() string { return filepath.Base(e.cmd.Path) }

// exporterEnvironment is env without what would configure the exporter, and with its state kept out of the
// home.
func exporterEnvironment(env []string, scratch string) []string {
	out := []string{"STATE_DIRECTORY=" + scratch}
	for _, e := range env {
		name, _, _ := strings.Cut(e, "=")
		prefix, _, _ := strings.Cut(strings.ToUpper(name), "_")
		if name != "STATE_DIRECTORY" && prefix != "PREFORK" && prefix != "PROMETHEUS" {
			out = append(out, e)
		}
	}
	return out
}

// freeAddress returns a loopback address that nobody listens on, unless somebody takes it in between.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("find a free port: %w", err)
	}
	return l.Addr().String(), l.Close()
}

func (e *exporter) listening(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(200 * time.Microsecond)
	defer tick.Stop()
	for {
		if c, err := net.Dial("tcp", e.addr); err == nil {
			return c.Close()
		}
		select {
		case <-tick.C:
		case <-e.gone:
			return fmt.Errorf("start %s: it ended before it listened on %s", e.name(), e.addr)
		case <-ctx.Done():
			return fmt.Errorf("start %s: wait for %s: %w", e.name(), e.addr, ctx.Err())
		}
	}
}

// scrape asks for the metrics as Prometheus does, reads the whole answer and returns how long that took. It does
// so in one goroutine: an [http.Client] needs several, and on D1 it would take as long as the exporter. An answer
// in another encoding than enc is an error: it would be compared with the wrong figure.
func (e *exporter) scrape(ctx context.Context, enc string) (time.Duration, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+e.addr+"/metrics"+e.query, nil)
	if err != nil {
		return 0, fmt.Errorf("scrape: %w", err)
	}
	req.Header.Set("Accept", "text/plain;version=0.0.4")
	req.Header.Set("Accept-Encoding", enc)
	e.body.Reset()
	start := time.Now()
	if err := e.connect(); err != nil {
		return 0, err
	}
	if err := errors.Join(e.conn.SetDeadline(start.Add(patience)), req.Write(e.conn)); err != nil {
		return 0, fmt.Errorf("scrape: %w", err)
	}
	resp, err := http.ReadResponse(e.answer, req)
	if err != nil {
		return 0, fmt.Errorf("scrape: read the answer: %w", err)
	}
	_, err = e.body.ReadFrom(resp.Body)
	took := time.Since(start)
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		return 0, fmt.Errorf("scrape: read the answer: %w", err)
	}
	return took, e.checkAnswer(resp, enc)
}

// connect opens the connection that all scrapes use.
func (e *exporter) connect() (err error) {
	if e.conn != nil {
		return nil
	}
	if e.conn, err = net.Dial("tcp", e.addr); err != nil {
		return fmt.Errorf("scrape: %w", err)
	}
	e.answer = bufio.NewReaderSize(e.conn, 64<<10)
	return nil
}

// hangUp has the next scrape open another connection.
func (e *exporter) hangUp() {
	if e.conn != nil {
		_ = e.conn.Close()
		e.conn = nil
	}
}

func (e *exporter) checkAnswer(resp *http.Response, enc string) error {
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("scrape: status %s: %.200s", resp.Status, e.body.Bytes())
	}
	got := resp.Header.Get("Content-Encoding")
	if got == "" {
		got = identity
	}
	if got != enc {
		return fmt.Errorf("scrape: asked for %s, got %s", enc, got)
	}
	if kind := resp.Header.Get("Content-Type"); !strings.HasPrefix(kind, "text/plain") {
		return fmt.Errorf("scrape: asked for text, got %s", kind)
	}
	return nil
}

// all scrapes once more and returns what came.
func (e *exporter) all(ctx context.Context, enc string) (map[string]float64, error) {
	if _, err := e.scrape(ctx, enc); err != nil {
		return nil, err
	}
	text, err := decode(&e.body, enc)
	if err != nil {
		return nil, err
	}
	return parseSamples(bytes.NewReader(text))
}

// samples is all without the exporter's families about itself.
func (e *exporter) samples(ctx context.Context, enc string) (map[string]float64, error) {
	all, err := e.all(ctx, enc)
	for name := range all {
		if strings.HasPrefix(name, "prefork_") {
			delete(all, name)
		}
	}
	return all, err
}

func decode(r io.Reader, enc string) ([]byte, error) {
	switch enc {
	case gzipped:
		z, err := gzip.NewReader(r)
		if err != nil {
			return nil, fmt.Errorf("decode gzip: %w", err)
		}
		return io.ReadAll(z)
	case zstandard:
		z, err := zstd.NewReader(r)
		if err != nil {
			return nil, fmt.Errorf("decode zstd: %w", err)
		}
		defer z.Close()
		return io.ReadAll(z)
	default:
		return io.ReadAll(r)
	}
}

// cpu returns the CPU time that the exporter has used. A collection of garbage may still run when an answer is
// complete, so it waits, within bounds, until the process rests.
func (e *exporter) cpu() (time.Duration, error) {
	const restless, tries = 20 * time.Microsecond, 25
	before, err := cpuTime(e.cmd.Process.Pid)
	for range tries {
		if err != nil {
			return 0, err
		}
		time.Sleep(time.Millisecond)
		var now time.Duration
		now, err = cpuTime(e.cmd.Process.Pid)
		if now-before < restless {
			return now, err
		}
		before = now
	}
	return before, err
}

func (e *exporter) memory() (memory, error) { return memoryOf(e.cmd.Process.Pid) }

// close ends the exporter and waits for it. It reports an exporter that did not end by itself when asked.
func (e *exporter) close() error {
	e.hangUp()
	if e.cmd == nil {
		return nil
	}
	_ = e.cmd.Process.Signal(syscall.SIGTERM)
	late := time.AfterFunc(10*time.Second, func() { _ = e.cmd.Process.Kill() })
	defer late.Stop()
	<-e.gone
	if e.waited != nil {
		return fmt.Errorf("%s ended with %w: %s", e.name(), e.waited, lastLine(e.stderr.Bytes()))
	}
	return nil
}
