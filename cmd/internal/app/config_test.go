package app

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/prefork-exporter/prefork_exporter/multiproc"
)

func TestConfigErrorsNameThePlace(t *testing.T) {
	for name, tc := range map[string]struct{ in, want string }{
		"nothing":             {"", ""},
		"a comment":           {"# later\n", ""},
		"keys without values": {"targets:\nmultiproc:\n", ""},
		"no mapping":          {"- a\n", "c.yml:1: want keys and values"},
		"a syntax error":      {"targets: [\n", "c.yml:1: did not find expected node content"},
		"a tab": {
			"targets:\n\t- name: a\n", "c.yml:2: found character that cannot start any token",
		},
		"two documents": {
			"targets:\n---\ntargets:\n", "c.yml: more than one document: want one",
		},
		"an unknown key": {
			"targts: []\n", `c.yml:1: unknown key "targts": want multiproc or targets`,
		},
		"an unknown key further below": {
			"targets:\n- multiproc: {dirs: [/a]}\n  label: {}\n",
			`c.yml:3: targets[0]: unknown key "label": want labels, listen, master, multiproc or name`,
		},
		"a key twice":              {"targets: []\ntargets: []\n", `c.yml:2: key "targets": given twice`},
		"a key that is a list":     {"[a]: b\n", "c.yml:1: want a plain key"},
		"targets that are no list": {"targets: {}\n", "c.yml:1: targets: want a list"},
		"a target that is a text":  {"targets:\n- shop\n", "c.yml:2: targets[0]: want keys and values"},
		"a target without directory": {
			"targets:\n- name: shop\n", "c.yml:2: targets[0]: nothing to watch: want multiproc.dirs, master or listen",
		},
		"a name that is a list": {"targets:\n- name: [a]\n", "c.yml:2: targets[0].name: want a text"},
		"a name that is empty": {
			"targets:\n- {name: '', multiproc: {dirs: [/a]}}\n",
			`c.yml:2: targets[0]: name "": want one that no other target has`,
		},
		"a name twice": {
			"targets:\n- {name: a, multiproc: {dirs: [/a]}}\n- name: a\n  multiproc: {dirs: [/b]}\n",
			`c.yml:3: targets[1]: name "a": want one that no other target has`,
		},
		"a directory without a name": {
			"targets:\n- multiproc:\n    dirs:\n    - ''\n",
			"c.yml:4: targets[0].multiproc.dirs[0]: no directory: want its path",
		},
		"a directory that is null": {
			"targets:\n- multiproc:\n    dirs: [~]\n", "c.yml:3: targets[0].multiproc.dirs[0]: want a text",
		},
		"a bad label name": {
			"targets:\n- labels:\n    a: b\n    le: x\n",
			`c.yml:4: targets[0].labels.le: the series have that label themselves`,
		},
		"a label without value": {
			"targets:\n- labels:\n    a: ''\n", "c.yml:3: targets[0].labels.a: no value",
		},
		"a label that is null": {
			"targets:\n- labels: {a: }\n", "c.yml:2: targets[0].labels.a: want a text",
		},
		"a metric without type": {
			"multiproc:\n  direct_file_store:\n    jobs:\n      help: Jobs.\n",
			`c.yml:4: multiproc.direct_file_store.jobs: type "": want counter, gauge, histogram or summary`,
		},
		"an aggregation that nobody knows": {
			"multiproc:\n  direct_file_store:\n    jobs: {type: gauge, aggregation: mean}\n",
			`c.yml:3: multiproc.direct_file_store.jobs: aggregation "mean": want sum, min, max, all or most_recent`,
		},
		"buckets of a counter": {
			"multiproc:\n  direct_file_store:\n    jobs: {type: counter, buckets: [1]}\n",
			"c.yml:3: multiproc.direct_file_store.jobs: buckets of a counter: only a histogram has them",
		},
		"a bucket that is no number": {
			"multiproc:\n  direct_file_store:\n    t:\n      type: histogram\n      buckets: [1, two]\n",
			"c.yml:5: multiproc.direct_file_store.t.buckets[1]: want a number",
		},
		"a bucket that is not a number at all": {
			"multiproc:\n  direct_file_store:\n    t: {type: histogram, buckets: [.nan]}\n",
			"c.yml:3: multiproc.direct_file_store.t.buckets[0]: want a number",
		},
		"an unknown key of a metric": {
			"multiproc:\n  direct_file_store:\n    t: {kind: gauge}\n",
			`c.yml:3: multiproc.direct_file_store.t: unknown key "kind": want aggregation, buckets, help or type`,
		},
		"a metric's name that cannot be": {
			"multiproc:\n  direct_file_store:\n    a-b: {type: gauge}\n",
			"c.yml:3: multiproc.direct_file_store.a-b: want a metric's name: letters, digits, underscores and colons, no digit first",
		},
		"a master that is a text": {
			"targets:\n- master: a\n", "c.yml:2: targets[0].master: want keys and values",
		},
		"a master that nobody finds": {
			"targets:\n- master: {}\n", "c.yml:2: targets[0].master: no master: want pidfile, pid or process",
		},
		"a master found twice": {
			"targets:\n- master:\n    pidfile: /a\n    pid: 7\n", "c.yml:4: targets[0].master.pid: a pidfile is given, too: want one of them",
		},
		"a pid that is a word": {
			"targets:\n- master: {pid: seven}\n", `c.yml:2: targets[0].master.pid: "seven": want a whole number`,
		},
		"a timeout that is a number": {
			"targets:\n- master:\n    pid: 7\n    timeout: 30\n", `c.yml:4: targets[0].master.timeout: "30": want a duration such as 30s`,
		},
		"a kind that nobody knows": {
			"targets:\n- master: {pid: 7, kind: x}\n",
			`c.yml:2: targets[0].master.kind: "x": want gunicorn, uwsgi, unicorn, puma, php-fpm, sidekiq, generic`,
		},
		"a process that anybody may forge": {
			"targets:\n- master: {process: x}\n", "c.yml:2: targets[0].master.process: a command line can be forged: want a user or a cgroup, too",
		},
		"an unknown key of a master": {
			"targets:\n- master: {file: /a}\n",
			`c.yml:2: targets[0].master: unknown key "file": want cgroup, kind, pid, pidfile, process, timeout or user`,
		},
		"a listener that is none": {
			"targets:\n- listen:\n  - ':8000'\n  - localhost\n", `c.yml:4: targets[0].listen[1]: "localhost": want IP:PORT, :PORT or unix:/PATH`,
		},
		"a label of what is observed": {
			"targets:\n- labels: {state: a}\n  listen: [':80']\n",
			`c.yml:2: targets[0]: label "state": what is observed of a server has that label itself`,
		},
		"such a label, of files only": {"targets:\n- labels: {state: a}\n  multiproc: {dirs: [/a]}\n", ""},
		"a master only":               {"targets:\n- master: {pid: 7}\n", ""},
		"listeners only":              {"targets:\n- listen: [':80', 'unix:/a']\n", ""},
		"a merge key": {
			"targets:\n- <<: {name: a}\n",
			`c.yml:2: targets[0]: unknown key "<<": want labels, listen, master, multiproc or name`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parseConfig("c.yml", []byte(tc.in))
			checkError(t, err, tc.want)
		})
	}
}

