package main

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
)

// tolerance is how far two merges may be apart: the order of files decides the last digits of a sum.
const tolerance = 1e-9

// parseSamples reads text exposition into values by series, the labels of a series in the order of their
// names. It takes what the contenders print about the data sets, where no label value holds an escaped quote.
func parseSamples(r io.Reader) (map[string]float64, error) {
	samples := make(map[string]float64)
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for n := 1; lines.Scan(); n++ {
		line := lines.Text()
		if line == "" || line[0] == '#' {
			continue
		}
		series, value, err := parseSample(line)
		if err != nil {
			return nil, fmt.Errorf("parse exposition: line %d: %w", n, err)
		}
		if _, twice := samples[series]; twice {
			return nil, fmt.Errorf("parse exposition: line %d: series %s appears twice", n, series)
		}
		samples[series] = value
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("parse exposition: %w", err)
	}
	return samples, nil
}

func parseSample(line string) (series string, value float64, err error) {
	end := strings.LastIndexByte(line, ' ')
	if end < 0 {
		return "", 0, fmt.Errorf("no value in %q", line)
	}
	if value, err = strconv.ParseFloat(line[end+1:], 64); err != nil {
		return "", 0, fmt.Errorf("value in %q: %w", line, err)
	}
	name, rest, labelled := strings.Cut(line[:end], "{")
	if !labelled {
		return name, value, nil
	}
	rest, closed := strings.CutSuffix(rest, "}")
	if !closed {
		return "", 0, fmt.Errorf("labels in %q do not end", line)
	}
	labels, err := parseLabels(rest)
	return name + "{" + strings.Join(labels, ",") + "}", value, err
}

// parseLabels splits name="value" pairs and sorts them.
func parseLabels(s string) ([]string, error) {
	var labels []string
	for s = strings.TrimSuffix(s, ","); s != ""; s = strings.TrimPrefix(s, ",") {
		open := strings.Index(s, `="`)
		if open < 0 {
			return nil, fmt.Errorf("label %q has no value", s)
		}
		length := strings.IndexByte(s[open+2:], '"')
		if length < 0 {
			return nil, fmt.Errorf("label %q does not end", s)
		}
		end := open + 2 + length + 1
		labels = append(labels, s[:end])
		s = s[end:]
	}
	slices.Sort(labels)
	return labels, nil
}

// differences lists, in a stable order, what sets got apart from want: at most limit of them, and how many
// there are.
func differences(want, got map[string]float64, limit int) (some []string, count int) {
	all := make(map[string]string)
	for series, w := range want {
		if g, ok := got[series]; !ok {
			all[series] = fmt.Sprintf("%s is missing, want %v", series, w)
		} else if !equal(w, g) {
			all[series] = fmt.Sprintf("%s is %v, want %v", series, g, w)
		}
	}
	for series, g := range got {
		if _, ok := want[series]; !ok {
			all[series] = fmt.Sprintf("%s is %v, want none", series, g)
		}
	}
	for _, series := range slices.Sorted(maps.Keys(all)) {
		if len(some) < limit {
			some = append(some, all[series])
		}
	}
	return some, len(all)
}

func equal(a, b float64) bool {
	if a == b || math.IsNaN(a) && math.IsNaN(b) {
		return true
	}
	if math.IsInf(a, 0) || math.IsInf(b, 0) {
		return false // an infinite tolerance would take everything
	}
	return math.Abs(a-b) <= tolerance*math.Max(math.Abs(a), math.Abs(b))
}
