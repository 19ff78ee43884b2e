package app

import (
	"net/http"
	"os"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/prefork-exporter/prefork_exporter/cmd/internal/api"
	"github.com/prefork-exporter/prefork_exporter/collector"
)

// newStatus returns the handler of the status, for those who may see it. The metrics have
// been set up.
func (a *App) newStatus() (http.Handler, error) {
	status := api.NewStatus(api.StatusOptions{
		Log: a.log, Set: a.set, Targets: a.statusTargets, Directories: a.statusDirectories, MaxRequests: a.o.MaxRequests,
		Version: Version(), PID: os.Getpid(), Started: a.began, Now: time.Now,
	})
	if !a.o.DisableCompression {
		var err error
		if status, err = collector.Compressed(status); err != nil {
			return nil, err
		}
	}
	return api.Access{Everybody: a.o.EnableStatus, Authenticated: a.authenticated}.Protect(status), nil
}

// statusTargets returns the targets that the status is of.
func (a *App) statusTargets() (all []api.Watched) {
	for _, w := range a.observed() {
		all = append(all, api.Watched{Labels: w.labels, Source: w.knower()})
	}
	return all
}

// statusDirectories returns the directories that are merged, of all targets.
func (a *App) statusDirectories() (all []api.Directory) {
	a.reloading.Lock()
	defer a.reloading.Unlock()
	for _, s := range a.sources() {
		all = append(all, api.Directory{Path: s.Path, Labels: s.Labels})
	}
	return all
}

// authenticated says whether the web server has made sure who has sent the request: by a
// certificate that it has verified, or by a password. It asks every request for that when
// its file has users, which it reads anew for each.
func (a *App) authenticated(r *http.Request) bool {
	if r.TLS != nil && len(r.TLS.VerifiedChains) > 0 {
		return true
	}
	name, _, ok := r.BasicAuth()
	return ok && a.hasUser(name)
}

// hasUser says whether the web server asks for passwords and lets that user in by one.
func (a *App) hasUser(name string) bool {
	if a.o.WebConfigFile == "" {
		return false
	}
	data, err := os.ReadFile(a.o.WebConfigFile)
	if err != nil {
		return false
	}
	var file struct {
		Users map[string]string `yaml:"basic_auth_users"`
	}
	if yaml.Unmarshal(data, &file) != nil {
		return false
	}
	_, ok := file.Users[name]
	return ok
}