func TestAConfigFileThatNeverEndsIsRefused(t *testing.T) {
	_, err := readConfig("/dev/zero")
	checkError(t, err, "read the config file: /dev/zero: more than 4194304 bytes: want a YAML file")
}

func TestConfigAsItIsMeant(t *testing.T) {
	c, err := parseConfig("/etc/prefork/c.yml", []byte(`
targets:
  - name: shop
    labels: {app: shop, version: 1.10}
    multiproc: {dirs: [/run/shop, "metrics=a,b"]}
  - labels: &blog {app: blog}
    multiproc: {dirs: [/run/blog]}
multiproc:
  direct_file_store:
    jobs_total: {type: counter, help: Jobs done.}
    depth: {type: gauge, aggregation: max}
    took_seconds: {type: histogram, buckets: [0.1, 1, 10]}
`))
	if err != nil {
		t.Fatal(err)
	}
	all, err := Options{}.targets(c)
	if err != nil {
		t.Fatal(err)
	}
	direct := map[string]multiproc.DirectMetric{
		"jobs_total":   {Type: "counter", Help: "Jobs done."},
		"depth":        {Type: "gauge", Aggregation: "max"},
		"took_seconds": {Type: "histogram", Buckets: []float64{0.1, 1, 10}},
	}
	shop := map[string]string{"app": "shop", "version": "1.10"} // as the file has it: no number
	want := []multiproc.Source{
		{Path: "/run/shop", Labels: shop, Direct: direct},
		{Path: "/etc/prefork/metrics=a,b", Labels: shop, Direct: direct},
		{Path: "/run/blog", Labels: map[string]string{"app": "blog"}, Direct: direct},
	}
	if diff := cmp.Diff(want, sources(all, c.direct)); diff != "" {
		t.Errorf("sources (-want +got):\n%s", diff)
	}
}

func TestConfigOfAnAlias(t *testing.T) {
	c, err := parseConfig("c.yml", []byte("targets:\n- labels: &a {app: x}\n  multiproc: {dirs: &d [/a]}\n- {name: b, labels: *a, multiproc: {dirs: *d}}\n"))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(c.targets[0].labels, c.targets[1].labels); diff != "" {
		t.Errorf("labels of the alias (-want +got):\n%s", diff)
	}
	_, err = Options{}.targets(c)
	checkError(t, err, "c.yml:3: targets[1].multiproc.dirs[0]: directory /a: given twice, at first by c.yml:3: targets[0].multiproc.dirs[0]")
}

