package app

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestOptionsThatCannotBe(t *testing.T) {
	dir := t.TempDir()
	for name, tc := range map[string]struct {
		change func(o *Options)
		want   string
	}{
		"the defaults":    {func(*Options) {}, ""},
		"an IPv6 address": {func(o *Options) { o.Listen = []string{"[::1]:80"} }, ""},
		"a free port twice": {
			func(o *Options) { o.Listen = []string{"127.0.0.1:0", "127.0.0.1:0"} }, "",
		},
		"an address without port": {
			func(o *Options) { o.Listen = []string{"localhost"} },
			`--web.listen-address: "localhost": want HOST:PORT or unix:/PATH`,
		},
		"a port that has a name": {
			func(o *Options) { o.Listen = []string{":http"} },
			`--web.listen-address: ":http": port "http": want a number from 0 to 65535`,
		},
		"a port that is too high": {
			func(o *Options) { o.Listen = []string{":65536"} },
			`--web.listen-address: ":65536": port "65536": want a number from 0 to 65535`,
		},
		"no address": {
			func(o *Options) { o.Listen = nil },
			"--web.listen-address: no address: want HOST:PORT or unix:/PATH",
		},
		"no address but systemd's": {func(o *Options) { o.Listen, o.SystemdSocket = nil, true }, ""},
		"an address twice": {
			func(o *Options) { o.Listen = []string{":80", ":80"} }, `--web.listen-address: ":80": given twice`,
		},
		"a socket": {func(o *Options) { o.Listen = []string{"unix:/run/a.sock"} }, ""},
		"a socket without directory": {
			func(o *Options) { o.Listen = []string{"unix:a.sock"} },
			`--web.listen-address: "unix:a.sock": want unix: and an absolute path`,
		},
		"an abstract socket": {
			func(o *Options) { o.Listen = []string{"unix:@a"} },
			`--web.listen-address: "unix:@a": want unix: and an absolute path`,
		},
		"a relative path": {
			func(o *Options) { o.TelemetryPath = "metrics" },
			`--web.telemetry-path: "metrics": want a plain path such as /metrics`,
		},
		"a path that is a pattern": {
			func(o *Options) { o.TelemetryPath = "/{x}" },
			`--web.telemetry-path: "/{x}": want a plain path such as /metrics`,
		},
		"a path that ends in a sign": {
			func(o *Options) { o.TelemetryPath = "/m/" },
			`--web.telemetry-path: "/m/": want a plain path such as /metrics`,
		},
		"a path of our own": {
			func(o *Options) { o.TelemetryPath = "/readyz" },
			`--web.telemetry-path: "/readyz": the exporter itself answers there`,
		},
		"the path of the status": {
			func(o *Options) { o.TelemetryPath = "/api/v1/status" },
			`--web.telemetry-path: "/api/v1/status": the exporter itself answers there`,
		},
		"a path below the profiles": {
			func(o *Options) { o.TelemetryPath = "/debug/pprof/x" },
			`--web.telemetry-path: "/debug/pprof/x": the exporter itself answers there`,
		},
		"the landing page's path": {func(o *Options) { o.TelemetryPath = "/" }, ""},
		"a negative offset": {
			func(o *Options) { o.TimeoutOffset = -1 }, "--web.timeout-offset: -1ns: want 0s or more",
		},
		"no offset": {func(o *Options) { o.TimeoutOffset = 0 }, ""},
		"no time for collectors": {
			func(o *Options) { o.CollectorTimeout = 0 }, "--collector.timeout: 0s: want more than 0s",
		},
		"memory that is read before it was": {
			func(o *Options) { o.PSSInterval = -1 }, "--worker.pss-interval: -1ns: want 0s, which is never, or more",
		},
		"no time for a merge": {
			func(o *Options) { o.MergeTimeout = 0 }, "--multiproc.merge-timeout: 0s: want more than 0s",
		},
		"any number of requests": {func(o *Options) { o.MaxRequests = 0 }, ""},
		"fewer requests than none": {
			func(o *Options) { o.MaxRequests = -1 },
			"--web.max-requests: -1: want 0, which is any number, or more",
		},
		"no files": {
			func(o *Options) { o.Limits.Files = 0 }, "--multiproc.max-files: 0: want 1 or more",
		},
		"no bytes": {
			func(o *Options) { o.Limits.FileBytes = 0 }, "--multiproc.max-file-bytes: 0: want 1 or more",
		},
		"no entries": {
			func(o *Options) { o.Limits.FileSeries = 0 }, "--multiproc.max-file-series: 0: want 1 or more",
		},
		"no series": {
			func(o *Options) { o.Limits.Series = -1 }, "--multiproc.max-series: -1: want 1 or more",
		},
		"no labels": {
			func(o *Options) { o.Limits.LabelBytes = 0 }, "--multiproc.max-label-bytes: 0: want 1 or more",
		},
		"proofs that nobody knows": {
			func(o *Options) { o.Liveness = "on" }, `--multiproc.liveness: "on": want auto or off`,
		},
		"liveness off": {func(o *Options) { o.Liveness = "off" }, ""},
		"a collector nobody knows": {
			func(o *Options) { o.Collectors = []string{"x"} },
			`unknown collector "x": want some of cgroup, exporter, listen, multiproc, restart, worker`,
		},
		"a listener without a port": {
			func(o *Options) { o.QueueAddresses = []string{":8000", "127.0.0.1"} },
			`--listen.address: "127.0.0.1": want IP:PORT, :PORT or unix:/PATH`,
		},
		"a listener by name": {
			func(o *Options) { o.QueueAddresses = []string{"localhost:8000"} },
			`--listen.address: "localhost:8000": want IP:PORT, :PORT or unix:/PATH`,
		},
		"control groups by a relative path": {
			func(o *Options) { o.CgroupFS = "sys/fs/cgroup" }, `--path.cgroupfs: "sys/fs/cgroup": want an absolute path`,
		},
		"control groups nowhere":   {func(o *Options) { o.CgroupFS = "" }, `--path.cgroupfs: "": want an absolute path`},
		"control groups elsewhere": {func(o *Options) { o.CgroupFS = "/host/cgroup" }, ""},
		"a directory twice": {
			func(o *Options) { o.Directories = []Directory{{Path: dir}, {Path: dir + "/."}} },
			"--multiproc.dir: " + dir + "/.: given twice",
		},
		"a directory without a name": {
			func(o *Options) { o.Directories = []Directory{{}} },
			"--multiproc.dir: no directory: want its path",
		},
	} {
		t.Run(name, func(t *testing.T) {
			o := DefaultOptions()
			tc.change(&o)
			checkError(t, o.Validate(), tc.want)
		})
	}
}

