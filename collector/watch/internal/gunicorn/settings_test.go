package gunicorn

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// known returns the settings that are, by gunicorn's names and as Python prints them.
func known(s Settings) map[string]string {
	all := map[string]string{}
	add := func(name string, is bool, value string) {
		if is {
			all[name] = value
		}
	}
	number := func(name string, n Setting[int]) { add(name, n.Known, strconv.Itoa(n.Value)) }
	seconds := func(name string, d Setting[time.Duration]) {
		add(name, d.Known, strconv.Itoa(int(d.Value/time.Second)))
	}
	seconds("timeout", s.Timeout)
	seconds("graceful_timeout", s.GracefulTimeout)
	number("workers", s.Workers)
	number("threads", s.Threads)
	number("max_requests", s.MaxRequests)
	number("max_requests_jitter", s.MaxRequestsJitter)
	add("worker_class", s.WorkerClass.Known, s.WorkerClass.Value)
	add("pidfile", s.PIDFile.Known, s.PIDFile.Value)
	add("control_socket", s.ControlSocket.Known, s.ControlSocket.Value)
	add("control_socket_disable", s.NoControlSocket.Known, strconv.FormatBool(s.NoControlSocket.Value))
	return all
}

// values are settings by their names.
type values map[string]string

// defaults returns gunicorn's own, but for those.
func defaults(but values) values {
	all := values{
		"timeout": "30", "graceful_timeout": "30", "workers": "1", "threads": "1", "max_requests": "0",
		"max_requests_jitter": "0", "worker_class": "sync", "pidfile": "", "control_socket": "", "control_socket_disable": "false",
	}
	maps.Copy(all, but)
	maps.DeleteFunc(all, func(_, value string) bool { return value == unknown })
	return all
}

const unknown = "?"

// commandLine is how gunicorn may be started.
type commandLine struct {
	args    string // of gunicorn's own, by words; a comma in front: they are separated by commas
	cmdArgs string // GUNICORN_CMD_ARGS
	web     string // WEB_CONCURRENCY
	file    string // what there is in gunicorn.conf.py; empty: there is none
	want    values // known of it
	young   bool   // old versions do not take it
}

func (c commandLine) words() []string {
	if list, ok := strings.CutPrefix(c.args, ","); ok {
		return strings.Split(list, ",")
	}
	return strings.Fields(c.args)
}

