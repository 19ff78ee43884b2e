package expo

import (
	"bytes"
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/prefork-exporter/prefork_exporter/multiproc"
)

func TestWriteJSON(t *testing.T) {
	s := snapshotOf([]float64{math.NaN(), unset(), 1, 1, .5, 1},
		multiproc.Family{Name: "g", Help: "a \"help\"\n", Type: multiproc.Gauge, Samples: []multiproc.Sample{
			{Labels: []multiproc.Label{{Name: "x", Value: "\x1b[0m"}}},
			{Labels: []multiproc.Label{{Name: "x", Value: "never set"}}, Group: 1},
		}},
		multiproc.Family{Name: "h", Type: multiproc.Histogram, Samples: buckets([]string{"1.0", "+Inf"}, multiproc.PartSum, multiproc.PartCount)},
	)
	const want = `[
  {
    "name": "g",
    "type": "gauge",
    "help": "a \"help\"\n",
    "samples": [
      {
        "name": "g",
        "labels": {
          "x": "\u001b[0m"
        },
        "value": "NaN"
      }
    ]
  },
  {
    "name": "h",
    "type": "histogram",
    "help": "",
    "samples": [
      {
        "name": "h_bucket",
        "labels": {
          "le": "1.0"
        },
        "value": "1"
      },
      {
        "name": "h_bucket",
        "labels": {
          "le": "+Inf"
        },
        "value": "1"
      },
      {
        "name": "h_sum",
        "labels": {},
        "value": "0.5"
      },
      {
        "name": "h_count",
        "labels": {},
        "value": "1"
      }
    ]
  }
]
`
	var b bytes.Buffer
	if err := WriteJSON(&b, s); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Errorf("JSON differs (-want +got):\n%s", diff)
	}
}

func TestWriteJSONOfNothingIsAnEmptyList(t *testing.T) {
	var b bytes.Buffer
	if err := WriteJSON(&b, snapshotOf(nil)); err != nil || b.String() != "[]\n" {
		t.Errorf("WriteJSON = %q, %v; want an empty list", b.String(), err)
	}
}
