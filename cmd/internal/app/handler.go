package app

import (
	"bytes"
	"fmt"
	"html/template"
	"io"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/prometheus/common/version"

	"github.com/prefork-exporter/prefork_exporter/collector"
)

const (
	healthyPath = "/-/healthy"
	readyPath   = "/-/ready"
	reloadPath  = "/-/reload"
	statusPath  = "/api/v1/status"
	pprofPath   = "/debug/pprof"
)

// aliases are the names that Kubernetes' users expect.
func aliases() map[string]string {
	return map[string]string{healthyPath: "/healthz", readyPath: "/readyz"}
}

func ownPaths() []string {
	return []string{healthyPath, readyPath, reloadPath, statusPath, aliases()[healthyPath], aliases()[readyPath]}
}

// newHandler routes requests. A method that a path does not know is a 405.
func (a *App) newHandler() (http.Handler, error) {
	metrics, err := a.newMetrics()
	if err != nil {
		return nil, err
	}
	if a.o.Supervisor != nil {
		metrics = a.supervision.noting(metrics)
	}
	status, err := a.newStatus()
	if err != nil {
		return nil, err
	}
	landing, err := a.newLanding()
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	if a.o.TelemetryPath == "/" {
		mux.Handle("GET /{$}", metrics)
	} else {
		mux.Handle("GET "+a.o.TelemetryPath, metrics)
		mux.Handle("GET /{$}", landing)
	}
	for _, path := range []string{healthyPath, aliases()[healthyPath]} {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) { answer(w, "healthy\n") })
	}
	for _, path := range []string{readyPath, aliases()[readyPath]} {
		mux.HandleFunc("GET "+path, a.serveReady)
	}
	mux.Handle("GET "+statusPath, status)
	mux.HandleFunc("POST "+reloadPath, a.serveReload)
	mux.HandleFunc("PUT "+reloadPath, a.serveReload)
	if a.o.EnablePprof {
		routePprof(mux)
	}
	return mux, nil
}

func (a *App) newMetrics() (http.Handler, error) {
	enabled, err := a.enabledCollectors()
	if err != nil {
		return nil, err
	}
	a.set = collector.NewSet(a.log, enabled, a.o.CollectorTimeout)
	return collector.NewHandler(a.log, a.set, collector.HandlerOptions{
		Observed:    a.shadowing(),
		MaxRequests: a.o.MaxRequests, TimeoutOffset: a.o.TimeoutOffset, DisableCompression: a.o.DisableCompression,
	})
}

// routePprof adds the profiles. They show paths, arguments and memory to
// whoever can connect: the flag that asks for them says so.
func routePprof(mux *http.ServeMux) {
	mux.HandleFunc("GET "+pprofPath+"/", pprof.Index)
	mux.HandleFunc("GET "+pprofPath+"/cmdline", pprof.Cmdline)
	mux.HandleFunc("GET "+pprofPath+"/profile", pprof.Profile)
	mux.HandleFunc("GET "+pprofPath+"/symbol", pprof.Symbol)
	mux.HandleFunc("POST "+pprofPath+"/symbol", pprof.Symbol) // so does go tool pprof
	mux.HandleFunc("GET "+pprofPath+"/trace", pprof.Trace)
}

func (a *App) serveReady(w http.ResponseWriter, _ *http.Request) {
	if !a.ready() {
		http.Error(w, "not ready: the first merge is not done", http.StatusServiceUnavailable)
		return
	}
	answer(w, "ready\n")
}

func answer(w http.ResponseWriter, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = io.WriteString(w, text)
}

// landingPage has all that it needs in itself.
const landingPage = `<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>prefork_exporter</title>
<style>
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 40rem; margin: 3rem auto; padding: 0 1rem; }
@media (prefers-color-scheme: dark) { body { background: #1b1b1b; color: #ddd; } a { color: #8ab4f8; } }
</style>
</head>
<body>
<h1>prefork_exporter</h1>
<p>Makes pre-fork servers observable. Version {{.Version}}.</p>
<ul>
{{- range .Links}}
<li><a href="{{.Path}}">{{.Text}}</a></li>
{{- end}}
</ul>
</body>
</html>
`

type link struct{ Path, Text string }

// newLanding renders the page once: it never changes.
func (a *App) newLanding() (http.Handler, error) {
	page, err := template.New("landing page").Parse(landingPage)
	if err != nil {
		return nil, fmt.Errorf("read the landing page: %w", err)
	}
	links := []link{{a.o.TelemetryPath, "Metrics"}, {statusPath, "Status"}, {healthyPath, "Health"}, {readyPath, "Readiness"}}
	if a.o.EnablePprof {
		links = append(links, link{pprofPath + "/", "Profiles"})
	}
	var html bytes.Buffer
	err = page.Execute(&html, struct {
		Version string
		Links   []link
	}{Version(), links})
	if err != nil {
		return nil, fmt.Errorf("write the landing page: %w", err)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		http.ServeContent(w, r, "index.html", time.Time{}, bytes.NewReader(html.Bytes()))
	}), nil
}

// Version returns the version that the program was built as.
func Version() string {
	if version.Version == "" {
		return "unknown"
	}
	return version.Version
}
