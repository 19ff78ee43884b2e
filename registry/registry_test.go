package registry

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
)

func TestDefinitionsAreSortedAndUnique(t *testing.T) {
	all := Definitions()
	if len(all) == 0 {
		t.Fatal("no definitions")
	}
	for i := 1; i < len(all); i++ {
		if all[i-1].Name >= all[i].Name {
			t.Errorf("%s stands behind %s", all[i].Name, all[i-1].Name)
		}
	}
}

func TestDefinitionsCanBeChangedByTheirCaller(t *testing.T) {
	first := Definitions()[0].Name
	all := Definitions()
	slices.Reverse(all)
	all[len(all)-1].Name = "changed"
	if got := Definitions()[0].Name; got != first {
		t.Errorf("the first definition is %s, was %s", got, first)
	}
}

func TestEveryDefinitionIsSound(t *testing.T) {
	for _, d := range Definitions() {
		t.Run(d.Name, func(t *testing.T) {
			for _, fault := range faults(d) {
				t.Error(fault)
			}
		})
	}
}

func TestFaultsOfDefinitionsAreSeen(t *testing.T) {
	good := Definition{
		Name: "prefork_x_seconds_total", Help: "Seconds.", Type: Counter, Unit: "seconds", Labels: []string{"a"}, Source: Observed, Stability: Stable,
	}
	for name, tc := range map[string]struct {
		change func(d *Definition)
		want   string // empty: none
	}{
		"none":                        {func(*Definition) {}, ""},
		"another prefix":              {func(d *Definition) { d.Name = "x_seconds_total" }, "prefix"},
		"no help":                     {func(d *Definition) { d.Help = "" }, "help"},
		"help on two lines":           {func(d *Definition) { d.Help = "a\nb." }, "help"},
		"help without a full stop":    {func(d *Definition) { d.Help = "Seconds" }, "help"},
		"help in lower case":          {func(d *Definition) { d.Help = "seconds." }, "help"},
		"a type that is none":         {func(d *Definition) { d.Type = "info" }, "type"},
		"no type":                     {func(d *Definition) { d.Type = "" }, "type"},
		"a source that is none":       {func(d *Definition) { d.Source = "" }, "source"},
		"a stability that is none":    {func(d *Definition) { d.Stability = "" }, "stability"},
		"a unit that the name lacks":  {func(d *Definition) { d.Unit = "bytes" }, "unit"},
		"a name with a unit untold":   {func(d *Definition) { d.Unit = "" }, "unit"},
		"a label that is none":        {func(d *Definition) { d.Labels = []string{"a-b"} }, "label"},
		"a label in upper case":       {func(d *Definition) { d.Labels = []string{"A"} }, "label"},
		"a label twice":               {func(d *Definition) { d.Labels = []string{"a", "a"} }, "label"},
		"a label of Prometheus's own": {func(d *Definition) { d.Labels = []string{"__a"} }, "label"},
		"a label that is the job":     {func(d *Definition) { d.Labels = []string{"instance"} }, "label"},
		"a bound for a label":         {func(d *Definition) { d.Labels = []string{"le"} }, "label"},
		"a pid for a label":           {func(d *Definition) { d.Labels = []string{"pid"} }, "label"},
		"a counter without _total":    {func(d *Definition) { d.Name = "prefork_x_seconds" }, "_total"},
		"a gauge with _total":         {func(d *Definition) { d.Type = Gauge }, "_total"},
		"milliseconds":                {func(d *Definition) { d.Name, d.Unit = "prefork_x_milliseconds_total", "milliseconds" }, "base unit"},
		"buckets of a counter":        {func(d *Definition) { d.Buckets = []float64{1} }, "buckets"},
		"a histogram without buckets": {func(d *Definition) { d.Name, d.Type = "prefork_x_seconds", Histogram }, "buckets"},
		"buckets that fall":           {func(d *Definition) { d.Name, d.Type, d.Buckets = "prefork_x_seconds", Histogram, []float64{2, 1} }, "buckets"},
		"a mode of what we observe":   {func(d *Definition) { d.Name, d.Type, d.Mode = "prefork_x_seconds", Gauge, "max" }, "mode"},
		"a gauge of files, no mode":   {func(d *Definition) { d.Name, d.Type, d.Source = "prefork_x_seconds", Gauge, File }, "mode"},
	} {
		t.Run(name, func(t *testing.T) {
			d := good
			tc.change(&d)
			got := faults(d)
			if tc.want == "" && len(got) > 0 || tc.want != "" && !slices.ContainsFunc(got, func(fault string) bool { return strings.Contains(fault, tc.want) }) {
				t.Errorf("faults %q, want one about %q", got, tc.want)
			}
		})
	}
}

