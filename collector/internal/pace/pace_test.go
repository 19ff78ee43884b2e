package pace

import (
	"testing"
	"time"
)

func TestRest(t *testing.T) {
	const ms = time.Millisecond
	for name, tc := range map[string]struct{ at, about, want time.Duration }{
		"at a moment, to the next":               {0, 500 * ms, 500 * ms},
		"late, and so not behind the next":       {30 * ms, 500 * ms, 470 * ms},
		"from between two, the nearest":          {200 * ms, time.Second, 800 * ms},
		"the later one where that is nearer":     {300 * ms, time.Second, 1200 * ms},
		"a time that is no multiple":             {0, 1900 * ms, 2000 * ms},
		"no step, exactly":                       {30 * ms, 25 * ms, 25 * ms},
		"somewhat less than a step, exactly too": {30 * ms, 499 * ms, 499 * ms},
	} {
		t.Run(name, func(t *testing.T) {
			now := time.Unix(1_700_000_000, 0).Add(tc.at)
			if got := Rest(now, tc.about); got != tc.want {
				t.Errorf("= %v, want %v", got, tc.want)
			}
		})
	}
}