// commandLines returns what real gunicorn accepts.
func commandLines() map[string]commandLine {
	return map[string]commandLine{
		"nothing":                              {args: "app", want: defaults(nil)},
		"a letter and a word":                  {args: "-t 5 app", want: defaults(values{"timeout": "5"})},
		"a letter and its value":               {args: "-t5 app", want: defaults(values{"timeout": "5"})},
		"a letter, an equals sign":             {args: "-t=5 app", want: defaults(values{"timeout": "5"})},
		"letters together":                     {args: "-DRt5 app", want: defaults(values{"timeout": "5"})},
		"letters together and a word":          {args: "-DRw 5 app", want: defaults(values{"workers": "5"})},
		"a letter whose value has letters":     {args: "-bt5 app", want: defaults(nil)},
		"a name and a word":                    {args: "--timeout 5 app", want: defaults(values{"timeout": "5"})},
		"a name, an equals sign":               {args: "--timeout=5 app", want: defaults(values{"timeout": "5"})},
		"the beginning of a name":              {args: "--time 5 app", want: defaults(values{"timeout": "5"})},
		"a shorter beginning":                  {args: "--ti=5 app", want: defaults(values{"timeout": "5"})},
		"a name that others begin with":        {args: "--max-requests 7 app", want: defaults(values{"max_requests": "7"})},
		"the longer name":                      {args: "--max-requests-j 7 app", want: defaults(values{"max_requests_jitter": "7"})},
		"a beginning of one":                   {args: "--gra 7 app", want: defaults(values{"graceful_timeout": "7"})},
		"the last wins":                        {args: "-t 5 --timeout 6 -t7 app", want: defaults(values{"timeout": "7"})},
		"after the application":                {args: "app -t 5", want: defaults(values{"timeout": "5"})},
		"what is after a double dash":          {args: "-- app", want: defaults(nil)},
		"no timeout":                           {args: "-t 0 app", want: defaults(values{"timeout": "0"})},
		"a number as Python has it":            {args: ",-t, +1_000 ,app", want: defaults(values{"timeout": "1000"})},
		"zeros in front":                       {args: "-t 010 app", want: defaults(values{"timeout": "10"})},
		"all":                                  {args: "-w 2 --threads 4 -k gthread --graceful-timeout 9 -p /tmp/p --max-requests 3 app", want: defaults(values{"workers": "2", "threads": "4", "worker_class": "gthread", "graceful_timeout": "9", "pidfile": "/tmp/p", "max_requests": "3"})},
		"flags, a value that looks like one":   {args: "--preload --bind=-t9 app", want: defaults(nil)},
		"a name that has an option's":          {args: ",-n,--timeout 9,app", want: defaults(nil)},
		"an application's class":               {args: "-k app.Worker app", want: defaults(values{"worker_class": "app.Worker"})},
		"gunicorn's class by its Python name":  {args: "-k gunicorn.workers.gthread.ThreadWorker app", want: defaults(values{"worker_class": "gthread"})},
		"a sync worker with threads":           {args: "--threads 2 app", want: defaults(values{"threads": "2", "worker_class": "gthread"})},
		"workers by the environment":           {args: "app", web: "3", want: defaults(values{"workers": "3"})},
		"workers by both":                      {args: "-w 2 app", web: "3", want: defaults(values{"workers": "2"})},
		"arguments in the environment":         {args: "app", cmdArgs: "-t 5 -w4", want: defaults(values{"timeout": "5", "workers": "4"})},
		"the command line wins":                {args: "-t 6 app", cmdArgs: "-t 5 -w4", want: defaults(values{"timeout": "6", "workers": "4"})},
		"quoted arguments in the environment":  {args: "app", cmdArgs: `--pid '/tmp/a b' -n "a -t 9" --tim"e"=\5`, want: defaults(values{"timeout": "5", "pidfile": "/tmp/a b"})},
		"a backslash between quotation marks":  {args: "app", cmdArgs: `-p "/tmp/a\b\"c"`, want: defaults(values{"pidfile": `/tmp/a\b"c`})},
		"a backslash between single ones":      {args: "app", cmdArgs: `-p '/tmp/a\b'`, want: defaults(values{"pidfile": `/tmp/a\b`})},
		"a file":                               {args: "-w 2 app", file: "timeout = 9", want: values{"workers": "2"}},
		"a file, and arguments of both":        {args: "-w 2 app", cmdArgs: "-t 5", file: "timeout = 9; workers = 9", want: values{"workers": "2", "timeout": "5"}},
		"a file, and a class that may change":  {args: "-k sync app", file: "threads = 9", want: values{}},
		"a file, and a class that stays":       {args: "-k sync --threads 1 app", file: "threads = 9", want: values{"worker_class": "sync", "threads": "1"}},
		"another file":                         {args: "-t 5 -c other.py app", want: values{"timeout": "5"}},
		"another file by the environment":      {args: "-t 5 app", cmdArgs: "--conf other.py", want: values{"timeout": "5"}},
		"an empty name of a file":              {args: ",-c,,app", want: defaults(nil)},
		"another directory":                    {args: "-t 5 --chdir sub app", want: values{"timeout": "5"}},
		"another directory by the environment": {args: "-t 5 app", cmdArgs: "--chdir=sub", want: values{"timeout": "5"}},
		"a control socket":                     {args: "--control-socket /tmp/c app", young: true, want: defaults(values{"control_socket": "/tmp/c"})},
		"a control socket with a mode":         {args: "--control-socket-mode 0600 app", young: true, want: defaults(values{})},
		"no control socket":                    {args: "--no-c app", young: true, want: defaults(values{"control_socket_disable": "true"})},
		"a file, and no control socket":        {args: "--no-control-socket app", file: "timeout = 9", young: true, want: values{"control_socket_disable": "true"}},
		"a protocol, perhaps with its value":   {args: "--proxy-protocol -t 5 app", want: defaults(values{"timeout": "5"})},
	}
}

func (c commandLine) start() Start {
	return Start{
		Args: append([]string{"/usr/bin/python3", "/usr/bin/gunicorn"}, c.words()...), Environ: true,
		CmdArgs: c.cmdArgs, WebConcurrency: c.web, NoConfigFile: c.file == "",
	}
}

