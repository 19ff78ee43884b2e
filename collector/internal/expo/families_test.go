package expo

import (
	"bytes"
	"errors"
	"io"
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/prefork-exporter/prefork_exporter/multiproc"
)

// buckets returns the samples of one histogram's label set: a bucket for each
// bound, and what parts say.
func buckets(bounds []string, parts ...multiproc.Part) []multiproc.Sample {
	var samples []multiproc.Sample
	for _, b := range bounds {
		samples = append(samples, multiproc.Sample{Part: multiproc.PartBucket, Bound: b})
	}
	for _, p := range parts {
		samples = append(samples, multiproc.Sample{Part: p})
	}
	return samples
}

func TestWhatFamiliesHold(t *testing.T) {
	const sum, count, bare = multiproc.PartSum, multiproc.PartCount, multiproc.PartBareBucket
	nan, inf := math.NaN(), math.Inf(1)
	one := []multiproc.Sample{{}}
	both := []string{"1", "+Inf"}
	for name, tc := range map[string]struct {
		typ     multiproc.Type
		samples []multiproc.Sample
		values  []float64
		want    string // the metric, empty: left out
		dropped int
	}{
		"a counter":                      {multiproc.Counter, one, []float64{3}, `counter:{value:3}`, 0},
		"a counter that is no number":    {multiproc.Counter, one, []float64{nan}, `counter:{value:nan}`, 0},
		"a gauge":                        {multiproc.Gauge, one, []float64{-inf}, `gauge:{value:-inf}`, 0},
		"samples of no type":             {multiproc.Untyped, one, []float64{.5}, `untyped:{value:0.5}`, 0},
		"a gauge that nobody has set":    {multiproc.Gauge, one, []float64{unset()}, ``, 0},
		"a summary":                      {multiproc.Summary, buckets(nil, sum, count), []float64{.5, 2}, `summary:{sample_count:2 sample_sum:0.5}`, 0},
		"a summary without a count":      {multiproc.Summary, buckets(nil, sum), []float64{.5}, ``, 1},
		"a summary without a sum":        {multiproc.Summary, buckets(nil, count), []float64{2}, `summary:{sample_count:2}`, 0},
		"a summary of half a call":       {multiproc.Summary, buckets(nil, sum, count), []float64{.5, 1.5}, ``, 2},
		"a summary of less than nothing": {multiproc.Summary, buckets(nil, sum, count), []float64{.5, -1}, ``, 2},
		"a summary of too many calls":    {multiproc.Summary, buckets(nil, sum, count), []float64{.5, 1 << 63}, ``, 2},
		"a histogram": {
			multiproc.Histogram, buckets(both, sum, count), []float64{1, 3, 2.5, 3},
			`histogram:{sample_count:3 sample_sum:2.5 bucket:{cumulative_count:1 upper_bound:1} bucket:{cumulative_count:3 upper_bound:inf}}`, 0,
		},
		"a histogram without a sum": {
			multiproc.Histogram, buckets([]string{"+Inf"}, count), []float64{3, 3},
			`histogram:{sample_count:3 bucket:{cumulative_count:3 upper_bound:inf}}`, 0,
		},
		"a histogram of halves": {
			multiproc.Histogram, buckets([]string{"+Inf"}, sum, count), []float64{1.5, 2, 1.5},
			`histogram:{sample_count_float:1.5 sample_sum:2 bucket:{cumulative_count_float:1.5 upper_bound:inf}}`, 0,
		},
		"a histogram of more than an integer has": {
			multiproc.Histogram, buckets([]string{"+Inf"}, sum, count), []float64{1 << 63, 2, 1 << 63},
			`histogram:{sample_count_float:9.223372036854775808e18 sample_sum:2 bucket:{cumulative_count_float:9.223372036854775808e18 upper_bound:inf}}`, 0,
		},
		"a histogram with a bucket without a bound": {
			multiproc.Histogram, buckets([]string{"+Inf"}, bare, sum, count), []float64{3, 9, 2, 3},
			`histogram:{sample_count:3 sample_sum:2 bucket:{cumulative_count:3 upper_bound:inf}}`, 1,
		},
		"a histogram without a last bucket":   {multiproc.Histogram, buckets([]string{"1"}, sum, count), []float64{1, 2, 3}, ``, 3},
		"a histogram without a count":         {multiproc.Histogram, buckets([]string{"+Inf"}, sum), []float64{1, 2}, ``, 2},
		"a histogram without buckets":         {multiproc.Histogram, buckets(nil, sum, count), []float64{1, 2}, ``, 2},
		"a histogram whose bucket is below 0": {multiproc.Histogram, buckets(both, sum, count), []float64{-1, 3, 2, 3}, ``, 4},
		"a histogram whose bucket is no number": {
			multiproc.Histogram, buckets(both, sum, count), []float64{nan, 3, 2, 3}, ``, 4,
		},
		"a histogram whose count is below 0": {multiproc.Histogram, buckets(both, sum, count), []float64{1, 3, 2, -3}, ``, 4},
		"a histogram whose bound is no number": {
			multiproc.Histogram, buckets([]string{"x", "+Inf"}, sum, count), []float64{1, 3, 2, 3}, ``, 4,
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := snapshotOf(tc.values, multiproc.Family{Name: "f", Help: "m", Type: tc.typ, Samples: tc.samples})
			families, dropped := Families(s, Options{})
			if dropped != tc.dropped {
				t.Errorf("dropped %d samples, want %d", dropped, tc.dropped)
			}
			if tc.want == "" {
				if len(families) != 0 {
					t.Errorf("families %v, want none", families)
				}
				return
			}
			var want dto.Metric
			if err := prototext.Unmarshal([]byte(tc.want), &want); err != nil {
				t.Fatal(err)
			}
			if len(families) != 1 || len(families[0].GetMetric()) != 1 {
				t.Fatalf("families %v, want one with one metric", families)
			}
			if diff := cmp.Diff(&want, families[0].GetMetric()[0], protocmp.Transform(), cmpopts.EquateNaNs()); diff != "" {
				t.Errorf("metric differs (-want +got):\n%s", diff)
			}
		})
	}
}

