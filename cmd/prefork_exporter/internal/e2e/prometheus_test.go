package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/url"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// startPrometheus starts a Prometheus that scrapes the exporter every second.
func startPrometheus(t *testing.T, e *exporter) *server {
	t.Helper()
	need(t, peer{"/usr/bin/prometheus", "prometheus"})
	dir, address := t.TempDir(), freeAddress(t)
	writeFile(t, dir, "prometheus.yml", []byte(`
global: {scrape_interval: 1s, scrape_timeout: 1s}
scrape_configs:
  - job_name: prefork
    static_configs: [{targets: ['`+e.address+`']}]
`))
	cmd := exec.Command("/usr/bin/prometheus", "--config.file="+filepath.Join(dir, "prometheus.yml"),
		"--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+address)
	s := startServer(t, address, cmd)
	s.awaitPage(t, s.process, "/-/ready")
	return s
}

// query returns the value of an expression, as the API writes it, or "" if it has none.
func (s *server) query(t *testing.T, expression string) string {
	t.Helper()
	r, err := s.get("/api/v1/query?query=" + url.QueryEscape(expression))
	must(t, err)
	var answer struct {
		Data struct {
			Result []struct {
				Value [2]any // time and value
			}
		}
	}
	must(t, json.Unmarshal(r.body, &answer))
	if len(answer.Data.Result) != 1 {
		return ""
	}
	return fmt.Sprint(answer.Data.Result[0].Value[1])
}

func TestPrometheusStoresWhatWasSent(t *testing.T) {
	dir := t.TempDir()
	s := startGunicorn(t, dir, "app")
	e := startExporter(t, dir)
	p := startPrometheus(t, e)
	requests := plan(200)
	s.send(t, requests)

	for expression, want := range map[string]string{
		"up":                             "1",
		"prefork_up":                     "1",
		"sum(app_requests_total)":        fmt.Sprint(len(requests)),
		"sum(app_request_seconds_count)": fmt.Sprint(len(requests)),
		`sum(app_request_seconds_bucket{le="+Inf"})`:       fmt.Sprint(len(requests)),
		`count({__name__="app_last_min_seconds", pid=""})`: "1",
	} {
		await(t, fmt.Sprintf("%s to be %s", expression, want), func() bool { return p.query(t, expression) == want })
	}
}

func TestPromtoolAcceptsOurFamilies(t *testing.T) {
	need(t, peer{"/usr/bin/promtool", "prometheus"})
	dir := t.TempDir()
	writeFile(t, dir, "counter_1.db", fileBytes(jobs("mail", 3)))
	writeFile(t, dir, "counter_2.db", []byte("no metric file"))
	e := startExporter(t, dir)
	r, err := e.get("/metrics")
	must(t, err)
	var own strings.Builder
	for line := range strings.Lines(string(r.body)) {
		if name := strings.TrimPrefix(strings.TrimPrefix(line, "# HELP "), "# TYPE "); strings.HasPrefix(name, ownPrefix) {
			own.WriteString(line)
		}
	}
	if own.Len() == 0 {
		t.Fatalf("no family of our own in:\n%s", r.body)
	}
	cmd := exec.Command("/usr/bin/promtool", "check", "metrics")
	cmd.Stdin = strings.NewReader(own.String())
	if out, err := cmd.CombinedOutput(); err != nil || len(bytes.TrimSpace(out)) > 0 {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
}