func TestSettingsOfCommandLines(t *testing.T) {
	for name, c := range commandLines() {
		t.Run(name, func(t *testing.T) { same(t, SettingsOf(c.start()), c.want) })
	}
}

func same(t *testing.T, got Settings, want values) {
	t.Helper()
	if got := known(got); !maps.Equal(got, want) {
		t.Errorf("known are %v\nwant      %v", got, want)
	}
}

// What gunicorn refuses it does not run with: who reads it has misunderstood something.
func TestSettingsThatCannotBeKnown(t *testing.T) {
	own := func(words ...string) []string { return append([]string{"gunicorn"}, words...) }
	for name, tc := range map[string]struct {
		start Start
		want  values
	}{
		"no command line":                       {Start{}, values{}},
		"a title in its place":                  {Start{Args: []string{"gunicorn: master [app]"}, Environ: true, NoConfigFile: true}, values{}},
		"a program that embeds gunicorn":        {Start{Args: []string{"python3", "serve.py", "-t", "5"}, Environ: true, NoConfigFile: true}, values{}},
		"no environment":                        {Start{Args: own("-t", "5", "app"), NoConfigFile: true}, values{"timeout": "5"}},
		"an environment that cannot be split":   {Start{Args: own("-t", "5", "app"), Environ: true, CmdArgs: `-w "3`, NoConfigFile: true}, values{"timeout": "5"}},
		"an environment that ends in a slash":   {Start{Args: own("app"), Environ: true, CmdArgs: `-w 3\`, NoConfigFile: true}, values{}},
		"an application of Paste":               {Start{Args: own("--paste", "a.ini"), Environ: true, NoConfigFile: true}, values{}},
		"an application of Paste, by its alias": {Start{Args: own("--paster", "a.ini"), Environ: true, NoConfigFile: true}, values{}},
		"a beginning of several names":          {Start{Args: own("--t", "5", "-w", "2"), Environ: true, NoConfigFile: true}, defaults(values{"workers": "2", "timeout": unknown, "threads": unknown, "worker_class": unknown})},
		"one of several, and clear before":      {Start{Args: own("--timeout", "5", "--t", "6"), Environ: true, NoConfigFile: true}, defaults(values{"timeout": unknown, "threads": unknown, "worker_class": unknown})},
		"an unclear one wins over the rest":     {Start{Args: own("--t", "6"), Environ: true, CmdArgs: "-t 5", NoConfigFile: true}, defaults(values{"timeout": unknown, "threads": unknown, "worker_class": unknown})},
		"an unclear directory":                  {Start{Args: own("--ch", "6"), Environ: true, NoConfigFile: true}, values{}},
		"no value":                              {Start{Args: own("app", "-t"), Environ: true, NoConfigFile: true}, defaults(values{"timeout": unknown})},
		"an option in place of a value":         {Start{Args: own("-t", "-w", "2"), Environ: true, NoConfigFile: true}, defaults(values{"timeout": unknown, "workers": "2"})},
		"no number":                             {Start{Args: own("-t", "five"), Environ: true, NoConfigFile: true}, defaults(values{"timeout": unknown})},
		"a number with a hole":                  {Start{Args: own("-t", "1__0"), Environ: true, NoConfigFile: true}, defaults(values{"timeout": unknown})},
		"an option in place of a path":          {Start{Args: own("-p", "-w", "2"), Environ: true, NoConfigFile: true}, defaults(values{"pidfile": unknown, "workers": "2"})},
		"an equals sign after letters":          {Start{Args: own("-Dt=5"), Environ: true, NoConfigFile: true}, defaults(values{"timeout": unknown})},
		"a negative number":                     {Start{Args: own("-t=-5"), Environ: true, NoConfigFile: true}, defaults(values{"timeout": unknown})},
		"a number with a line at its end":       {Start{Args: own("-t", "5_"), Environ: true, NoConfigFile: true}, defaults(values{"timeout": unknown})},
		"a number that is too high":             {Start{Args: own("-t", "99999999999"), Environ: true, NoConfigFile: true}, defaults(values{"timeout": unknown})},
		"a letter that there is not":            {Start{Args: own("-zt5"), Environ: true, NoConfigFile: true}, defaults(nil)},
		"after a double dash":                   {Start{Args: own("-t", "5", "--", "-t", "6"), Environ: true, NoConfigFile: true}, defaults(values{"timeout": "5"})},
	} {
		t.Run(name, func(t *testing.T) { same(t, SettingsOf(tc.start), tc.want) })
	}
}

func TestGunicornIsToldFromOtherPrograms(t *testing.T) {
	for name, tc := range map[string]struct {
		args string
		ok   bool
	}{
		"the script of an interpreter":      {"/usr/bin/python3 /usr/bin/gunicorn -t 5", true},
		"Debian's other name":               {"/usr/bin/python3 /usr/bin/gunicorn3 -t 5", true},
		"the interpreter of an environment": {"/venv/bin/python3.12 /venv/bin/gunicorn -t 5", true},
		"its own name alone":                {"gunicorn -t 5", true},
		"a module":                          {"python -m gunicorn -t 5", true},
		"a module, together":                {"python -mgunicorn -t 5", true},
		"a module, with switches":           {"python -u -X dev -W error -Wall -Im gunicorn -t 5", true},
		"the program's module":              {"python -m gunicorn.app.wsgiapp -t 5", true},
		"a module that was executed anew":   {"/usr/bin/python /usr/lib/gunicorn/__main__.py -t 5", true},
		"PyPy":                              {"pypy3 /usr/bin/gunicorn -t 5", true},
		"another module":                    {"python -m flask -t 5", false},
		"another script":                    {"python manage.py gunicorn -t 5", false},
		"code":                              {"python -c gunicorn -t 5", false},
		"an option that is not known":       {"python --check gunicorn -t 5", false},
		"no module":                         {"python -m", false},
		"nothing but switches":              {"python -u", false},
		"another program":                   {"/bin/sh /usr/bin/gunicorn -t 5", false},
	} {
		t.Run(name, func(t *testing.T) {
			rest, ok := gunicornArgs(strings.Fields(tc.args))
			if ok != tc.ok || ok && !slices.Equal(rest, []string{"-t", "5"}) {
				t.Errorf("gunicornArgs = %q, %v; want -t 5: %v", rest, ok, tc.ok)
			}
		})
	}
}

func TestControlSocketsAreWhereGunicornPutsThem(t *testing.T) {
	set := func(path string) Settings { return Settings{ControlSocket: Setting[string]{path, true}} }
	for name, tc := range map[string]struct {
		start    Start
		settings Settings
		want     []string
	}{
		"where it was told":             {Start{XDGRuntimeDir: "/run", HomeDir: "/home"}, set("/tmp/c"), []string{"/tmp/c"}},
		"relative":                      {Start{XDGRuntimeDir: "/run", HomeDir: "/home"}, set("c"), []string{"c"}},
		"at its default place":          {Start{XDGRuntimeDir: "/run", HomeDir: "/home"}, set(""), []string{"/run/gunicorn.ctl", "/home/.gunicorn/gunicorn.ctl"}},
		"perhaps at its default place":  {Start{XDGRuntimeDir: "/run", HomeDir: "/home"}, Settings{}, []string{"/run/gunicorn.ctl", "/home/.gunicorn/gunicorn.ctl"}},
		"in the home directory":         {Start{HomeDir: "/home"}, set(""), []string{"/home/.gunicorn/gunicorn.ctl"}},
		"nowhere, for nothing is known": {Start{}, Settings{}, nil},
		"nowhere, for it is off":        {Start{HomeDir: "/home"}, Settings{NoControlSocket: Setting[bool]{true, true}}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			if got := tc.start.ControlSockets(tc.settings); !slices.Equal(got, tc.want) {
				t.Errorf("ControlSockets = %q, want %q", got, tc.want)
			}
		})
	}
}

func TestTheFirstVariableOfANameCounts(t *testing.T) {
	got := parseEnviron("A=1\x00B=x=y\x00A=2\x00C\x00")
	if want := map[string]string{"A": "1", "B": "x=y", "C": "", "": ""}; !maps.Equal(got, want) {
		t.Errorf("parseEnviron = %q, want %q", got, want)
	}
}
