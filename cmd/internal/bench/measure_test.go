package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// counted is a contender that notes what happens to it.
func counted(name string, runs int, log *[]string) *contender {
	note := func(what string) { *log = append(*log, name+what) }
	return &contender{
		variant: variant{who: name},
		runs:    runs,
		prepare: func(context.Context) error { note("+"); return nil },
		once:    func(context.Context) (cost, error) { note(""); return cost{}, nil },
	}
}

func TestRaceTakesTurns(t *testing.T) {
	var log []string
	recorded := make(map[string]int)
	cs := []*contender{counted("a", 2, &log), counted("b", 5, &log)}
	err := race(t.Context(), 2, cs, func(v variant, _ cost) { recorded[v.who]++ })
	if err != nil {
		t.Fatal(err)
	}
	want := "a a b b" + " a+ a a+ a b+ b b+ b b+ b" + " b+ b b+ b b+ b b+ b a+ a a+ a" // the first of each turn is not measured
	if got := strings.Join(log, " "); got != want {
		t.Errorf("order = %s, want %s", got, want)
	}
	if diff := cmp.Diff(map[string]int{"a": 2, "b": 5}, recorded); diff != "" {
		t.Error(diff)
	}
}

func TestRaceNamesWhoFailed(t *testing.T) {
	broken := errors.New("broken")
	for name, change := range map[string]func(*contender){
		"in a run": func(c *contender) {
			c.once = func(context.Context) (cost, error) { return cost{}, broken }
		},
		"in its preparation": func(c *contender) { c.prepare = func(context.Context) error { return broken } },
		"after it has warmed up": func(c *contender) {
			runs := 0
			c.once = func(context.Context) (cost, error) {
				if runs++; runs > 2 {
					return cost{}, broken
				}
				return cost{}, nil
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			var log []string
			c := counted("slow", 1, &log)
			change(c)
			err := race(t.Context(), 1, []*contender{c}, func(variant, cost) {})
			if !errors.Is(err, broken) || !strings.HasPrefix(err.Error(), "slow") {
				t.Errorf("error = %v", err)
			}
		})
	}
}

func TestShareSpreadsAllRuns(t *testing.T) {
	for _, tc := range []struct{ runs, rounds int }{{30, 7}, {7, 7}, {1, 7}, {100, 1}} {
		sum := 0
		for round := range tc.rounds {
			n := share(tc.runs, tc.rounds, round)
			if n < tc.runs/tc.rounds || n > tc.runs/tc.rounds+1 {
				t.Errorf("round %d of %d gets %d of %d runs", round, tc.rounds, n, tc.runs)
			}
			sum += n
		}
		if sum != tc.runs {
			t.Errorf("%d runs over %d rounds: %d", tc.runs, tc.rounds, sum)
		}
	}
}

func TestCompare(t *testing.T) {
	gives := func(files string, v float64) *contender {
		return &contender{variant: variant{who: fmt.Sprint(v), files: files},
			samples: func(context.Context) (map[string]float64, error) { return map[string]float64{"a": v}, nil }}
	}
	for name, tc := range map[string]struct {
		cs   []*contender
		want string
	}{
		"libraries are not compared with each other": {[]*contender{gives(pythonFiles, 1), gives(rubyFiles, 2)}, ""},
		"each with its library": {[]*contender{gives(pythonFiles, 1), gives(rubyFiles, 2), gives(rubyFiles, 2)},
			""},
		"who has no output of its own is left out": {[]*contender{gives(pythonFiles, 1), {}}, ""},
		"a difference": {[]*contender{gives(pythonFiles, 1), gives(pythonFiles, 2)}, "differs in 1 series of 1: a is 2, want 1"},
	} {
		t.Run(name, func(t *testing.T) {
			err := compare(t.Context(), tc.cs)
			if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error = %v, want %q", err, tc.want)
			}
		})
	}
}

func TestSoakPoints(t *testing.T) {
	for all, want := range map[int][]int{1000: {10, 500, 1000}, 30: {10, 15, 30}, 10: {10}, 3: {3}} {
		var got []int
		for n := range all {
			if soakPointDue(n+1, all) {
				got = append(got, n+1)
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("of %d: %s", all, diff)
		}
	}
}
