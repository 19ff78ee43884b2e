package collector

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestValuesOfAFamily(t *testing.T) {
	give := fake(func(_ context.Context, out *Output) error {
		out.Add(
			Describe("prefork_worker_exits_total").Value(2, "1", ""), Describe("prefork_worker_exits_total").Value(3, "", "KILL"),
			Describe("prefork_workers_target").Value(4), Describe("prefork_worker_pid").Value(5, "0"),
		)
		threads := Describe("prefork_worker_threads")
		out.Add(threads.Value(6, "0"))
		if err := Labelled(map[string]string{"zone": "b", "app": "a"}, adding{threads.Value(7, "0")}).Update(t.Context(), out); err != nil {
			return err
		}
		out.AddFamilies(NewMultiproc(nil, 0).durations())
		return nil
	})
	scrape, err := NewSet(quiet(), map[string]Collector{"it": give}, time.Minute).Gather(t.Context(), []string{"it"})
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct{ family, want string }{
		"all of a family, by their labels": {"prefork_worker_exits_total", "map[code: signal:KILL] map[] 3, map[code:1 signal:] map[] 2"},
		"one without labels":               {"prefork_workers_target", "map[] map[] 4"},
		"those of several targets":         {"prefork_worker_threads", "map[worker_id:0] map[] 6, map[worker_id:0] map[app:a zone:b] 7"},
		"one that nobody has given":        {"prefork_worker_busy", ""},
		"one that is before all others":    {"prefork_a", ""},
		"one that is behind all others":    {"prefork_z", ""},
		"the beginning of a name":          {"prefork_worker_", ""},
		"a histogram":                      {"prefork_multiproc_merge_seconds", ""},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			for v := range scrape.Values(tc.family) {
				got = append(got, fmt.Sprint(v.Labels, v.Target, " ", v.Value))
			}
			if text := strings.Join(got, ", "); text != tc.want {
				t.Errorf("Values = %s, want %s", text, tc.want)
			}
		})
	}
}

func TestValuesMayBeLeftEarly(t *testing.T) {
	s := &Scrape{own: []value{gauge(Describe("prefork_worker_pid"), 1, "0"), gauge(Describe("prefork_worker_pid"), 2, "1")}}
	var got []float64
	for v := range s.Values("prefork_worker_pid") {
		got = append(got, v.Value)
		break
	}
	if !slices.Equal(got, []float64{1}) {
		t.Errorf("Values = %v, want the first", got)
	}
}