func TestTargetsThatContradict(t *testing.T) {
	flags := []Directory{{Path: "/flag"}, {Path: "/pool", Labels: map[string]string{"pool": "a"}}}
	for name, tc := range map[string]struct{ in, want string }{
		"other labels": {"targets: [{labels: {app: x}, multiproc: {dirs: [/a]}}]", ""},
		"the labels of a target": {
			"targets:\n- {labels: {app: x}, multiproc: {dirs: [/a]}}\n- {labels: {app: x}, multiproc: {dirs: [/b]}}",
			`c.yml:3: targets[1]: labels {app="x"}: those of c.yml:2: targets[0], too: want labels that differ`,
		},
		"no labels, as the flags": {
			"targets: [{multiproc: {dirs: [/a]}}]",
			"c.yml:1: targets[0]: labels {}: those of --multiproc.dir, too: want labels that differ",
		},
		"the labels of a flag": {
			"targets: [{labels: {pool: a}, multiproc: {dirs: [/a]}}]",
			`c.yml:1: targets[0]: labels {pool="a"}: those of --multiproc.dir, too: want labels that differ`,
		},
		"labels that only look alike": {
			"targets:\n- {labels: {a: 'x\",b=\"y'}, multiproc: {dirs: [/a]}}\n- {labels: {a: x, b: y}, multiproc: {dirs: [/b]}}",
			"",
		},
		"two directories with the labels": {
			"targets: [{labels: {app: x}, multiproc: {dirs: [/a, /b]}}]", "",
		},
		"the directory of a flag": {
			"targets: [{labels: {app: x}, multiproc: {dirs: [/flag]}}]",
			"c.yml:1: targets[0].multiproc.dirs[0]: directory /flag: given twice, at first by --multiproc.dir",
		},
		"a directory under another spelling": {
			"targets: [{labels: {app: x}, multiproc: {dirs: [/a/../flag/]}}]",
			"c.yml:1: targets[0].multiproc.dirs[0]: directory /a/../flag/: given twice, at first by --multiproc.dir",
		},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := parseConfig("c.yml", []byte(tc.in))
			if err != nil {
				t.Fatal(err)
			}
			_, err = Options{Directories: flags}.targets(c)
			checkError(t, err, tc.want)
		})
	}
}

func TestConfigADirectoryBehindALinkIsTheSame(t *testing.T) {
	dir := t.TempDir()
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	o := DefaultOptions()
	o.Directories = []Directory{{Path: dir}, {Path: link}}
	checkError(t, o.Validate(), "--multiproc.dir: "+link+": given twice")
}

func TestDiscovery(t *testing.T) {
	home, empty := t.TempDir(), t.TempDir()
	usual := filepath.Join(home, ".gunicorn_prometheus")
	if err := os.Mkdir(usual, 0o700); err != nil {
		t.Fatal(err)
	}
	occupied := t.TempDir()
	writeFile(t, filepath.Join(occupied, ".gunicorn_prometheus"), "a file")
	flag, file := []Directory{{Path: "/flag"}}, "targets: [{labels: {a: b}, multiproc: {dirs: [/file]}}]"
	const none = "--multiproc.dir: no metric directory is known: give the flag, set PROMETHEUS_MULTIPROC_DIR, name a master (--master.pidfile), " +
		"or list targets in --config.file"
	for name, tc := range map[string]struct {
		o    Options
		file string
		want []string
		err  string
	}{
		"the flag is first": {
			o: Options{Directories: flag, AmbientDirectory: "/env", Home: home}, want: []string{"/flag"},
		},
		"the file stands beside it": {
			o:    Options{Directories: flag, AmbientDirectory: "/env"},
			file: file,
			want: []string{"/flag", "/file"},
		},
		"the file needs no other": {
			o: Options{AmbientDirectory: "/env", Home: home}, file: file, want: []string{"/file"},
		},
		"then the environment": {
			o: Options{AmbientDirectory: "/env", Home: home}, want: []string{"/env"},
		},
		"then the home": {o: Options{Home: home}, want: []string{usual}},
		"the environment's need not be": {
			o: Options{AmbientDirectory: "/nowhere/at/all"}, want: []string{"/nowhere/at/all"},
		},
		"the home's must be":             {o: Options{Home: empty}, err: none},
		"the home's must be a directory": {o: Options{Home: occupied}, err: none},
		"nothing":                        {err: none},
		"a file without targets":         {file: "multiproc: {}", err: none},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := parseConfig("c.yml", []byte(tc.file))
			if err != nil {
				t.Fatal(err)
			}
			all, err := tc.o.targets(c)
			checkError(t, err, tc.err)
			var got []string
			for _, s := range sources(all, nil) {
				got = append(got, s.Path)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("directories (-want +got):\n%s", diff)
			}
		})
	}
}
