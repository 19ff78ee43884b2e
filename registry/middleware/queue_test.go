package middleware

import (
	"math"
	"net/http"
	"testing"
	"time"
)

func TestTimeInTheQueue(t *testing.T) {
	now := time.UnixMilli(1_700_000_000_500)
	for name, tc := range map[string]struct {
		header []string
		want   float64 // negative: unknown
	}{
		"seconds, as nginx writes them":      {[]string{"t=1700000000.250"}, .25},
		"milliseconds":                       {[]string{"1700000000250"}, .25},
		"milliseconds behind t=":             {[]string{"t=1700000000250"}, .25},
		"microseconds":                       {[]string{"t=1700000000250000"}, .25},
		"blanks":                             {[]string{" t=1700000000.250 "}, .25},
		"the first of two proxies":           {[]string{"t=1700000000.250", "t=1700000000.4"}, .25},
		"a clock that is ahead":              {[]string{"t=1700000009"}, 0},
		"no header":                          {nil, -1},
		"no number":                          {[]string{"t=soon"}, -1},
		"nothing":                            {[]string{""}, -1},
		"not a number":                       {[]string{"nan"}, -1},
		"infinite":                           {[]string{"t=inf"}, -1},
		"negative":                           {[]string{"t=-1700000000"}, -1},
		"the day before yesterday":           {[]string{"t=1699800000"}, -1},
		"the day after tomorrow":             {[]string{"t=1700200000"}, -1},
		"seconds since something else began": {[]string{"t=12345.6"}, -1},
	} {
		t.Run(name, func(t *testing.T) {
			h := http.Header{}
			if tc.header != nil {
				h["X-Request-Start"] = tc.header
			}
			got, ok := queued(h, now)
			if ok != (tc.want >= 0) || ok && math.Abs(got-tc.want) > 1e-6 {
				t.Errorf("queued %v, %v; want %v", got, ok, tc.want)
			}
		})
	}
}
