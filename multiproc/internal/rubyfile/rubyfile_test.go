package rubyfile

import (
	"errors"
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
		"names and values": {
			`["h","h_bucket",["le","path"],["0.5","/"]]`,
			entry.Key{Family: "h", Sample: "h_bucket", Labels: []entry.Label{{Name: "le", Value: "0.5"}, {Name: "path", Value: "/"}}, Era: entry.EraR}, nil,
		},
		"null is empty, a number its text": {
			`["g","g",["a","b"],[null,3]]`,
			entry.Key{Family: "g", Sample: "g", Labels: []entry.Label{{Name: "a"}, {Name: "b", Value: "3"}}, Era: entry.EraR}, nil,
		},
		"an object of labels is Python's": {`["g","g",{},""]`, entry.Key{}, entry.ErrKey},
		"fewer values than names":         {`["g","g",["a","b"],["1"]]`, entry.Key{}, entry.ErrKey},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ParseKey([]byte(tc.raw))
			if diff := cmp.Diff(tc.want, got); diff != "" || !errors.Is(err, tc.wantErr) {
				t.Errorf("ParseKey: error %v, want %v; key (-want +got):\n%s", err, tc.wantErr, diff)
			}
		})
	}
}

func TestIs(t *testing.T) {
	for name, tc := range map[string]struct {
		raw  string
		want bool
	}{
		"Ruby's":                     {`["g","g",[],[]]`, true},
		"Python's":                   {`["g", "g", [], []]`, false},
		"a name with a quote, Ruby":  {`["g\"","g",[],[]]`, true},
		"a name with a comma":        {`["a,\"", "g", [], []]`, false},
		"a name that never ends":     {`["gggg`, false},
		"a name that ends the bytes": {`["g"`, false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := Is([]byte(tc.raw)); got != tc.want {
				t.Errorf("Is(%s) = %v", tc.raw, got)
			}
		})
	}
}

func FuzzDecode(f *testing.F) {
	for _, s := range fixture.Small(f, "ruby-prometheus-client-mmap", ".db", 700) {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		samples, err := Decode(nil, b)
		at := make([]int, len(samples))
		for i, s := range samples {
			at[i] = s.Offset
			if s.Err == nil && s.Era != entry.EraR {
				t.Errorf("sample at byte %d is of era %s", s.Offset, s.Era)
			}
			fixture.SameKey(t, s.Raw, ParseKey, parseAny)
		}
		fixture.CheckWalk(t, len(b), err, at)
	})
}
