package main

import (
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestParseSamples(t *testing.T) {
	for name, tc := range map[string]struct {
		in      string
		want    map[string]float64
		wantErr string
	}{
		"comments and empty lines":        {"# HELP a b\n\na 1\n", map[string]float64{"a": 1}, ""},
		"labels in any order":             {`a{y="2",x="1"} 3`, map[string]float64{`a{x="1",y="2"}`: 3}, ""},
		"a comma after the last label":    {`a{x="1",} 3`, map[string]float64{`a{x="1"}`: 3}, ""},
		"braces, blanks, commas in value": {`a{x="/{id}, b"} 3`, map[string]float64{`a{x="/{id}, b"}`: 3}, ""},
		"values without a size": {"a +Inf\nb NaN\n",
			map[string]float64{"a": math.Inf(1), "b": math.NaN()}, ""},
		"seventeen digits and an exponent": {"a 0.90000000000000013\nb 1e+06\n",
			map[string]float64{"a": 0.90000000000000013, "b": 1e6}, ""},
		"a line without a value":      {"a", nil, "line 1: no value"},
		"a value that is no number":   {"a 1\nb x\n", nil, "line 2: value"},
		"labels that do not end":      {`a{x="1" 3`, nil, "do not end"},
		"a label without a value":     {`a{x} 3`, nil, "has no value"},
		"a label value left open":     {`a{x="1} 3`, nil, "does not end"},
		"the same series twice":       {"a{x=\"1\",y=\"2\"} 1\na{y=\"2\",x=\"1\"} 1\n", nil, "appears twice"},
		"a line longer than a buffer": {strings.Repeat("a", 2<<20), nil, "too long"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := parseSamples(strings.NewReader(tc.in))
			if (err == nil) != (tc.wantErr == "") || err != nil && !strings.Contains(err.Error(), tc.wantErr) {
				t.Fatalf("error = %v, want %q", err, tc.wantErr)
			}
			if diff := cmp.Diff(tc.want, got, cmpopts.EquateNaNs()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestDifferences(t *testing.T) {
	want := map[string]float64{"a": 1, "b": math.NaN(), "c": 1e15}
	for name, tc := range map[string]struct {
		got  map[string]float64
		want []string
	}{
		"none":                     {map[string]float64{"a": 1, "b": math.NaN(), "c": 1e15}, nil},
		"the last digits of a sum": {map[string]float64{"a": 1 + 1e-10, "b": math.NaN(), "c": 1e15 + 1}, nil},
		"a value": {map[string]float64{"a": 1.001, "b": math.NaN(), "c": 1e15},
			[]string{"a is 1.001, want 1"}},
		"a number where there is none": {map[string]float64{"a": 1, "b": 1, "c": 1e15},
			[]string{"b is 1, want NaN"}},
		"a missing and a surplus series": {map[string]float64{"a": 1, "b": math.NaN(), "d": 1},
			[]string{"c is missing, want 1e+15", "d is 1, want none"}},
		"an infinity is no large number": {map[string]float64{"a": 1, "b": math.NaN(), "c": math.Inf(1)},
			[]string{"c is +Inf, want 1e+15"}},
		"more than there is room to list": {nil, []string{"a is missing, want 1", "b is missing, want NaN"}},
	} {
		t.Run(name, func(t *testing.T) {
			got, count := differences(want, tc.got, 2)
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Error(diff)
			}
			if count < len(got) || tc.got == nil && count != len(want) {
				t.Errorf("count = %d", count)
			}
		})
	}
}
