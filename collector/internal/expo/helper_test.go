package expo

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/textparse"
	"go.uber.org/goleak"

	"github.com/prefork-exporter/prefork_exporter/multiproc"
	"github.com/prefork-exporter/prefork_exporter/multiproc/fixture"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// merge merges one directory, without a limit on labels: a fixture has one of
// two and a half megabytes.
func merge(tb testing.TB, s multiproc.Source) *multiproc.Snapshot {
	tb.Helper()
	limits := multiproc.DefaultLimits()
	limits.LabelBytes = 4 << 20
	m := multiproc.New(multiproc.Options{Limits: limits})
	defer m.Close()
	m.SetSources([]multiproc.Source{s})
	snapshot, err := m.Merge(tb.Context())
	if err != nil {
		tb.Fatal(err)
	}
	return snapshot
}

// unpack returns the directory of metric files in the archive at path.
func unpack(tb testing.TB, path string) string {
	tb.Helper()
	dir := fixture.Unpack(tb, path)
	if sub := filepath.Join(dir, "db"); exists(sub) {
		return sub
	}
	return dir
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// render renders a snapshot whole, end mark included.
func render(tb testing.TB, s *multiproc.Snapshot, o Options) (text []byte, dropped int) {
	tb.Helper()
	var t Text
	var b bytes.Buffer
	dropped, err := t.Write(&b, s, o)
	if err != nil {
		tb.Fatal(err)
	}
	if o.OpenMetrics {
		b.WriteString("# EOF\n")
	}
	return b.Bytes(), dropped
}

// encode has client_golang render families.
func encode(tb testing.TB, families []*dto.MetricFamily, f expfmt.Format) []byte {
	tb.Helper()
	var b bytes.Buffer
	e := expfmt.NewEncoder(&b, f)
	for _, family := range families {
		if err := e.Encode(family); err != nil {
			tb.Fatal(err)
		}
	}
	if err := e.(expfmt.Closer).Close(); err != nil {
		tb.Fatal(err)
	}
	return b.Bytes()
}

// contentType returns the content type of a rendering.
func contentType(o Options) expfmt.Format {
	if o.OpenMetrics {
		return expfmt.FmtOpenMetrics_1_0_0.WithEscapingScheme(o.Escaping)
	}
	return expfmt.FmtText.WithEscapingScheme(o.Escaping)
}

// scraped is what Prometheus reads in an exposition.
type scraped struct {
	Samples map[string]float64
	Types   map[string]string // by family
	Help    map[string]string
}

// scrape reads an exposition with Prometheus's own parser. Whatever would make
// it refuse the scrape, or a part of it, is an error.
func scrape(exposition []byte, f expfmt.Format) (scraped, error) {
	out := scraped{map[string]float64{}, map[string]string{}, map[string]string{}}
	p, err := textparse.New(exposition, string(f), labels.NewSymbolTable(), textparse.ParserOptions{})
	if err != nil {
		return out, err
	}
	for {
		entry, err := p.Next()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err == nil {
			err = out.add(p, entry)
		}
		if err != nil {
			return out, err
		}
	}
}

// add adds what p stands at.
func (s *scraped) add(p textparse.Parser, entry textparse.Entry) error {
	switch entry {
	case textparse.EntryHelp:
		name, help := p.Help()
		return put(s.Help, string(name), string(help))
	case textparse.EntryType:
		name, typ := p.Type()
		return put(s.Types, string(name), string(typ))
	case textparse.EntrySeries:
		var l labels.Labels
		p.Labels(&l)
		if name, twice := l.HasDuplicateLabelNames(); twice || !l.IsValid(model.UTF8Validation) {
			return fmt.Errorf("labels %s cannot be: %s", l, name)
		}
		_, _, v := p.Series()
		return put(s.Samples, l.String(), v)
	}
	return fmt.Errorf("entry of kind %d", entry)
}

func put[V any](m map[string]V, key string, v V) error {
	if _, twice := m[key]; twice {
		return fmt.Errorf("%s twice", key)
	}
	m[key] = v
	return nil
}

// mustScrape is scrape of what must be readable.
func mustScrape(tb testing.TB, exposition []byte, f expfmt.Format) scraped {
	tb.Helper()
	s, err := scrape(exposition, f)
	if err != nil {
		tb.Fatalf("Prometheus cannot read the exposition: %v\n%.2000q", err, exposition)
	}
	return s
}
