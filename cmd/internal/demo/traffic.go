// Package demo is what goes on around the workers of prefork_exporter demo: clients, and
// an operator. It promises nothing to other modules.
package demo

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// maxInFlight is how many requests wait for an answer at most: those that hang must not
// pile up.
const maxInFlight = 32

// MaxRate is as many requests a second as a demo needs.
const MaxRate = 1000

// NewClient returns a client that makes a connection for each request, as those of many
// users do, so that every worker gets its share. No request lasts longer than timeout.
func NewClient(timeout time.Duration) *http.Client {
	return &http.Client{Timeout: timeout, Transport: &http.Transport{DisableKeepAlives: true}}
}

// Traffic is requests to example workers, of all kinds that leave them as they are.
type Traffic struct {
	Client  *http.Client
	Workers string // their URL
	Rate    int    // requests a second, up to MaxRate; 0: none
}

// Sent counts requests by what has become of them. Those that ended with ctx do not count.
type Sent struct{ Answered, Lost int64 }

// Run sends requests until ctx is done, and waits for those on their way.
func (t *Traffic) Run(ctx context.Context) Sent {
	if t.Rate == 0 {
		<-ctx.Done()
		return Sent{}
	}
	tick := time.NewTicker(time.Second / time.Duration(t.Rate))
	defer tick.Stop()
	var answered, lost atomic.Int64
	var group sync.WaitGroup
	places := make(chan struct{}, maxInFlight)
	for n := 1; ; n++ {
		select {
		case <-tick.C:
		case <-ctx.Done():
			group.Wait()
			return Sent{answered.Load(), lost.Load()}
		}
		select {
		case places <- struct{}{}:
		default:
			continue // too many wait: this client does not even try
		}
		group.Go(func() {
			switch err := send(ctx, t.Client, t.Workers, nth(n)); {
			case err == nil:
				answered.Add(1)
			case ctx.Err() == nil:
				lost.Add(1)
			}
			<-places
		})
	}
}

// kind is one kind of request.
type kind struct {
	every        int // one of so many is
	method, path string
	body         int // bytes
}

// kinds are what clients ask for, the rarest last.
func kinds() []kind {
	return []kind{
		{1, http.MethodGet, "/fast", 0},
		{5, http.MethodGet, "/slow?seconds=0.2", 0},
		{8, http.MethodPost, "/echo", 20_000},
		{15, http.MethodGet, "/fail?status=404", 0},
		{25, http.MethodGet, "/handle", 0},
		{31, http.MethodGet, "/fail?status=500", 0},
		{47, http.MethodGet, "/slow?seconds=2", 0},
		{61, http.MethodPut, "/echo", 500_000},
		{83, http.MethodGet, "/fail?status=504", 0},
		{97, http.MethodGet, "/panic", 0},
	}
}

// nth returns of which kind the nth request is: the rarest whose turn it is.
func nth(n int) kind {
	var is kind
	for _, k := range kinds() {
		if n%k.every == 0 {
			is = k
		}
	}
	return is
}

// send sends a request, with its start as a proxy in front would note it. Any answer will
// do, read whole.
func send(ctx context.Context, c *http.Client, base string, k kind) error {
	req, err := http.NewRequestWithContext(ctx, k.method, base+k.path, strings.NewReader(strings.Repeat("x", k.body)))
	if err != nil {
		return fmt.Errorf("make a request: %w", err)
	}
	req.Header.Set("X-Request-Start", fmt.Sprintf("t=%.6f", float64(time.Now().UnixMicro())/1e6))
	resp, err := c.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	_, err = io.Copy(io.Discard, resp.Body)
	return err
}
