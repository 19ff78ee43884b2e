package expo

import (
	"bytes"
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/common/model"

	"github.com/prefork-exporter/prefork_exporter/multiproc"
)

func TestAppendFloat(t *testing.T) {
	for name, tc := range map[string]struct {
		v    float64
		want string
	}{
		"zero":                             {0, "0"},
		"zero from below":                  {math.Copysign(0, -1), "0"},
		"a whole number":                   {42, "42"},
		"a whole number below zero":        {-42, "-42"},
		"a fraction":                       {0.1, "0.1"},
		"a fraction below zero":            {-2.5, "-2.5"},
		"the largest that is spelled out":  {999999999999999, "999999999999999"},
		"the first that is not":            {1e15, "1e+15"},
		"the lowest that is spelled out":   {-999999999999999, "-999999999999999"},
		"the first below that is not":      {-1e15, "-1e+15"},
		"the last exact whole number":      {1 << 53, "9.007199254740992e+15"},
		"more than an int64 has":           {1e19, "1e+19"},
		"less than an int64 has":           {-1e19, "-1e+19"},
		"the largest of all":               {math.MaxFloat64, "1.7976931348623157e+308"},
		"the smallest of all":              {math.SmallestNonzeroFloat64, "5e-324"},
		"what takes all of its 17 digits":  {math.Nextafter(0.3, 1), "0.30000000000000004"},
		"infinity":                         {math.Inf(1), "+Inf"},
		"infinity below zero":              {math.Inf(-1), "-Inf"},
		"what is no number":                {math.NaN(), "NaN"},
		"what is no number, another way":   {math.Float64frombits(0xfff8_0000_0000_1234), "NaN"},
		"a time stamp, to the microsecond": {1792841237.123456, "1.792841237123456e+09"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := string(AppendFloat([]byte("x "), tc.v)); got != "x "+tc.want {
				t.Errorf("AppendFloat = %q, want %q", got, "x "+tc.want)
			}
		})
	}
}

func TestAppendFloatLosesNoBit(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		v := math.Float64frombits(r.Uint64())
		if r.IntN(2) == 0 {
			v = math.Trunc(math.Ldexp(r.Float64()-.5, r.IntN(70)))
		}
		text := string(AppendFloat(nil, v))
		if got, err := strconv.ParseFloat(text, 64); err != nil || got != v && !math.IsNaN(v) {
			t.Fatalf("AppendFloat(%x) = %q, which is %x, %v", v, text, got, err)
		}
	}
}

func TestTextAsItIsWritten(t *testing.T) {
	s := snapshotOf([]float64{1, 2.5, 3, 4, 0.5, 4, 7, 8},
		multiproc.Family{Name: "a_total", Help: "back\\slash, \"quotes\"\nand lines", Type: multiproc.Counter, Samples: []multiproc.Sample{
			{Labels: []multiproc.Label{{Name: "x", Value: "a\\b\"c\nd"}}},
			{Labels: []multiproc.Label{{Name: "x", Value: "é"}, {Name: "y y", Value: ""}}, Group: 1},
		}},
		multiproc.Family{Name: "h", Help: "", Type: multiproc.Histogram, Samples: []multiproc.Sample{
			{Part: multiproc.PartBucket, Bound: "1"},
			{Part: multiproc.PartBucket, Bound: "+Inf"},
			{Part: multiproc.PartSum},
			{Part: multiproc.PartCount},
		}},
		multiproc.Family{Name: "h 2", Help: "m", Type: multiproc.Histogram, Samples: []multiproc.Sample{
			{Part: multiproc.PartBucket, Bound: "+Inf", Labels: []multiproc.Label{{Name: "x", Value: "1"}}},
		}},
		multiproc.Family{Name: "u", Help: "n", Type: multiproc.Untyped, Samples: []multiproc.Sample{{}}},
	)
	for name, tc := range map[string]struct {
		o    Options
		want string
	}{
		"text, names as they are": {Options{Escaping: model.NoEscaping}, `# HELP a_total back\\slash, "quotes"\nand lines
# TYPE a_total counter
a_total{x="a\\b\"c\nd"} 1
a_total{x="é","y y"=""} 2.5
# HELP h 
# TYPE h histogram
h_bucket{le="1"} 3
h_bucket{le="+Inf"} 4
h_sum 0.5
h_count 4
# HELP "h 2" m
# TYPE "h 2" histogram
{"h 2_bucket",x="1",le="+Inf"} 7
# HELP u n
# TYPE u untyped
u 8
`},
		"OpenMetrics, with underscores": {Options{OpenMetrics: true, Escaping: model.UnderscoreEscaping}, `# HELP a back\\slash, \"quotes\"\nand lines
# TYPE a counter
a_total{x="a\\b\"c\nd"} 1
a_total{x="é",y_y=""} 2.5
# HELP h 
# TYPE h histogram
h_bucket{le="1"} 3
h_bucket{le="+Inf"} 4
h_sum 0.5
h_count 4
# HELP h_2 m
# TYPE h_2 histogram
h_2_bucket{x="1",le="+Inf"} 7
# HELP u n
# TYPE u unknown
u 8
# EOF
`},
		"one family": {Options{Keep: func(f *multiproc.Family) bool { return f.Name == "u" }}, "# HELP u n\n# TYPE u untyped\nu 8\n"},
		"no family":  {Options{Keep: func(*multiproc.Family) bool { return false }}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			if got, dropped := render(t, s, tc.o); string(got) != tc.want || dropped != 0 {
				t.Errorf("dropped %d, wrote\n%s\nwant 0 and\n%s", dropped, got, tc.want)
			}
		})
	}
}

