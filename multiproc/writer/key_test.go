package writer

import (
	"math"
	"testing"
)

// What Python's json.dumps(…, sort_keys=True) gives.
func TestKeysAreThoseOfPython(t *testing.T) {
	for name, tc := range map[string]struct {
		labels []label
		help   string
		want   string
	}{
		"no labels":         {nil, "h", `["f", "s", {}, "h"]`},
		"labels are sorted": {[]label{{"b", "2"}, {"a", "1"}}, "", `["f", "s", {"a": "1", "b": "2"}, ""]`},
		"escapes":           {[]label{{"a", "\"\\\b\f\n\r\t/"}}, "", `["f", "s", {"a": "\"\\\b\f\n\r\t/"}, ""]`},
		"control bytes":     {[]label{{"a", "\x00\x1f\x7f"}}, "", `["f", "s", {"a": "\u0000\u001f\u007f"}, ""]`},
		"other characters":  {[]label{{"a", "é日😀"}}, "", `["f", "s", {"a": "\u00e9\u65e5\ud83d\ude00"}, ""]`},
		"what is no UTF-8":  {[]label{{"a", "\xff"}}, "", `["f", "s", {"a": "\ufffd"}, ""]`},
	} {
		t.Run(name, func(t *testing.T) {
			if got := string(appendKey(nil, "f", "s", tc.labels, tc.help)); got != tc.want {
				t.Errorf("key %s, want %s", got, tc.want)
			}
		})
	}
}

// What client_python's floatToGoString gives.
func TestBoundsAreThoseOfPython(t *testing.T) {
	for bound, want := range map[float64]string{
		math.Inf(1): "+Inf", 0: "0.0", 1: "1.0", .005: "0.005", 1e-5: "1e-05", 123456: "123456.0", 1234567: "1.234567e+06",
		1 << 20: "1.048576e+06", 1e10: "1e+10", 1e15: "1e+15", 1e16: "1e+16", -1: "-1.0", 2.5: "2.5", 1234567.5: "1.2345675e+06",
	} {
		if got := BoundText(bound); got != want {
			t.Errorf("bound %v is %q, want %q", bound, got, want)
		}
	}
}
