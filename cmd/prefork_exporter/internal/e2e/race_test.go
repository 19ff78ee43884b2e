//go:build race

package e2e

// buildFlags build the program as the tests are built: with the race detector,
// which makes it exit with another status when it saw a race.
const buildFlags = "-race"