// faults returns what is wrong with a definition.
func faults(d Definition) []string {
	var all []string
	fail := func(format string, args ...any) { all = append(all, fmt.Sprintf(format, args...)) }
	if !regexp.MustCompile(`^` + Prefix + `[a-z][a-z0-9_]*[a-z0-9]$`).MatchString(d.Name) {
		fail("the name lacks the prefix, or has other signs than small letters, digits and underscores")
	}
	if !regexp.MustCompile(`^[A-Z][^\n]*\.$`).MatchString(d.Help) {
		fail("help %q is no sentence", d.Help)
	}
	if !slices.Contains([]Source{File, Observed, Parent}, d.Source) {
		fail("source %q", d.Source)
	}
	if !slices.Contains([]Stability{Stable, Experimental, Planned}, d.Stability) {
		fail("stability %q", d.Stability)
	}
	if (d.Type == Counter) != strings.HasSuffix(d.Name, "_total") {
		fail("counters and nothing else end in _total")
	}
	unit := ""
	for _, known := range []string{"seconds", "bytes", "ratio"} {
		if strings.HasSuffix(strings.TrimSuffix(d.Name, "_total"), "_"+known) {
			unit = known
		}
	}
	if d.Unit != unit {
		fail("unit %q, the name says %q", d.Unit, unit)
	}
	if (d.Mode != "") != (d.Type == Gauge && d.MayBeInFiles()) {
		fail("mode %q of a %s of source %s: gauges that may be in files and nothing else have one", d.Mode, d.Type, d.Source)
	}
	all = append(all, labelFaults(d)...)
	if (d.Type == Histogram) != (len(d.Buckets) > 0) || !slices.IsSorted(d.Buckets) {
		fail("buckets %v of a %s", d.Buckets, d.Type)
	}
	return append(all, lint(d)...)
}

func labelFaults(d Definition) []string {
	var all []string
	for i, l := range d.Labels {
		switch {
		case !regexp.MustCompile(`^[a-z][a-z0-9_]*$`).MatchString(l):
			all = append(all, fmt.Sprintf("label %q has other signs than small letters, digits and underscores", l))
		case slices.Contains(d.Labels[:i], l):
			all = append(all, fmt.Sprintf("label %q twice", l))
		case slices.Contains([]string{"job", "instance", "le", "quantile", "pid"}, l):
			all = append(all, fmt.Sprintf("label %q has a meaning of its own", l))
		}
	}
	return all
}

// lint is what promlint says of a family like that.
func lint(d Definition) []string {
	m, typ := &dto.Metric{}, dto.MetricType_GAUGE
	switch d.Type {
	case Counter:
		typ, m.Counter = dto.MetricType_COUNTER, &dto.Counter{Value: new(1.)}
	case Gauge:
		m.Gauge = &dto.Gauge{Value: new(1.)}
	case Histogram:
		typ, m.Histogram = dto.MetricType_HISTOGRAM, &dto.Histogram{SampleCount: new(uint64(1)), SampleSum: new(1.)}
	default:
		return []string{fmt.Sprintf("type %q", d.Type)}
	}
	for _, l := range d.Labels {
		m.Label = append(m.Label, &dto.LabelPair{Name: &l, Value: new("x")})
	}
	problems, err := promlint.NewWithMetricFamilies([]*dto.MetricFamily{{
		Name: &d.Name, Help: &d.Help, Type: &typ, Metric: []*dto.Metric{m},
	}}).Lint()
	if err != nil {
		return []string{err.Error()}
	}
	var all []string
	for _, p := range problems {
		if !slices.Contains(oddNames(), d.Name) {
			all = append(all, p.Text)
		}
	}
	return all
}

// oddNames are the names that promlint frowns on, and others have made.
func oddNames() []string {
	return []string{
		"prefork_worker_cpu_percent", // the seed's
		"prefork_usage_event_value_sum",
	}
}

func TestEveryDefinitionMakesADescriptor(t *testing.T) {
	for _, d := range Definitions() {
		values := make([]string, len(d.Labels))
		desc := prometheus.NewDesc(d.Name, d.Help, d.Labels, nil)
		if _, err := prometheus.NewConstMetric(desc, prometheus.GaugeValue, 1, values...); err != nil {
			t.Errorf("%s: %v", d.Name, err)
		}
	}
}

func TestFind(t *testing.T) {
	for _, want := range Definitions() {
		if got, ok := Find(want.Name); !ok || got.Name != want.Name || got.Help != want.Help {
			t.Errorf("Find(%q) = %v, %v; want its definition", want.Name, got, ok)
		}
	}
	for _, name := range []string{"", "prefork_", "prefork_u", "prefork_upp", "PREFORK_UP", "up", "zzz"} {
		if got, ok := Find(name); ok || got.Name != "" {
			t.Errorf("Find(%q) = %v, %v; want none", name, got, ok)
		}
	}
}

func TestNoSampleNameIsOfTwoFamilies(t *testing.T) {
	owner := map[string]string{}
	for _, d := range Definitions() {
		suffixes := []string{""}
		if d.Type == Histogram {
			suffixes = []string{"", "_bucket", "_sum", "_count"}
		}
		if d.Type == Counter {
			suffixes = []string{"", "_created"}
		}
		for _, suffix := range suffixes {
			if other, taken := owner[d.Name+suffix]; taken {
				t.Errorf("%s has the sample name %s%s, and so has %s", d.Name, d.Name, suffix, other)
			}
			owner[d.Name+suffix] = d.Name
		}
		if stem, ok := strings.CutSuffix(d.Name, "_total"); ok {
			if other, taken := owner[stem]; taken {
				t.Errorf("%s is %s in OpenMetrics, and so is %s", d.Name, stem, other)
			}
			owner[stem] = d.Name
		}
	}
}
