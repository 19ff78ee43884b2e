package gunicorn

import (
	"testing"
	"time"
)

func TestLastSignByWhatTheFileSays(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	up := 1000 * time.Second
	clock := func(seconds int64) time.Time { return time.Unix(seconds, 0) }
	for name, tc := range map[string]struct {
		file   touched
		want   time.Time
		wantOK bool
	}{
		"a sign by the monotonic clock":            {touched{clock(990), now, 0o600}, now.Add(-10 * time.Second), true},
		"a sign at this moment":                    {touched{clock(1000), now, 0o600}, now, true},
		"a worker that boots":                      {touched{now.Add(-5 * time.Second), now, 0o600}, time.Time{}, false},
		"a worker that boots, with another umask":  {touched{now, now, 0o400}, time.Time{}, false},
		"a monotonic clock that is ahead of ours":  {touched{clock(1001), now, 0o600}, time.Time{}, false},
		"the first sign by permissions":            {touched{now.Add(-9 * time.Second), now.Add(-8 * time.Second), 1}, now.Add(-8 * time.Second), true},
		"the second sign by permissions":           {touched{now.Add(-9 * time.Second), now.Add(-7 * time.Second), 0}, now.Add(-7 * time.Second), true},
		"a time before there were any, by nobody":  {touched{clock(-1), now, 0o600}, time.Time{}, false},
		"a time that no duration can hold":         {touched{time.Unix(1<<40, 0), now, 0o600}, time.Time{}, false},
		"a time that none can hold before the era": {touched{time.Unix(-1<<40, 0), now, 0o600}, time.Time{}, false},
	} {
		t.Run(name, func(t *testing.T) {
			got, ok := tc.file.lastSign(now, up)
			if !got.Equal(tc.want) || ok != tc.wantOK {
				t.Errorf("lastSign = %v, %v; want %v, %v", got, ok, tc.want, tc.wantOK)
			}
		})
	}
}
