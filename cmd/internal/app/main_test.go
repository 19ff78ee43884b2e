package app

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long tests wait for what must happen.
const patience = 20 * time.Second

// testOptions serve on a free port of the loopback.
func testOptions(t *testing.T) Options {
	t.Helper()
	o := DefaultOptions()
	o.Listen = []string{"127.0.0.1:0"}
	o.Collectors = collectorNames()
	o.Directories = []Directory{{Path: t.TempDir()}}
	return o
}

// startApp runs a sidecar until the test ends, and returns once it listens.
func startApp(t *testing.T, o Options) *App {
	t.Helper()
	a, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	runApp(t, a)
	return a
}

// runApp does so with one that is built, and returns how to stop it before the
// test ends.
func runApp(t *testing.T, a *App) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	listening, ended := make(chan struct{}), make(chan error, 1)
	a.o.Started = func() { close(listening) }
	go func() { ended <- a.Run(ctx) }()
	stop = func() {
		if cancel == nil {
			return
		}
		cancel()
		cancel = nil
		if err := <-ended; err != nil {
			t.Errorf("Run = %v, want a clean end", err)
		}
	}
	t.Cleanup(stop)
	select {
	case <-listening:
	case err := <-ended:
		t.Fatalf("Run = %v before it listened", err)
	}
	return stop
}

// reply is what a server answered.
type reply struct {
	status int
	header http.Header
	body   string
}

// newClient keeps no connection, so that none outlives the test.
func newClient() *http.Client {
	return &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}
}

func ask(t *testing.T, c *http.Client, method, url string) reply {
	t.Helper()
	r, err := tryAsk(t.Context(), c, method, url)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func tryAsk(ctx context.Context, c *http.Client, method, url string) (reply, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, nil)
	if err != nil {
		return reply{}, err
	}
	resp, err := c.Do(req)
	if err != nil {
		return reply{}, err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	return reply{resp.StatusCode, resp.Header, string(body)}, err
}

func (a *App) url(path string) string { return "http://" + a.Addrs()[0].String() + path }

// eventually waits for a condition.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	deadline, tick := time.After(patience), time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("never: %s", what)
		}
	}
}

// writeCounter writes the metric file of a process that has counted one series.
func writeCounter(t *testing.T, dir, name string, value float64) {
	t.Helper()
	key := fmt.Sprintf(`[%q, %q, {}, "Counts."]`, name, name)
	entry := binary.LittleEndian.AppendUint32(nil, uint32(len(key)))
	entry = append(entry, key...)
	entry = append(entry, strings.Repeat(" ", 8-len(entry)%8)...)
	entry = binary.LittleEndian.AppendUint64(entry, math.Float64bits(value))
	entry = binary.LittleEndian.AppendUint64(entry, 0)
	file := binary.LittleEndian.AppendUint64(nil, uint64(8+len(entry)))
	writeFile(t, filepath.Join(dir, "counter_1.db"), string(append(file, entry...)))
}

func writeFile(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// checkError compares an error's text; an empty one wants no error.
func checkError(t *testing.T, got error, want string) {
	t.Helper()
	text := ""
	if got != nil {
		text = got.Error()
	}
	if text != want {
		t.Errorf("error %q, want %q", text, want)
	}
}
