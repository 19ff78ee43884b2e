package app

import (
	"compress/gzip"
	"crypto/tls"
	"encoding/json"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prefork-exporter/prefork_exporter/cmd/internal/api"
)

func TestTheStatusOfASidecar(t *testing.T) {
	o := testOptions(t)
	writeCounter(t, o.Directories[0].Path, "jobs_total", 3)
	o.Directories[0].Labels = map[string]string{"app": "shop"}
	a := startApp(t, o)
	got := ask(t, newClient(), "GET", a.url(statusPath))
	if got.status != http.StatusOK || got.header.Get("Content-Type") != "application/json" {
		t.Fatalf("%d, %s: %s", got.status, got.header.Get("Content-Type"), got.body)
	}
	var s api.Status
	if err := json.Unmarshal([]byte(got.body), &s); err != nil {
		t.Fatal(err)
	}
	if s.Exporter.Version != Version() || len(s.Targets) != 1 || len(s.Errors) != 0 {
		t.Fatalf("%+v, want this exporter and one target", s)
	}
	if target := s.Targets[0]; target.Master != nil || target.Workers != nil {
		t.Errorf("master %+v and workers %+v, want that nobody knows", target.Master, target.Workers)
	}
	files := s.MetricFiles
	if files == nil || len(files.Directories) != 1 || files.Directories[0].Path != o.Directories[0].Path ||
		files.Directories[0].Labels["app"] != "shop" || files.Files == nil || *files.Files != 1 {
		t.Errorf("metric files %+v, want the one directory with one file", files)
	}
	if len(s.Features) == 0 {
		t.Error("no features")
	}
}

func TestTheStatusIsCompressedIfThatMayBe(t *testing.T) {
	o := testOptions(t)
	small := startApp(t, o)
	o.DisableCompression = true
	plain := startApp(t, o)
	for name, tc := range map[string]struct {
		app  *App
		want string
	}{"it may": {small, "gzip"}, "it may not": {plain, ""}} {
		t.Run(name, func(t *testing.T) {
			req, err := http.NewRequestWithContext(t.Context(), "GET", tc.app.url(statusPath), nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Accept-Encoding", "gzip") // or the client would do it unseen
			resp, err := newClient().Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = resp.Body.Close() }()
			if got := resp.Header.Get("Content-Encoding"); got != tc.want {
				t.Fatalf("Content-Encoding %q, want %q", got, tc.want)
			}
			body := io.Reader(resp.Body)
			if tc.want == "gzip" {
				if body, err = gzip.NewReader(body); err != nil {
					t.Fatal(err)
				}
			}
			if err := json.NewDecoder(body).Decode(new(api.Status)); err != nil {
				t.Error(err)
			}
		})
	}
}

// foreignHost makes a request of this machine one that only who is authenticated may make.
func foreignHost(t *testing.T, c *http.Client, url, user, password string) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = "exporter.example"
	if user != "" {
		req.SetBasicAuth(user, password)
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}

func TestWhoIsAuthenticatedMaySeeTheStatus(t *testing.T) {
	pool, tlsConfig := newCertificate(t)
	web := func(text string) string {
		file := filepath.Join(t.TempDir(), "web.yml")
		writeFile(t, file, text)
		return file
	}
	trusting := func(certificates ...tls.Certificate) *http.Client {
		c := newClient()
		c.Transport.(*http.Transport).TLSClientConfig = &tls.Config{RootCAs: pool, Certificates: certificates}
		return c
	}
	dir := certificateDir(t, tlsConfig)
	ours, err := tls.LoadX509KeyPair(filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	clients := "  client_ca_file: " + filepath.Join(dir, "cert.pem") + "\n  client_auth_type: "
	for name, tc := range map[string]struct {
		web            string
		everybody      bool
		client         *http.Client
		user, password string
		status         int
	}{
		"nobody is asked":                               {"", false, newClient(), "", "", 403},
		"nobody is asked, and everybody may":            {"", true, newClient(), "", "", 200},
		"nobody is asked, and who tells is not trusted": {"", false, newClient(), "u", "secret", 403},
		"a password":                            {web(userSecret), false, newClient(), "u", "secret", 200},
		"a wrong password":                      {web(userSecret), false, newClient(), "u", "guess", 401},
		"no password":                           {web(userSecret), false, newClient(), "", "", 401},
		"no users":                              {web("basic_auth_users: {}\n"), false, newClient(), "u", "secret", 403},
		"TLS alone tells nothing":               {web(tlsConfig), false, trusting(), "u", "secret", 403},
		"a certificate that was verified":       {web(tlsConfig + clients + "RequireAndVerifyClientCert\n"), false, trusting(ours), "", "", 200},
		"a certificate that anybody can make":   {web(tlsConfig + "  client_auth_type: RequireAnyClientCert\n"), false, trusting(ours), "", "", 403},
		"no certificate where one may be given": {web(tlsConfig + clients + "VerifyClientCertIfGiven\n"), false, trusting(), "", "", 403},
	} {
		t.Run(name, func(t *testing.T) {
			o := testOptions(t)
			o.Collectors, o.WebConfigFile, o.EnableStatus = []string{"exporter"}, tc.web, tc.everybody
			a := startApp(t, o)
			url := a.url(statusPath)
			if tc.client.Transport.(*http.Transport).TLSClientConfig != nil {
				url = strings.Replace(url, "http:", "https:", 1)
			}
			if got := foreignHost(t, tc.client, url, tc.user, tc.password); got != tc.status {
				t.Errorf("status %d, want %d", got, tc.status)
			}
		})
	}
}

// certificateDir returns where the certificate is that a configuration names.
func certificateDir(t *testing.T, config string) string {
	t.Helper()
	_, rest, ok := strings.Cut(config, "cert_file: ")
	if !ok {
		t.Fatalf("no cert_file in %q", config)
	}
	file, _, _ := strings.Cut(rest, "\n")
	return filepath.Dir(strings.Trim(file, `"' `))
}
