package directfile

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/prefork-exporter/prefork_exporter/multiproc/fixture"
	"github.com/prefork-exporter/prefork_exporter/multiproc/internal/entry"
)

func TestParseKey(t *testing.T) {
	key := func(labels ...entry.Label) entry.Key {
		return entry.Key{Family: "m", Sample: "m", Labels: labels, Era: entry.EraS8}
	}
	for name, tc := range map[string]struct {
		raw     string
		want    entry.Key
		wantErr error
	}{
		"no labels":                 {"    ", key(), nil},
		"labels with escapes":       {"a=x+y%26z&b=%C3%A9   ", key(entry.Label{Name: "a", Value: "x y&z"}, entry.Label{Name: "b", Value: "é"}), nil},
		"an empty value":            {"a=", key(entry.Label{Name: "a"}), nil},
		"a name without a value":    {"a", entry.Key{}, entry.ErrKey},
		"a value without a name":    {"=x", entry.Key{}, entry.ErrKey},
		"an escape that is cut off": {"a=%4", entry.Key{}, entry.ErrKey},
		"bytes that are no text":    {"a=%FF", entry.Key{}, entry.ErrKey},
		"a label twice":             {"a=1&a=2", entry.Key{}, entry.ErrName},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ParseKey([]byte(tc.raw), "m")
			if diff := cmp.Diff(tc.want, got); diff != "" || !errors.Is(err, tc.wantErr) {
				t.Errorf("ParseKey: error %v, want %v; key (-want +got):\n%s", err, tc.wantErr, diff)
			}
		})
	}
}

func FuzzDecode(f *testing.F) {
	for _, s := range fixture.Small(f, "client_ruby", ".bin", 700) {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		samples, err := Decode(nil, b, "m")
		at := make([]int, len(samples))
		for i, s := range samples {
			at[i] = s.Offset
			if s.Err == nil && s.Family != "m" {
				t.Errorf("sample at byte %d is of family %q", s.Offset, s.Family)
			}
		}
		fixture.CheckWalk(t, len(b), err, at)
	})
}
