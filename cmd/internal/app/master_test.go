package app

import (
	"testing"
	"time"
)

func TestMastersThatCannotBe(t *testing.T) {
	root := Master{Process: "gunicorn", User: "0"}
	for name, tc := range map[string]struct {
		m       Master
		started bool
		want    string
	}{
		"none":               {Master{}, false, ""},
		"a pidfile":          {Master{PIDFile: "a"}, false, ""},
		"a pid":              {Master{PID: 1}, false, ""},
		"a process":          {root, false, ""},
		"a user by name":     {Master{Process: "a", User: "root"}, false, ""},
		"a control group":    {Master{Process: "a", Cgroup: "/a.slice"}, false, ""},
		"all that it says":   {Master{PIDFile: "a", Kind: "gunicorn", Timeout: time.Minute}, false, ""},
		"of what is started": {Master{Kind: "gunicorn", Timeout: time.Minute}, true, ""},

		"a pidfile and a pid":      {Master{PIDFile: "a", PID: 1}, false, "pid: a pidfile is given, too: want one of them"},
		"a pidfile and a process":  {Master{PIDFile: "a", Process: "b", User: "0"}, false, "process: a pidfile is given, too: want one of them"},
		"a pid and a process":      {Master{PID: 1, Process: "b", User: "0"}, false, "process: a pid is given, too: want one of them"},
		"a pid below zero":         {Master{PID: -1}, false, "pid: -1: want a process id"},
		"a zero byte":              {Master{PIDFile: "a\x00"}, false, "pidfile: a zero byte in its name"},
		"a user without a process": {Master{PIDFile: "a", User: "b"}, false, "user: no process: a user says which of those that match is meant"},
		"a cgroup without a process": {
			Master{Cgroup: "/b"}, false, "cgroup: no process: a control group says which of those that match is meant",
		},
		"a process that anybody may forge": {
			Master{Process: "a"}, false, "process: a command line can be forged: want a user or a cgroup, too",
		},
		"no regular expression": {
			Master{Process: "(", User: "0"}, false, "process: \"(\": want a regular expression: missing closing ): `(`",
		},
		"a user that nobody is": {
			Master{Process: "a", User: "nobody at all"}, false,
			`user: "nobody at all": want the name or the number of a user: user: unknown user nobody at all`,
		},
		"a cgroup without a slash": {Master{Process: "a", Cgroup: "a"}, false, `cgroup: "a": want a path such as /system.slice/shop.service`},
		"all control groups":       {Master{Process: "a", Cgroup: "/"}, false, `cgroup: "/": want a path such as /system.slice/shop.service`},
		"an unknown kind": {
			Master{PID: 1, Kind: "apache"}, false, `kind: "apache": want gunicorn, uwsgi, unicorn, puma, php-fpm, sidekiq, generic`,
		},
		"a kind of nobody":            {Master{Kind: "puma"}, false, "kind: no master: want a pidfile, a pid or a process, too"},
		"a timeout of nobody":         {Master{Timeout: 1}, false, "timeout: no master: want a pidfile, a pid or a process, too"},
		"a negative timeout":          {Master{PID: 1, Timeout: -time.Second}, false, "timeout: -1s: want 0s, which is unknown, or more"},
		"two masters":                 {Master{PIDFile: "a"}, true, "pidfile: not with a server that is started beside, which is the master"},
		"two masters, by pid":         {Master{PID: 1}, true, "pid: not with a server that is started beside, which is the master"},
		"two masters, by its process": {root, true, "process: not with a server that is started beside, which is the master"},
	} {
		t.Run(name, func(t *testing.T) {
			option, err := tc.m.problem(tc.started)
			got := ""
			if err != nil {
				got = option + ": " + err.Error()
			}
			if got != tc.want {
				t.Errorf("problem = %s, want %s", got, tc.want)
			}
			if err == nil && tc.m.given() {
				if _, err := tc.m.finder(); err != nil {
					t.Errorf("finder: %v", err)
				}
			}
		})
	}
}

func TestMastersOfTheFlags(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(o *Options)
		want   string
	}{
		"one":              {func(o *Options) { o.Master.PIDFile = "a" }, ""},
		"two":              {func(o *Options) { o.Master = Master{PIDFile: "a", PID: 1} }, "--master.pid: a pidfile is given, too: want one of them"},
		"a kind, with run": {func(o *Options) { o.Master.Kind, o.Wraps = "puma", true }, ""},
		"a pid, with run": {
			func(o *Options) { o.Master.PID, o.Wraps = 1, true }, "--master.pid: not with a server that is started beside, which is the master",
		},
		"a kind, with supervise":    {func(o *Options) { o.Master.Kind, o.Supervises = "puma", true }, "--master.kind: the supervisor is the master"},
		"a timeout, with supervise": {func(o *Options) { o.Master.Timeout, o.Supervises = 1, true }, "--master.timeout: the supervisor is the master"},
		"a pidfile, with supervise": {
			func(o *Options) { o.Master.PIDFile, o.Supervises = "a", true },
			"--master.pidfile: not with a server that is started beside, which is the master",
		},
	} {
		t.Run(name, func(t *testing.T) {
			o := testOptions(t)
			tc.change(&o)
			checkError(t, o.Validate(), tc.want)
		})
	}
}
