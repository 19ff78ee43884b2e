package pyfile

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/prefork-exporter/prefork_exporter/multiproc/fixture"
	"github.com/prefork-exporter/prefork_exporter/multiproc/internal/entry"
)

func TestParseKey(t *testing.T) {
	for name, tc := range map[string]struct {
		raw     string
		want    entry.Key
		wantErr error
	}{
		"era A has two lists": {
			`["jobs", "jobs", ["b", "a"], ["2", "1"]]`,
			entry.Key{Family: "jobs", Sample: "jobs", Labels: []entry.Label{{Name: "a", Value: "1"}, {Name: "b", Value: "2"}}, Era: entry.EraA}, nil,
		},
		"era B has an object": {
			`["jobs", "jobs_total", {"a": "1"}]`,
			entry.Key{Family: "jobs", Sample: "jobs_total", Labels: []entry.Label{{Name: "a", Value: "1"}}, Era: entry.EraB}, nil,
		},
		"eras C and D have a help": {
			`["jobs", "jobs_total", {}, "Jobs \u00e9."]`,
			entry.Key{Family: "jobs", Sample: "jobs_total", Labels: []entry.Label{}, Help: "Jobs é.", Era: entry.EraC}, nil,
		},
		"a lone surrogate is replaced": {
			`["g", "g", {"v": "\ud800"}, ""]`,
			entry.Key{Family: "g", Sample: "g", Labels: []entry.Label{{Name: "v", Value: "\uFFFD"}}, Era: entry.EraC}, nil,
		},
		"numbers and booleans are their text": {
			`["g", "g", {"a": 1.50, "b": true, "c": null}, ""]`,
			entry.Key{Family: "g", Sample: "g", Labels: []entry.Label{{Name: "a", Value: "1.50"}, {Name: "b", Value: "true"}, {Name: "c", Value: ""}}, Era: entry.EraC}, nil,
		},
		"two items":              {`["a", "b"]`, entry.Key{}, entry.ErrKey},
		"five items":             {`["a", "b", {}, "", ""]`, entry.Key{}, entry.ErrKey},
		"no list":                {`{"a": 1}`, entry.Key{}, entry.ErrKey},
		"cut off":                {`["a", "b", {"x": "1`, entry.Key{}, entry.ErrKey},
		"bytes that are no text": {"[\"a\", \"b\xff\", {}]", entry.Key{}, entry.ErrKey},
		"a label in a label":     {`["a", "b", {"x": {"y": 1}}]`, entry.Key{}, entry.ErrKey},
		"more names than values": {`["a", "b", ["x", "y"], ["1"]]`, entry.Key{}, entry.ErrKey},
		"an empty metric name":   {`["", "", {}]`, entry.Key{}, entry.ErrName},
		"an empty label name":    {`["a", "a", {"": "1"}]`, entry.Key{}, entry.ErrName},
		"a label twice":          {`["a", "a", ["x", "x"], ["1", "2"]]`, entry.Key{}, entry.ErrName},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ParseKey([]byte(tc.raw))
			if diff := cmp.Diff(tc.want, got); diff != "" || !errors.Is(err, tc.wantErr) {
				t.Errorf("ParseKey: error %v, want %v; key (-want +got):\n%s", err, tc.wantErr, diff)
			}
		})
	}
}

func TestDecode(t *testing.T) {
	two := file(t, "client_python-HEAD/basic/db.tar.gz", "counter_101.db")
	all, err := Decode(nil, two)
	if err != nil {
		t.Fatal(err)
	}
	values := func(n int) []float64 {
		var v []float64
		for _, s := range all[:n] {
			v = append(v, s.Value)
		}
		return v
	}
	last := all[len(all)-1].Offset
	for name, tc := range map[string]struct {
		in      []byte
		want    []float64
		wantErr error
	}{
		"as the client wrote it":           {two, values(len(all)), nil},
		"created, not yet written":         {make([]byte, 64), nil, nil},
		"shorter than its header":          {two[:3], nil, nil},
		"cut inside the last entry":        {two[:last+20], values(len(all) - 1), entry.ErrTruncated},
		"cut behind the first entry":       {two[:all[1].Offset], values(1), entry.ErrTruncated},
		"its last entry not yet published": {used(two, last), values(len(all) - 1), nil},
		"a header inside the last entry":   {used(two, last+10), values(len(all) - 1), entry.ErrCorrupt},
		"a length below nothing":           {damaged(two, 8, 0xff, 0xff, 0xff, 0xff), nil, entry.ErrCorrupt},
		"a length beyond the end":          {damaged(two, 8, 0xff, 0xff, 0xff, 0x7f), nil, entry.ErrCorrupt},
	} {
		t.Run(name, func(t *testing.T) {
			samples, err := Decode(nil, tc.in)
			var got []float64
			for _, s := range samples {
				got = append(got, s.Value)
			}
			if !slices.Equal(got, tc.want) || !errors.Is(err, tc.wantErr) {
				t.Errorf("Decode = %v, %v; want %v, %v", got, err, tc.want, tc.wantErr)
			}
		})
	}
}

// file returns a metric file of a fixture.
func file(t testing.TB, archive, name string) []byte {
	t.Helper()
	dir := fixture.Unpack(t, archive)
	paths, err := filepath.Glob(filepath.Join(dir, "db", name))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no %s in %s", name, archive)
	}
	b, err := os.ReadFile(paths[0])
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// used returns a copy whose header claims n bytes.
func used(b []byte, n int) []byte {
	b = slices.Clone(b)
	binary.LittleEndian.PutUint32(b, uint32(n))
	return b
}

// damaged returns a copy with other bytes at offset at.
func damaged(b []byte, at int, with ...byte) []byte {
	b = slices.Clone(b)
	copy(b[at:], with)
	return b
}

func FuzzDecode(f *testing.F) {
	for _, s := range fixture.Small(f, "client_python", ".db", 700) {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		samples, err := Decode(nil, b)
		fixture.CheckWalk(t, len(b), err, offsets(samples))
		for _, s := range samples {
			if s.Err == nil && (s.Family == "" || !strings.HasPrefix(strings.TrimLeft(s.Raw, " \t\r\n"), "[")) {
				t.Errorf("sample at byte %d: key %q became family %q", s.Offset, s.Raw, s.Family)
			}
			fixture.SameKey(t, s.Raw, ParseKey, parseAny)
		}
	})
}

func offsets(samples []entry.Sample) []int {
	out := make([]int, len(samples))
	for i, s := range samples {
		out[i] = s.Offset
	}
	return out
}
