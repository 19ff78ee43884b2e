package expo

import (
	"encoding/json"
	"io"
	"strconv"

	"github.com/prefork-exporter/prefork_exporter/multiproc"
)

// jsonFamily is a family as WriteJSON shows it.
type jsonFamily struct {
	Name    string       `json:"name"`
	Type    string       `json:"type"`
	Help    string       `json:"help"`
	Samples []jsonSample `json:"samples"`
}

type jsonSample struct {
	Name   string            `json:"name"`
	Labels map[string]string `json:"labels"`
	Value  string            `json:"value"` // text, for JSON has no NaN and no infinity
}

// WriteJSON renders s as a JSON list of families. Values are text, as
// Prometheus's own API has them.
func WriteJSON(w io.Writer, s *multiproc.Snapshot) error {
	families := make([]jsonFamily, 0, len(s.Families))
	for i := range s.Families {
		f := &s.Families[i]
		out := jsonFamily{Name: f.Name, Type: f.Type.String(), Help: f.Help, Samples: []jsonSample{}}
		for j, sample := range f.Samples {
			if v := s.Values[f.First+j]; multiproc.Present(v) {
				out.Samples = append(out.Samples, newJSONSample(f, sample, v))
			}
		}
		families = append(families, out)
	}
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(families)
}

func newJSONSample(f *multiproc.Family, s multiproc.Sample, v float64) jsonSample {
	out := jsonSample{
		Name:   f.Name + s.Part.Suffix(),
		Labels: make(map[string]string, len(s.Labels)+1),
		Value:  strconv.FormatFloat(v, 'g', -1, 64),
	}
	for _, l := range s.Labels {
		out.Labels[l.Name] = l.Value
	}
	if s.Part == multiproc.PartBucket {
		out.Labels["le"] = s.Bound
	}
	return out
}
