// Package pace has those who look at something now and then do so at the same moments: to
// wake a process costs it more than most of what it then looks at. It promises nothing to
// other modules.
package pace

import "time"

// Step is how far those moments are apart.
const Step = 500 * time.Millisecond

// Rest returns how long to rest from now on who wants to rest for about so long: until the
// nearest moment, or exactly as long where that is shorter than a step.
func Rest(now time.Time, about time.Duration) time.Duration {
	if about < Step {
		return about
	}
	return now.Add(about).Round(Step).Sub(now)
}
