package middleware

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

// queued returns how long a request has waited since the proxy in front noted its
// start, in X-Request-Start: seconds with a fraction, as nginx writes them behind
// t=, milliseconds, as Heroku's router does, or microseconds, as Apache does. A
// proxy's clock that is ahead makes it zero. It is not known without the header, or
// when that is off by more than a day.
func queued(h http.Header, now time.Time) (seconds float64, ok bool) {
	values := h["X-Request-Start"]
	if len(values) == 0 {
		return 0, false
	}
	start, err := strconv.ParseFloat(strings.TrimPrefix(strings.TrimSpace(values[0]), "t="), 64)
	if err != nil {
		return 0, false
	}
	switch { // 1e11 seconds are in the year 5138, 1e11 milliseconds in 1973
	case start >= 1e14:
		start /= 1e6
	case start >= 1e11:
		start /= 1e3
	}
	seconds = float64(now.UnixNano())/1e9 - start
	const day = 24 * 60 * 60
	if !(seconds < day && seconds > -day) {
		return 0, false
	}
	return max(seconds, 0), true
}