func TestOptionsSocketNamesHaveALimit(t *testing.T) {
	o := DefaultOptions()
	for length, good := range map[int]bool{longestSocketPath: true, longestSocketPath + 1: false} {
		o.Listen = []string{"unix:/" + strings.Repeat("a", length-1)}
		if err := o.Validate(); (err == nil) != good {
			t.Errorf("a name of %d bytes: %v", length, err)
		}
	}
}

func TestDirectoriesAsFlagsSayThem(t *testing.T) {
	for in, tc := range map[string]struct {
		want Directory
		err  string
	}{
		"/a":                 {want: Directory{Path: "/a"}},
		"a b":                {want: Directory{Path: "a b"}},
		"/a=pool=web":        {want: Directory{"/a", map[string]string{"pool": "web"}}},
		"/a=pool=web,env=x":  {want: Directory{"/a", map[string]string{"pool": "web", "env": "x"}}},
		"/a=pool=a=b":        {want: Directory{"/a", map[string]string{"pool": "a=b"}}},
		"":                   {err: "no directory: want its path"},
		"=pool=web":          {err: "no directory: want its path"},
		"/a\x00":             {err: `directory "/a\x00": a zero byte in its name`},
		"/a,/b":              {err: `"/a,/b": a comma: repeat the flag for each directory`},
		"/a=":                {err: `"/a=": want DIR or DIR=label=value[,label=value]`},
		"/a=web":             {err: `"/a=web": want DIR or DIR=label=value[,label=value]`},
		"/a=pool=web,env":    {err: `"/a=pool=web,env": want DIR or DIR=label=value[,label=value]`},
		"/a=pool=x,pool=y":   {err: `label "pool": given twice`},
		"/a=pool=":           {err: `label "pool": no value`},
		"/a=1a=x":            {err: `label "1a": want letters, digits and underscores, no digit first`},
		"/a=a-b=x":           {err: `label "a-b": want letters, digits and underscores, no digit first`},
		"/a=__a=x":           {err: `label "__a": names that begin with __ are Prometheus's own`},
		"/a=le=x":            {err: `label "le": the series have that label themselves`},
		"/a=pid=x":           {err: `label "pid": the series have that label themselves`},
		"/a=worker_id=x":     {err: `label "worker_id": the series have that label themselves`},
		"/a=pool=\xff":       {err: `label "pool": the value is not UTF-8`},
		"/a=le=x,a-b=x,ok=x": {err: `label "a-b": want letters, digits and underscores, no digit first`},
	} {
		t.Run(in, func(t *testing.T) {
			got, err := ParseDirectory(in)
			checkError(t, err, tc.err)
			if err != nil {
				return
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("directory (-want +got):\n%s", diff)
			}
			if again, err := ParseDirectory(got.String()); err != nil || !cmp.Equal(again, got) {
				t.Errorf("ParseDirectory(%q) = %v, %v: want it as it was", got, again, err)
			}
		})
	}
}
