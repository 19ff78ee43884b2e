package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
)

// client talks to one server.
type client struct {
	http.Client
	once bool // a connection serves one request: the server closes it without saying so
}

// newClient returns a client of the server at an address, or at the path of a
// unix socket. Its connections end with the test.
func newClient(t *testing.T, network, address string) *client {
	t.Helper()
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, address)
		},
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &client{Client: http.Client{Transport: transport, Timeout: patience}}
}

// response is an answer, read whole.
type response struct {
	status      int
	contentType string
	body        []byte
}

func (c *client) do(method, path string) (response, error) {
	req, err := http.NewRequest(method, "http://localhost"+path, nil)
	if err != nil {
		return response{}, err
	}
	req.Close = c.once
	resp, err := c.Do(req)
	if err != nil {
		return response{}, err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	return response{resp.StatusCode, resp.Header.Get("Content-Type"), body}, err
}

// get returns the body of a page that must be there.
func (c *client) get(path string) (response, error) {
	r, err := c.do(http.MethodGet, path)
	if err == nil && r.status != http.StatusOK {
		err = fmt.Errorf("GET %s: status %d: %s", path, r.status, r.body)
	}
	return r, err
}

// awaitPage waits until the server p answers with a page.
func (c *client) awaitPage(t *testing.T, p *process, path string) {
	t.Helper()
	awaitNil(t, "an answer to "+path, func() error {
		if !p.running() {
			t.Fatalf("%s ended before it served", p.cmd.Args)
		}
		_, err := c.get(path)
		return err
	})
}
