package main

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/spf13/pflag"

	"github.com/prefork-exporter/prefork_exporter/cmd/internal/app"
)

// settled returns the settings that arguments and environment make.
func settled(t *testing.T, env environment, args ...string) *settings {
	t.Helper()
	s, flags := newSettings(), newFlagSet()
	for _, g := range s.groups {
		flags.AddFlagSet(g.flags)
	}
	if err := flags.Parse(args); err != nil {
		t.Fatal(err)
	}
	if err := s.complete(flags, env); err != nil {
		t.Fatal(err)
	}
	return s
}

func allFlags(s *settings) []*pflag.Flag {
	var all []*pflag.Flag
	for _, g := range s.groups {
		g.flags.VisitAll(func(f *pflag.Flag) { all = append(all, f) })
	}
	return all
}

func TestFlagsAndTwinsBecomeOptions(t *testing.T) {
	all := []string{"cgroup", "exporter", "listen", "multiproc", "restart", "worker"}
	for name, tc := range map[string]struct {
		env  environment
		args []string
		want func(o *app.Options)
	}{
		"nothing": {nil, nil, func(*app.Options) {}},
		"an address": {
			nil, []string{"--web.listen-address=:1"}, func(o *app.Options) { o.Listen = []string{":1"} },
		},
		"addresses": {
			nil,
			[]string{"--web.listen-address=:1", "--web.listen-address", "unix:/a,b"},
			func(o *app.Options) { o.Listen = []string{":1", "unix:/a,b"} },
		},
		"addresses' twin": {
			environment{"PREFORK_EXPORTER_WEB_LISTEN_ADDRESS": ":1,unix:/a"},
			nil,
			func(o *app.Options) { o.Listen = []string{":1", "unix:/a"} },
		},
		"the flag before it": {
			environment{"PREFORK_EXPORTER_WEB_LISTEN_ADDRESS": ":1,:2"},
			[]string{"--web.listen-address=:3"},
			func(o *app.Options) { o.Listen = []string{":3"} },
		},
		"a directory": {
			nil,
			[]string{"--multiproc.dir=/a"},
			func(o *app.Options) { o.Directories = []app.Directory{{Path: "/a"}} },
		},
		"directories, labels": {
			nil, []string{"--multiproc.dir=/a=x=1,y=2", "--multiproc.dir=/b"}, directories("/a=x=1,y=2", "/b"),
		},
		"directories' twin": {
			environment{"PREFORK_EXPORTER_MULTIPROC_DIR": "/a=x=1,y=2,/b,c=z=3"},
			nil,
			directories("/a=x=1,y=2", "/b", "c=z=3"),
		},
		"the flag alone": {
			environment{"PREFORK_EXPORTER_MULTIPROC_DIR": "/b"},
			[]string{"--multiproc.dir=/a"},
			directories("/a"),
		},
		"a number": {
			environment{"PREFORK_EXPORTER_WEB_MAX_REQUESTS": "7"},
			nil,
			func(o *app.Options) { o.MaxRequests = 7 },
		},
		"the flag's number": {
			environment{"PREFORK_EXPORTER_WEB_MAX_REQUESTS": "7"},
			[]string{"--web.max-requests=8"},
			func(o *app.Options) { o.MaxRequests = 8 },
		},
		"the default by flag": {
			environment{"PREFORK_EXPORTER_WEB_MAX_REQUESTS": "7"},
			[]string{"--web.max-requests=40"},
			func(*app.Options) {},
		},
		"an empty variable": {
			environment(newEnvironment([]string{"PREFORK_EXPORTER_WEB_MAX_REQUESTS="})),
			nil,
			func(*app.Options) {},
		},
		"a duration": {
			nil, []string{"--web.timeout-offset=1s"}, func(o *app.Options) { o.TimeoutOffset = 1e9 },
		},
		"a switch": {
			environment{"PREFORK_EXPORTER_WEB_ENABLE_LIFECYCLE": "true"},
			nil,
			func(o *app.Options) { o.EnableLifecycle = true },
		},
		"another switch": {
			nil, []string{"--web.enable-status"}, func(o *app.Options) { o.EnableStatus = true },
		},
		"a switch off again": {
			environment{"PREFORK_EXPORTER_WEB_ENABLE_LIFECYCLE": "true"},
			[]string{"--web.enable-lifecycle=false"},
			func(*app.Options) {},
		},

		"a collector off":           {nil, []string{"--no-collector.exporter"}, collectors("cgroup", "listen", "multiproc", "restart", "worker")},
		"a collector off, by value": {nil, []string{"--collector.exporter=false"}, collectors("cgroup", "listen", "multiproc", "restart", "worker")},
		"the last one wins": {
			nil, []string{"--no-collector.exporter", "--collector.exporter"}, collectors(all...),
		},
		"the last one wins, off": {
			nil, []string{"--collector.exporter", "--no-collector.exporter"}, collectors("cgroup", "listen", "multiproc", "restart", "worker"),
		},
		"not off": {nil, []string{"--no-collector.exporter=false"}, collectors(all...)},
		"a collector's twin": {
			environment{"PREFORK_EXPORTER_COLLECTOR_EXPORTER": "false"}, nil, collectors("cgroup", "listen", "multiproc", "restart", "worker"),
		},
		"a twin beaten by a negation": {
			environment{"PREFORK_EXPORTER_COLLECTOR_EXPORTER": "true"},
			[]string{"--no-collector.exporter"},
			collectors("cgroup", "listen", "multiproc", "restart", "worker"),
		},
		"only what is asked for": {
			nil, []string{"--collector.disable-defaults", "--collector.multiproc"}, collectors("multiproc"),
		},
		"only what a twin asks for": {
			environment{"PREFORK_EXPORTER_COLLECTOR_DISABLE_DEFAULTS": "true", "PREFORK_EXPORTER_COLLECTOR_MULTIPROC": "true"},
			nil,
			collectors("multiproc"),
		},
		"no collector": {nil, []string{"--collector.disable-defaults"}, collectors()},

		"an earlier directory": {
			environment{"PROMETHEUS_MULTIPROC_DIR": "/a=b,c"},
			nil,
			func(o *app.Options) { o.AmbientDirectory = "/a=b,c" },
		},
		"its old name": {
			environment{"prometheus_multiproc_dir": "/b"},
			nil,
			func(o *app.Options) { o.AmbientDirectory = "/b" },
		},
		"its new name first": {
			environment{"PROMETHEUS_MULTIPROC_DIR": "/a", "prometheus_multiproc_dir": "/b"},
			nil,
			func(o *app.Options) { o.AmbientDirectory = "/a" },
		},
		"an earlier port": {
			environment{"PROMETHEUS_METRICS_PORT": "9091"},
			nil,
			func(o *app.Options) { o.Listen = []string{":9091"} },
		},
		"an earlier address": {
			environment{"PROMETHEUS_BIND_ADDRESS": "127.0.0.1"},
			nil,
			func(o *app.Options) { o.Listen = []string{"127.0.0.1:10142"} },
		},
		"both": {
			environment{"PROMETHEUS_BIND_ADDRESS": "::1", "PROMETHEUS_METRICS_PORT": "9091"},
			nil,
			func(o *app.Options) { o.Listen = []string{"[::1]:9091"} },
		},
		"an address in brackets": {
			environment{"PROMETHEUS_BIND_ADDRESS": "[::1]"},
			nil,
			func(o *app.Options) { o.Listen = []string{"[::1]:10142"} },
		},
		"a flag before an earlier one": {
			environment{"PROMETHEUS_METRICS_PORT": "bad"},
			[]string{"--web.listen-address=:1"},
			func(o *app.Options) { o.Listen = []string{":1"} },
		},
		"a twin before an earlier one": {
			environment{"PROMETHEUS_METRICS_PORT": "9091", "PREFORK_EXPORTER_WEB_LISTEN_ADDRESS": ":1"},
			nil,
			func(o *app.Options) { o.Listen = []string{":1"} },
		},
		"state by flag": {
			environment{"STATE_DIRECTORY": "/s"},
			[]string{"--state.dir=/f"},
			func(o *app.Options) { o.StateDir = "/f" },
		},
		"state by twin": {
			environment{"STATE_DIRECTORY": "/s", "PREFORK_EXPORTER_STATE_DIR": "/t"},
			nil,
			func(o *app.Options) { o.StateDir = "/t" },
		},
		"state by systemd": {
			environment{"STATE_DIRECTORY": "/s:/s2", "XDG_STATE_HOME": "/x"},
			nil,
			func(o *app.Options) { o.StateDir = "/s" },
		},
		"state by XDG": {
			environment{"XDG_STATE_HOME": "/x", "HOME": "/h"},
			nil,
			func(o *app.Options) { o.StateDir, o.Home = "/x/prefork_exporter", "/h" },
		},
		"state by XDG, not relative": {
			environment{"XDG_STATE_HOME": "x", "HOME": "/h"},
			nil,
			func(o *app.Options) { o.StateDir, o.Home = "/h/.local/state/prefork_exporter", "/h" },
		},
		"state at home": {
			environment{"HOME": "/h"},
			nil,
			func(o *app.Options) { o.StateDir, o.Home = "/h/.local/state/prefork_exporter", "/h" },
		},
		"limits": {nil, []string{"--multiproc.max-files=1", "--multiproc.max-file-bytes=2", "--multiproc.max-file-series=3",
			"--multiproc.max-series=4", "--multiproc.max-label-bytes=5", "--multiproc.merge-timeout=6s", "--multiproc.liveness=off"},
			func(o *app.Options) {
				l := &o.Limits
				l.Files, l.FileBytes, l.FileSeries, l.Series, l.LabelBytes = 1, 2, 3, 4, 5
				o.MergeTimeout, o.Liveness = 6e9, "off"
			}},
		"listeners": {
			nil, []string{"--listen.address=:8000", "--listen.address=unix:/a,b"}, func(o *app.Options) { o.QueueAddresses = []string{":8000", "unix:/a,b"} },
		},
		"listeners' twin": {
			environment{"PREFORK_EXPORTER_LISTEN_ADDRESS": ":8000,unix:/a"}, nil,
			func(o *app.Options) { o.QueueAddresses = []string{":8000", "unix:/a"} },
		},
		"a pidfile": {nil, []string{"--master.pidfile=/run/a.pid", "--master.kind=gunicorn", "--master.timeout=30s"}, func(o *app.Options) {
			o.Master = app.Master{PIDFile: "/run/a.pid", Kind: "gunicorn", Timeout: 30e9}
		}},
		"a process": {nil, []string{"--master.process=a, b", "--master.user=www", "--master.cgroup=/a"}, func(o *app.Options) {
			o.Master = app.Master{Process: "a, b", User: "www", Cgroup: "/a"}
		}},
		"a pid's twin":   {environment{"PREFORK_EXPORTER_MASTER_PID": "7"}, nil, func(o *app.Options) { o.Master.PID = 7 }},
		"control groups": {nil, []string{"--path.cgroupfs=/c"}, func(o *app.Options) { o.CgroupFS = "/c" }},
		"control groups' twin": {
			environment{"PREFORK_EXPORTER_PATH_CGROUPFS": "/c"}, nil, func(o *app.Options) { o.CgroupFS = "/c" },
		},
		"the rest": {nil, []string{"--web.telemetry-path=/m", "--web.config.file=/w", "--web.systemd-socket", "--web.disable-compression",
			"--web.enable-pprof", "--config.file=/c", "--collector.timeout=7s", "--worker.pss-interval=0s"},
			func(o *app.Options) {
				o.TelemetryPath, o.WebConfigFile, o.ConfigFile, o.CollectorTimeout = "/m", "/w", "/c", 7e9
				o.SystemdSocket, o.DisableCompression, o.EnablePprof, o.PSSInterval = true, true, true, 0
			}},
	} {
		t.Run(name, func(t *testing.T) {
			want := app.DefaultOptions()
			want.Collectors = all
			tc.want(&want)
			got := settled(t, tc.env, tc.args...).options
			if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("options (-want +got):\n%s", diff)
			}
		})
	}
}

