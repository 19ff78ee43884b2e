package collector

import (
	"bytes"
	"context"
	"errors"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// each is a collector of several.
type each []Collector

func (e each) Describe(ch chan<- *prometheus.Desc) {
	for _, c := range e {
		c.Describe(ch)
	}
}

func (e each) Update(ctx context.Context, out *Output) error {
	for _, c := range e {
		if err := c.Update(ctx, out); err != nil {
			return err
		}
	}
	return nil
}

// adding is a collector that adds what it is.
type adding []prometheus.Metric

func (adding) Describe(chan<- *prometheus.Desc) {}

func (a adding) Update(_ context.Context, out *Output) error {
	out.Add(a...)
	return nil
}

func TestLabelsOfATarget(t *testing.T) {
	up, workers := Describe("prefork_up"), Describe("prefork_workers")
	of := func(n float64) adding {
		return adding{up.Value(n), workers.Value(n+1, "running"), workers.Value(n+2, "starting")}
	}
	shop, blog := map[string]string{"app": `s"hop`, "zone": "a"}, map[string]string{"app": "blog"}
	two := each{Labelled(shop, of(1)), Labelled(blog, of(4)), Labelled(nil, of(7))}
	const want = `prefork_up 7
prefork_up{app="blog"} 4
prefork_up{app="s\"hop",zone="a"} 1
prefork_workers{state="running"} 8
prefork_workers{state="running",app="blog"} 5
prefork_workers{state="running",app="s\"hop",zone="a"} 2
prefork_workers{state="starting"} 9
prefork_workers{state="starting",app="blog"} 6
prefork_workers{state="starting",app="s\"hop",zone="a"} 3
`
	s, err := NewSet(quiet(), map[string]Collector{"it": two}, time.Minute).Gather(t.Context(), []string{"it"})
	if err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	if err := s.writeText(&text, false, query{}); err != nil {
		t.Fatal(err)
	}
	own := regexp.MustCompile("(?m)^prefork_scrape_.*\n|^#.*prefork_scrape_.*\n").ReplaceAllString(text.String(), "")
	if heads := strings.Count(own, "# TYPE"); heads != 2 {
		t.Errorf("%d heads, want one for each family", heads)
	}
	if diff := cmp.Diff(want, regexp.MustCompile("(?m)^#.*\n").ReplaceAllString(own, "")); diff != "" {
		t.Errorf("as text (-want +got):\n%s", diff)
	}
	families := slices.DeleteFunc(s.Families(), func(f *dto.MetricFamily) bool { return strings.HasPrefix(f.GetName(), "prefork_scrape_") })
	var samples int
	for _, f := range families {
		samples += len(f.Metric)
	}
	if len(families) != 2 || samples != 9 {
		t.Errorf("%d families with %d samples, want 2 with 9", len(families), samples)
	}
	last := families[1].Metric[2].GetLabel() // state="running", of the shop
	var pairs []string
	for _, l := range last {
		pairs = append(pairs, l.GetName()+"="+l.GetValue())
	}
	if got := strings.Join(pairs, " "); got != `state=running app=s"hop zone=a` {
		t.Errorf("labels of %s: %s", families[1].GetName(), got)
	}
}

func TestWhatCannotBeLabelled(t *testing.T) {
	up, workers := Describe("prefork_up"), Describe("prefork_workers")
	foreign := prometheus.MustNewConstMetric(prometheus.NewDesc("a", "b", nil, nil), prometheus.GaugeValue, 1)
	broken := errors.New("broken")
	for name, tc := range map[string]struct {
		c    Collector
		want string // in the error
		left int    // values that there are all the same
	}{
		"values":                   {adding{up.Value(1), workers.Value(2, "running")}, "", 2},
		"a metric of no catalogue": {adding{up.Value(1), foreign}, `label Desc{fqName: "a"`, 1},
		"a label that is its own":  {adding{Describe("prefork_scrape_collector_success").Value(1, "x"), up.Value(1)}, "it has a label collector itself", 1},
		"a collector that fails":   {failing{broken}, "broken", 1},
		"families as they are":     {withFamilies{}, "want these only", 0},
	} {
		t.Run(name, func(t *testing.T) {
			out := &Output{}
			err := Labelled(map[string]string{"app": "x", "collector": "y"}, tc.c).Update(t.Context(), out)
			if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
				t.Errorf("Update = %v, want %q", err, tc.want)
			}
			if len(out.metrics) != tc.left {
				t.Errorf("%d values, want %d", len(out.metrics), tc.left)
			}
		})
	}
}

// failing adds a value, and fails.
type failing struct{ err error }

func (failing) Describe(chan<- *prometheus.Desc) {}

func (f failing) Update(_ context.Context, out *Output) error {
	out.Add(Describe("prefork_up").Value(1))
	return f.err
}

type withFamilies struct{}

func (withFamilies) Describe(chan<- *prometheus.Desc) {}

func (withFamilies) Update(_ context.Context, out *Output) error {
	out.AddFamilies(&dto.MetricFamily{})
	return nil
}

func TestADescriptionWithLabels(t *testing.T) {
	c := NewRestart(unknown{})
	ch := make(chan *prometheus.Desc, 100)
	Labelled(map[string]string{"app": "x"}, c).Describe(ch)
	close(ch)
	n := 0
	for d := range ch {
		n++
		if !strings.Contains(d.String(), `constLabels: {app="x"}`) {
			t.Errorf("described as %s", d)
		}
	}
	if want := len(c.descriptors()) + 1; n != want { // with that of features
		t.Errorf("%d descriptions, want %d", n, want)
	}
}

func TestLabelsThatNoTargetCanHave(t *testing.T) {
	names := LabelNames()
	for name, want := range map[string]bool{"reason": true, "listener": true, "worker_id": true, "signal": true, "version": false, "app": false} {
		if got := slices.Contains(names, name); got != want {
			t.Errorf("%s: %t, want %t (of %v)", name, got, want, names)
		}
	}
}