// oneGauge returns a snapshot of one gauge with n label sets.
func oneGauge(name string, n int) *multiproc.Snapshot {
	f := multiproc.Family{Name: name, Help: "m", Type: multiproc.Gauge}
	for i := range n {
		f.Samples = append(f.Samples, multiproc.Sample{Group: i, Labels: []multiproc.Label{{Name: "i", Value: strconv.Itoa(i)}}})
	}
	return snapshotOf(make([]float64, n), f)
}

func TestTextFollowsTheSnapshotsThatItGets(t *testing.T) {
	var text Text // keeps prefixes between the calls
	first, second := oneGauge("first", 2), oneGauge("second", 1)
	again := &multiproc.Snapshot{Layout: first.Layout, Values: []float64{5, 6}}
	for i, tc := range []struct {
		s      *multiproc.Snapshot
		scheme model.EscapingScheme
		want   string
	}{
		{first, model.NoEscaping, "# HELP first m\n# TYPE first gauge\nfirst{i=\"0\"} 0\nfirst{i=\"1\"} 0\n"},
		{again, model.NoEscaping, "# HELP first m\n# TYPE first gauge\nfirst{i=\"0\"} 5\nfirst{i=\"1\"} 6\n"},
		{second, model.NoEscaping, "# HELP second m\n# TYPE second gauge\nsecond{i=\"0\"} 0\n"},
		{oneGauge("a_b", 1), model.DotsEscaping, "# HELP a__b m\n# TYPE a__b gauge\na__b{i=\"0\"} 0\n"},
		{oneGauge("a_b", 1), model.UnderscoreEscaping, "# HELP a_b m\n# TYPE a_b gauge\na_b{i=\"0\"} 0\n"},
	} {
		var b bytes.Buffer
		if _, err := text.Write(&b, tc.s, Options{Escaping: tc.scheme}); err != nil || b.String() != tc.want {
			t.Errorf("call %d wrote %q, %v; want %q", i, b.String(), err, tc.want)
		}
	}
}

func TestTextIsSafeForConcurrentUse(t *testing.T) {
	var text Text
	snapshots := []*multiproc.Snapshot{oneGauge("a.b", 3000), oneGauge("c.d", 3000)}
	want := map[*multiproc.Snapshot]string{}
	for _, s := range snapshots {
		b, _ := render(t, s, Options{Escaping: model.UnderscoreEscaping})
		want[s] = string(b)
	}
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for i := range 20 {
				s := snapshots[i%2]
				var b bytes.Buffer
				if _, err := text.Write(&b, s, Options{Escaping: model.UnderscoreEscaping}); err != nil || b.String() != want[s] {
					t.Errorf("wrote %d bytes, %v; want the %d of one goroutine alone", b.Len(), err, len(want[s]))
				}
			}
		})
	}
	group.Wait()
}

// quitter is a client that goes away after some bytes.
type quitter struct{ left, refused int }

var errQuit = errors.New("gone")

func (q *quitter) Write(b []byte) (int, error) {
	if q.left -= len(b); q.left < 0 {
		q.refused++
		return 0, errQuit
	}
	return len(b), nil
}

func TestTextEndsWithItsWriter(t *testing.T) {
	long := oneGauge("long", 20_000)
	whole, _ := render(t, long, Options{})
	if len(whole) < 3*chunk {
		t.Fatalf("%d bytes are too few to be several writes", len(whole))
	}
	for name, after := range map[string]int{
		"at once": 0, "in the middle": chunk + chunk/2, "before the last bytes": len(whole) - 1,
	} {
		t.Run(name, func(t *testing.T) {
			var text Text
			q := &quitter{left: after}
			if _, err := text.Write(q, long, Options{}); !errors.Is(err, errQuit) || q.refused != 1 {
				t.Errorf("Write = %v after %d writes that failed, want the error of the first", err, q.refused)
			}
			var b bytes.Buffer
			if _, err := text.Write(&b, long, Options{}); err != nil || !bytes.Equal(b.Bytes(), whole) {
				t.Errorf("the next Write has %d bytes, %v; want all %d", b.Len(), err, len(whole))
			}
		})
	}
}