func collectors(names ...string) func(*app.Options) {
	return func(o *app.Options) { o.Collectors = names }
}

func directories(texts ...string) func(*app.Options) {
	return func(o *app.Options) {
		for _, text := range texts {
			d, _ := app.ParseDirectory(text)
			o.Directories = append(o.Directories, d)
		}
	}
}

func TestLogFlags(t *testing.T) {
	s := settled(t, environment{"PREFORK_EXPORTER_LOG_FORMAT": "json"}, "--log.level=debug")
	if s.level.String() != "debug" || s.format.String() != "json" {
		t.Errorf("level %s, format %s, want debug and json", s.level, s.format)
	}
}

func TestVariablesThatAreLikeTwins(t *testing.T) {
	s := settled(t, environment{
		"PREFORK_EXPORTER_MULTIPROC_DIRS":           "/a", // a misprint
		"PREFORK_EXPORTER_NO_COLLECTOR_EXPORTER":    "true",
		"PREFORK_EXPORTER_WEB_MAX_REQUESTS":         "1",
		"PREFORK_WORKER_ID":                         "1",
		"PREFORK_EXPORTER_PORT":                     "tcp://10.0.0.1:10142",
		"PREFORK_EXPORTER_PORT_10142_TCP":           "tcp://10.0.0.1:10142",
		"PREFORK_EXPORTER_PORT_10142_TCP_ADDR":      "10.0.0.1",
		"PREFORK_EXPORTER_SERVICE_HOST":             "10.0.0.1",
		"PREFORK_EXPORTER_SERVICE_PORT_METRICS":     "10142",
		"PREFORK_EXPORTER_CANARY_PORT_80_UDP_PROTO": "udp",
		"PREFORK_EXPORTER_CANARY_SERVICE_PORT":      "10142",
	})
	want := []string{"PREFORK_EXPORTER_MULTIPROC_DIRS", "PREFORK_EXPORTER_NO_COLLECTOR_EXPORTER"}
	if !slices.Equal(s.unknownVars, want) {
		t.Errorf("unknown variables %q, want %q", s.unknownVars, want)
	}
}

func TestFlagsHaveTwinsThatKubernetesDoesNotSet(t *testing.T) {
	seen := map[string]string{}
	for _, f := range allFlags(newSettings()) {
		name := twin(f.Name)
		if other, twice := seen[name]; twice {
			t.Errorf("--%s and --%s have the same twin", f.Name, other)
		}
		seen[name] = f.Name
		if !regexp.MustCompile(`^PREFORK_EXPORTER_[A-Z_]+$`).MatchString(name) || isFromKubernetes(name) {
			t.Errorf("--%s: twin %s", f.Name, name)
		}
		if strings.Contains(f.Usage, "`") && f.Value.Type() == "bool" {
			t.Errorf("--%s: a switch has no value to name", f.Name)
		}
	}
}

func TestEveryCollectorHasItsFlags(t *testing.T) {
	s := newSettings()
	flags := s.groups[3].flags
	for _, c := range app.Collectors() {
		if on, off := flags.Lookup("collector."+c.Name), flags.Lookup("no-collector."+c.Name); on == nil || off == nil {
			t.Errorf("collector %s: flags %v and %v, want both", c.Name, on, off)
		}
	}
}
