package api

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
)

// forwarded is what a proxy adds.
func forwarded(name string) http.Header {
	h := http.Header{}
	h.Set(name, "203.0.113.1")
	return h
}

func TestWhoMaySeeIt(t *testing.T) {
	tcp := func(s string) net.Addr { return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(s)) }
	socket := &net.UnixAddr{Name: "/run/a.sock", Net: "unix"}
	const noLoopback, noHost = "the connection is not over the loopback", "neither an address nor localhost"
	signed := func(is bool) func(*http.Request) bool { return func(*http.Request) bool { return is } }
	for name, tc := range map[string]struct {
		local        net.Addr
		remote, host string
		header       http.Header
		access       Access
		fault        string // empty: it may
	}{
		"a user of this machine":           {tcp("127.0.0.1:10142"), "127.0.0.1:5000", "localhost:10142", nil, Access{}, ""},
		"another address of the loopback":  {tcp("127.0.1.1:10142"), "127.0.0.1:5000", "127.0.1.1:10142", nil, Access{}, ""},
		"the loopback of IPv6":             {tcp("[::1]:10142"), "[::1]:5000", "[::1]:10142", nil, Access{}, ""},
		"IPv4 in IPv6":                     {tcp("[::ffff:127.0.0.1]:1"), "[::ffff:127.0.0.1]:5", "127.0.0.1", nil, Access{}, ""},
		"a host that another has":          {tcp("127.0.0.1:1"), "127.0.0.1:5", "10.0.0.1:1", nil, Access{}, ""},
		"HTTP/1.0 without a host":          {tcp("127.0.0.1:1"), "127.0.0.1:5", "", nil, Access{}, ""},
		"an address without a port":        {tcp("[::1]:1"), "[::1]:5", "[::1]", nil, Access{}, ""},
		"a name below localhost":           {tcp("127.0.0.1:1"), "127.0.0.1:5", "App.LocalHost.", nil, Access{}, ""},
		"a unix socket, whatever the host": {socket, "@", "example.com", nil, Access{}, ""},

		"another machine":                       {tcp("10.0.0.1:10142"), "10.0.0.2:5000", "10.0.0.1:10142", nil, Access{}, noLoopback},
		"this machine by its outer address":     {tcp("10.0.0.1:10142"), "10.0.0.1:5000", "10.0.0.1:10142", nil, Access{}, noLoopback},
		"this machine, says the host":           {tcp("10.0.0.1:10142"), "10.0.0.2:5000", "localhost", nil, Access{}, noLoopback},
		"another machine, IPv6":                 {tcp("[2001:db8::1]:1"), "[2001:db8::2]:5", "[2001:db8::1]", nil, Access{}, noLoopback},
		"packets that are routed here":          {tcp("127.0.0.1:1"), "10.0.0.2:5000", "localhost", nil, Access{}, noLoopback},
		"from the loopback to elsewhere":        {tcp("10.0.0.1:1"), "127.0.0.1:5", "10.0.0.1", nil, Access{}, noLoopback},
		"no connection":                         {nil, "127.0.0.1:5", "localhost", nil, Access{}, "the connection is not known"},
		"a name that was turned to us":          {tcp("127.0.0.1:10142"), "127.0.0.1:5000", "evil.example:10142", nil, Access{}, noHost},
		"a name that only looks like localhost": {tcp("127.0.0.1:1"), "127.0.0.1:5", "localhost.evil.example", nil, Access{}, noHost},
		"a name that ends like localhost":       {tcp("127.0.0.1:1"), "127.0.0.1:5", "evillocalhost", nil, Access{}, noHost},
		"a proxy: X-Forwarded-For":              {tcp("127.0.0.1:1"), "127.0.0.1:5", "localhost", forwarded("X-Forwarded-For"), Access{}, "(X-Forwarded-For)"},
		"a proxy: X-Forwarded-Host":             {tcp("127.0.0.1:1"), "127.0.0.1:5", "localhost", forwarded("X-Forwarded-Host"), Access{}, "(X-Forwarded-Host)"},
		"a proxy: Forwarded":                    {tcp("127.0.0.1:1"), "127.0.0.1:5", "localhost", forwarded("Forwarded"), Access{}, "(Forwarded)"},
		"a proxy: Via":                          {tcp("127.0.0.1:1"), "127.0.0.1:5", "localhost", forwarded("Via"), Access{}, "(Via)"},
		"a proxy: X-Real-IP":                    {tcp("127.0.0.1:1"), "127.0.0.1:5", "localhost", forwarded("X-Real-IP"), Access{}, "(X-Real-Ip)"},
		"a proxy behind a unix socket":          {socket, "@", "localhost", forwarded("X-Forwarded-For"), Access{}, "(X-Forwarded-For)"},

		"everybody, says a flag":            {tcp("10.0.0.1:1"), "10.0.0.2:5", "evil.example", forwarded("Via"), Access{Everybody: true}, ""},
		"who is authenticated":              {tcp("10.0.0.1:1"), "10.0.0.2:5", "a.example", forwarded("Via"), Access{Authenticated: signed(true)}, ""},
		"who is not authenticated":          {tcp("10.0.0.1:1"), "10.0.0.2:5", "a.example", nil, Access{Authenticated: signed(false)}, noLoopback},
		"who is not, but is on the machine": {tcp("127.0.0.1:1"), "127.0.0.1:5", "localhost", nil, Access{Authenticated: signed(false)}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequest("GET", "/", nil)
			r.RemoteAddr, r.Host = tc.remote, tc.host
			if tc.header != nil {
				r.Header = tc.header
			}
			if tc.local != nil {
				r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, tc.local))
			}
			w := httptest.NewRecorder()
			tc.access.Protect(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("secret")) })).ServeHTTP(w, r)
			body := w.Body.String()
			if tc.fault == "" {
				if w.Code != http.StatusOK || body != "secret" {
					t.Errorf("%d %s, want that it may", w.Code, body)
				}
				return
			}
			if w.Code != http.StatusForbidden || strings.Contains(body, "secret") || !strings.Contains(body, tc.fault) ||
				!strings.Contains(body, "--web.enable-status") {
				t.Errorf("%d %s, want 403, %q and what to do", w.Code, body, tc.fault)
			}
		})
	}
}