// unset returns the value of a sample that nobody has given.
func unset() float64 {
	v := math.Float64frombits(0x7ff8_dead_0000_0001)
	if multiproc.Present(v) {
		panic("another value marks what nobody has given")
	}
	return v
}

func TestFamiliesKeepWhatIsAskedFor(t *testing.T) {
	s := oneGauge("a", 2)
	for name, tc := range map[string]struct {
		keep func(*multiproc.Family) bool
		want int
	}{
		"all":  {nil, 1},
		"one":  {func(f *multiproc.Family) bool { return f.Name == "a" }, 1},
		"none": {func(f *multiproc.Family) bool { return f.Name != "a" }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			if got, _ := Families(s, Options{Keep: tc.keep}); len(got) != tc.want {
				t.Errorf("%d families, want %d", len(got), tc.want)
			}
		})
	}
}

func TestProtobufIsReadBackAsItWas(t *testing.T) {
	for _, path := range []string{
		"client_python-HEAD/basic/db.tar.gz", "client_python-HEAD/weird/db.tar.gz", "client_python-HEAD/utf8names/db.tar.gz",
		"ruby-prometheus-client-mmap-0.16.2/weird/db.tar.gz", "client_ruby-4.2.5/basic/db.tar.gz",
	} {
		t.Run(path, func(t *testing.T) {
			families, _ := Families(merge(t, multiproc.Source{Path: unpack(t, path)}), Options{Escaping: model.NoEscaping})
			f := expfmt.FmtProtoDelim.WithEscapingScheme(model.NoEscaping)
			d := expfmt.NewDecoder(bytes.NewReader(encode(t, families, f)), f)
			for i, want := range families {
				var got dto.MetricFamily
				if err := d.Decode(&got); err != nil {
					t.Fatalf("family %d: %v", i, err)
				}
				if !proto.Equal(&got, want) {
					t.Errorf("family %d differs (-want +got):\n%s", i, cmp.Diff(want, &got, protocmp.Transform()))
				}
			}
			if err := d.Decode(&dto.MetricFamily{}); !errors.Is(err, io.EOF) {
				t.Errorf("after %d families: %v, want the end", len(families), err)
			}
		})
	}
}