// TestTextIsWholeWhereverAChunkEnds has a family that fills more than one chunk
// and lines as long as its head: what is left for the last chunk must not be
// taken for a family without samples.
func TestTextIsWholeWhereverAChunkEnds(t *testing.T) {
	all := oneGauge("g", 5000)
	all.Families[0].Help = "mmm" // so that the head is as long as two lines
	whole, _ := render(t, all, Options{})
	for n := 4700; n < 4800; n++ {
		s := oneGauge("g", n)
		s.Families[0].Help = "mmm"
		got, _ := render(t, s, Options{})
		end := bytes.Index(whole, []byte(`g{i="`+strconv.Itoa(n)+`"}`))
		if !bytes.Equal(got, whole[:end]) {
			t.Fatalf("%d bytes for %d samples, want %d", len(got), n, end)
		}
	}
}

func TestTextWritesInChunks(t *testing.T) {
	var sizes []int
	w := writerFunc(func(b []byte) (int, error) {
		sizes = append(sizes, len(b))
		return len(b), nil
	})
	var text Text
	if _, err := text.Write(w, oneGauge("long", 20_000), Options{}); err != nil {
		t.Fatal(err)
	}
	for _, n := range sizes {
		if n > chunk+chunk/4 {
			t.Errorf("a write of %d bytes, want about %d", n, chunk)
		}
	}
}

type writerFunc func(b []byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

func TestWarmTextAllocatesNothingPerSample(t *testing.T) {
	var text Text
	s := oneGauge("g", 5000)
	once := func() {
		if _, err := text.Write(io.Discard, s, Options{}); err != nil {
			t.Error(err)
		}
	}
	once()
	if n := testing.AllocsPerRun(20, once); n > 5 {
		t.Errorf("%v allocations for 5000 samples, want a handful", n)
	}
}

func TestNoFamilyIsNamedWithoutASample(t *testing.T) {
	text, _ := render(t, merge(t, multiproc.Source{Path: unpack(t, "client_python-HEAD/basic/db.tar.gz")}), Options{})
	if !strings.Contains(string(text), "# TYPE g_unset_max gauge\n") || strings.Contains(string(text), "g_unset_mostrecent") {
		t.Errorf("want g_unset_max and not g_unset_mostrecent, which nobody has set, in\n%s", text)
	}
}

// someOf returns a family with some of the label sets, in their order.
func someOf(r *rand.Rand, name string, typ multiproc.Type, sets [][]multiproc.Label) multiproc.Family {
	f := multiproc.Family{Name: name, Type: typ, Help: "m"}
	for group, labels := range sets {
		if r.IntN(3) == 0 {
			continue
		}
		parts := []multiproc.Sample{{}}
		if typ == multiproc.Histogram {
			parts = buckets([]string{"0.5", "1.0", "2.0"}[r.IntN(3):][:1], multiproc.PartSum, multiproc.PartCount)
		}
		for _, s := range parts {
			s.Labels, s.Group = labels, group
			f.Samples = append(f.Samples, s)
		}
	}
	return f
}

func TestALayoutIsRenderedTheSameWhateverCameBefore(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var sets [][]multiproc.Label // in order; escaping makes some the same, and one cannot be written
	for _, l := range [][3]string{
		{"a", "0", "0"}, {"a", "0", "1"}, {"a", "1", "\xff"}, {"b.c", "0", "0"}, {"b.c", "0", "1"}, {"b.c", "1", "0"},
		{"b_c", "0", "0"}, {"b_c", "0", "1"}, {"b_c", "2", "0"}, {"b_c", "2", "1"},
	} {
		sets = append(sets, []multiproc.Label{{Name: l[0], Value: l[1]}, {Name: "e", Value: l[2]}})
	}
	var kept Text
	for step := range 2000 {
		var families []multiproc.Family
		for i, name := range []string{"one", "two", "two.three", "two_three"} {
			typ := []multiproc.Type{multiproc.Gauge, multiproc.Histogram}[(i+step/500)%2]
			if f := someOf(r, name, typ, sets[:1+r.IntN(10)]); r.IntN(4) > 0 && len(f.Samples) > 0 {
				families = append(families, f)
			}
		}
		n := 0
		for _, f := range families {
			n += len(f.Samples)
		}
		s := snapshotOf(make([]float64, n), families...)
		o := Options{Escaping: []model.EscapingScheme{model.NoEscaping, model.UnderscoreEscaping}[r.IntN(2)], OpenMetrics: r.IntN(2) == 0}
		want, wantDropped := render(t, s, o)
		var got bytes.Buffer
		dropped, err := kept.Write(&got, s, o)
		if o.OpenMetrics {
			got.WriteString("# EOF\n")
		}
		if err != nil || got.String() != string(want) || dropped != wantDropped {
			t.Fatalf("step %d wrote\n%s, dropped %d, %v; want\n%s, dropped %d", step, got.String(), dropped, err, want, wantDropped)
		}
	}
}
