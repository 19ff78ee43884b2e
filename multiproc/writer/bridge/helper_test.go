package bridge_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/encoding/prototext"

	"github.com/prefork-exporter/prefork_exporter/multiproc"
	"github.com/prefork-exporter/prefork_exporter/multiproc/writer"
	"github.com/prefork-exporter/prefork_exporter/multiproc/writer/bridge"
)

// dirVariable has the test program count into that directory until it is killed.
const dirVariable = "BRIDGE_TEST_DIR"

func TestMain(m *testing.M) {
	dir := os.Getenv(dirVariable)
	if dir == "" {
		goleak.VerifyTestMain(m)
		return
	}
	if err := count(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// openWriter opens a writer that fails the test when something goes wrong.
func openWriter(t testing.TB, dir, id string) *writer.Writer {
	t.Helper()
	w, err := writer.Open(writer.Options{Dir: dir, ID: id, OnError: func(err error) { t.Errorf("unexpected: %v", err) }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.Close() })
	return w
}

// losses are what a bridge says that it does not carry.
type losses []string

func (l *losses) add(loss bridge.Loss) {
	if !strings.Contains(loss.Reason, "created") { // each counter has that
		*l = append(*l, loss.String())
	}
}

// start starts a bridge that writes when it is told to, and fails the test at a loss
// or an error that o does not take.
func start(t testing.TB, w *writer.Writer, g prometheus.Gatherer, o bridge.Options) *bridge.Bridge {
	t.Helper()
	if o.Interval == 0 {
		o.Interval = time.Hour
	}
	var lost losses
	if o.OnLoss == nil {
		o.OnLoss = lost.add
	}
	if o.OnError == nil {
		o.OnError = func(err error) { t.Errorf("unexpected: %v", err) }
	}
	b := bridge.New(w, g, o)
	t.Cleanup(func() {
		_ = b.Close() // the tests look at errors where they matter
		if len(lost) > 0 {
			t.Errorf("unexpected losses %q", lost)
		}
	})
	return b
}

func write(t testing.TB, b *bridge.Bridge) {
	t.Helper()
	if err := b.Write(); err != nil {
		t.Error(err)
	}
}

// script gathers one answer after another, each in the text form of protobuf, and
// the last one forever.
func script(t testing.TB, answers ...string) prometheus.Gatherer {
	t.Helper()
	var all [][]*dto.MetricFamily
	for _, answer := range answers {
		var families []*dto.MetricFamily
		for text := range strings.SplitSeq(strings.ReplaceAll(answer, "+Inf", "inf"), ";") {
			mf := &dto.MetricFamily{}
			if err := (prototext.UnmarshalOptions{AllowPartial: true}).Unmarshal([]byte(text), mf); err != nil {
				t.Fatalf("%s: %v", text, err)
			}
			families = append(families, mf)
		}
		all = append(all, families)
	}
	at := -1
	return prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) {
		at = min(at+1, len(all)-1)
		return all[at], nil
	})
}

// merged merges a directory. The values are by type and series, as "counter a_total{x=1}".
func merged(t testing.TB, dir string) map[string]float64 {
	t.Helper()
	m := multiproc.New(multiproc.Options{})
	defer m.Close()
	m.SetSources([]multiproc.Source{{Path: dir}})
	snapshot, err := m.Merge(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if faults := m.Stats().Errors; slices.Max(faults[:]) > 0 {
		t.Errorf("the merge found faults: %v", faults)
	}
	out := map[string]float64{}
	for _, f := range snapshot.Families {
		for i, s := range f.Samples {
			out[fmt.Sprintf("%s %s%s{%s}", f.Type, f.Name, s.Part.Suffix(), labels(s))] = snapshot.Values[f.First+i]
		}
	}
	return out
}

func labels(s multiproc.Sample) string {
	var out []string
	for _, l := range s.Labels {
		out = append(out, l.Name+"="+l.Value)
	}
	if s.Part == multiproc.PartBucket {
		out = append(out, "le="+s.Bound)
	}
	return strings.Join(out, ",")
}
