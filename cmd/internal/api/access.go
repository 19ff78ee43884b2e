package api

import (
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// Access says who may see what only the operator should: process ids, paths and deaths.
// Those who are authenticated may, and those who are on this machine. The zero value
// authenticates nobody.
type Access struct {
	// Everybody lets all see it who can connect: a flag says so.
	Everybody bool
	// Authenticated says whether the web server has made sure who has sent a request.
	// Nil: it never does.
	Authenticated func(r *http.Request) bool
}

// Protect is h for those who may see it. Others get a 403 that says why, and what to do.
func (a Access) Protect(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fault := a.fault(r)
		if fault == "" {
			h.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Cache-Control", "no-store")
		http.Error(w, "forbidden: "+fault+": this shows process ids, paths and deaths. Ask on this machine, at http://localhost or "+
			"a unix socket, or with a password or a certificate that --web.config.file asks for; or start with --web.enable-status",
			http.StatusForbidden)
	})
}

// fault says why the sender of a request may not see it; empty: it may.
func (a Access) fault(r *http.Request) string {
	if a.Everybody || a.Authenticated != nil && a.Authenticated(r) {
		return ""
	}
	return foreign(r)
}

// foreign says why a request may not have been sent by a user of this machine; empty: it
// was. The two ends of its connection tell, which nobody can forge:
//
//   - Both have to be the loopback: to 127.0.0.1 alone, packets may be routed.
//   - A proxy here would let in whom it serves. Most say that they are one.
//   - A page that a browser here shows may have a name that leads to the loopback (DNS
//     rebinding), which then is the host that it asks for; an address cannot be turned so.
//     A page with another host gets no answer to read, for none has a CORS header.
//
// No browser and no name leads to a unix socket, whose permissions say who may connect.
func foreign(r *http.Request) string {
	if name := proxyHeader(r.Header); name != "" {
		return "a proxy has sent the request on (" + name + ")"
	}
	local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if local == nil {
		return "the connection is not known"
	}
	if local.Network() == "unix" {
		return ""
	}
	if !isLoopback(local.String()) || !isLoopback(r.RemoteAddr) {
		return "the connection is not over the loopback"
	}
	if !isLocalHost(r.Host) {
		return "the host of the request is neither an address nor localhost"
	}
	return ""
}

// proxyHeader returns a header that proxies add; empty: there is none.
func proxyHeader(h http.Header) string {
	for name := range h {
		switch {
		case strings.HasPrefix(name, "X-Forwarded-"):
			return name
		case name == "Forwarded", name == "Via", name == "X-Real-Ip", name == "X-Client-Ip", name == "X-Original-Forwarded-For":
			return name
		}
	}
	return ""
}

// isLoopback says whether an address with a port is one of the loopback.
func isLoopback(address string) bool {
	a, err := netip.ParseAddrPort(address)
	return err == nil && a.Addr().IsLoopback()
}

// isLocalHost says whether no other page can have that host: it is an address, or reserved
// for this machine (RFC 6761). HTTP/1.0 may have none, and browsers do not speak that.
func isLocalHost(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), "."))
	if _, err := netip.ParseAddr(host); err == nil {
		return true
	}
	return host == "" || host == "localhost" || strings.HasSuffix(host, ".localhost")
}
