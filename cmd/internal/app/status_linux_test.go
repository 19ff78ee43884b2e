package app

import (
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/prefork-exporter/prefork_exporter/cmd/internal/api"
)

// askStatus returns the status, as a client has it.
func askStatus(t *testing.T, a *App) (s api.Status) {
	t.Helper()
	must(t, json.Unmarshal([]byte(ask(t, newClient(), "GET", a.url(statusPath)).body), &s))
	return s
}

// Of the blog there are files only: it is no target to look at, and its directory is told.
func TestTheStatusOfSeveralTargets(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer func() { _ = l.Close() }()
	m := newMaster(t)
	m.start()
	o := testOptions(t)
	files := t.TempDir()
	o.QueueAddresses = []string{l.Addr().String()}
	o.ConfigFile = configOf(t, m.target("shop"), fmt.Sprintf("{labels: {app: blog}, multiproc: {dirs: [%q]}}", files))
	a := startApp(t, o)

	queues := map[string][]string{"": {"tcp://" + l.Addr().String()}, "app=shop": {"tcp://" + m.address}} // by labels
	masters := map[string]int{"app=shop": m.cmd.Process.Pid}
	eventually(t, "the queue of each", func() bool {
		s := askStatus(t, a)
		got, pids := map[string][]string{}, map[string]int{}
		for _, target := range s.Targets {
			labels := strings.Join(labelPairs(target.Labels, "%s=%s"), ",")
			for _, q := range target.ListenQueues {
				got[labels] = append(got[labels], q.Listener)
			}
			if target.Master != nil {
				pids[labels] = target.Master.PID
			}
		}
		return len(s.Targets) == 2 && cmp.Equal(got, queues) && cmp.Equal(pids, masters)
	})

	directories := map[string]map[string]string{o.Directories[0].Path: {}, m.dir: {"app": "shop"}, files: {"app": "blog"}}
	eventually(t, "all directories", func() bool {
		got := map[string]map[string]string{}
		for _, d := range askStatus(t, a).MetricFiles.Directories {
			got[d.Path] = d.Labels
		}
		return cmp.Equal(got, directories)
	})
	for _, labels := range []map[string]string{nil, {"app": "shop"}} {
		if s := askStatus(t, a); !slices.ContainsFunc(s.Features, func(f api.Feature) bool { return maps.Equal(f.Labels, labels) }) {
			t.Errorf("no feature of %v: %+v", labels, s.Features)
		}
	}
}
