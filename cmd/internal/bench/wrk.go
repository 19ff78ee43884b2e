package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// The load that wrk makes.
const (
	wrkThreads     = 2
	wrkConnections = 16
)

// describeWrk returns the version of wrk. An error says that this machine does not have it.
func describeWrk(ctx context.Context, command string) (string, error) {
	out, err := exec.CommandContext(ctx, command, "-v").Output()
	// It prints its version and ends as after a mistake.
	if fields := strings.Fields(string(out)); len(fields) > 1 && fields[0] == "wrk" {
		return fields[1], nil
	}
	return "", fmt.Errorf("no wrk at %s: want Debian's package wrk, which `make setup` installs, "+
		"or --requests=0 and --pairs=0: %w", command, errors.Join(err, errors.New("no version")))
}

// wrkResult is what wrk has counted.
type wrkResult struct {
	answered                      int // whatever the status
	connect, read, write, timeout int // socket errors
	refused                       int // answers with a status of 400 and more
	perSecond                     float64
}

func (r wrkResult) failed() int { return r.connect + r.read + r.write + r.timeout + r.refused }

// failures lists what went wrong, by kind.
func (r wrkResult) failures() string {
	if r.failed() == 0 {
		return "0"
	}
	return fmt.Sprintf("%d: connect %d, read %d, write %d, timeout %d, status %d",
		r.failed(), r.connect, r.read, r.write, r.timeout, r.refused)
}

// parseWrk reads the summary that wrk prints. The lines about failures are there only when there are any.
func parseWrk(out string) (wrkResult, error) {
	var r wrkResult
	summary := []struct {
		format string
		into   []any
		found  bool
	}{
		{format: "%d requests in", into: []any{&r.answered}},
		{format: "Requests/sec: %f", into: []any{&r.perSecond}},
		{format: "Socket errors: connect %d, read %d, write %d, timeout %d",
			into: []any{&r.connect, &r.read, &r.write, &r.timeout}, found: true},
		{format: "Non-2xx or 3xx responses: %d", into: []any{&r.refused}, found: true},
	}
	for line := range strings.Lines(out) {
		for i, s := range summary {
			if _, err := fmt.Sscanf(strings.TrimSpace(line), s.format, s.into...); err == nil {
				summary[i].found = true
			}
		}
	}
	for _, s := range summary {
		if !s.found {
			return wrkResult{}, fmt.Errorf("wrk printed no line such as %q: %s", s.format, lastLine([]byte(out)))
		}
	}
	return r, nil
}

// wrk sends requests to url for as long as during takes.
func (b *bench) wrk(ctx context.Context, url string, during func() error) (r wrkResult, err error) {
	cmd := exec.CommandContext(ctx, b.options.wrk,
		"--threads", strconv.Itoa(wrkThreads), "--connections", strconv.Itoa(wrkConnections), "--duration=24h", url)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		return r, fmt.Errorf("start wrk: %w", err)
	}
	err = during()
	_ = cmd.Process.Signal(syscall.SIGINT) // it sums up then, as after its time
	late := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
	defer late.Stop()
	if ended := cmd.Wait(); ended != nil {
		return r, errors.Join(err, fmt.Errorf("wrk ended with %w: %s", ended, lastLine(out.Bytes())))
	}
	if err != nil {
		return r, err
	}
	return parseWrk(out.String())
}
