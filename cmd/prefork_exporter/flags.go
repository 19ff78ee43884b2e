package main

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/prometheus/common/promslog"
	"github.com/spf13/pflag"

	"github.com/prefork-exporter/prefork_exporter/cmd/internal/app"
)

// settings are the flags of the sidecar on their way to Options.
type settings struct {
	options app.Options
	check   bool
	level   levelFlag
	format  formatFlag

	collectors  map[string]*bool
	minimal     bool              // no collector but those that are asked for
	groups      []flagGroup       // in the order of the help
	from        map[string]string // the variables that flags came from, by flag
	unknownVars []string          // variables that look like twins of flags
}

// flagGroup is a part of the help.
type flagGroup struct {
	title string
	flags *pflag.FlagSet
}

func newSettings() *settings {
	s := &settings{
		options: app.DefaultOptions(), level: levelFlag{promslog.NewLevel()}, format: formatFlag{promslog.NewFormat()},
		collectors: map[string]*bool{}, from: map[string]string{},
	}
	_ = s.format.Format.Set("logfmt") // one of those that it knows
	s.groups = []flagGroup{
		{"Metric files", s.fileFlags()},
		{"Master", s.masterFlags()},
		{"Web", s.webFlags()},
		{"Collectors", s.collectorFlags()},
		{"Configuration and log", s.generalFlags()},
	}
	return s
}

func newFlagSet() *pflag.FlagSet {
	flags := pflag.NewFlagSet(program, pflag.ContinueOnError)
	flags.SortFlags = false
	return flags
}

func (s *settings) fileFlags() *pflag.FlagSet {
	flags, o := newFlagSet(), &s.options
	l := &o.Limits
	flags.Var((*directoriesFlag)(&o.Directories), "multiproc.dir",
		"`DIR` of metric files, or DIR=label=value[,label=value] with labels for its series; may be repeated, and "+
			"need not exist yet. Without it: the targets of --config.file, else $PROMETHEUS_MULTIPROC_DIR, else that of the "+
			"master's environment, else ~/.gunicorn_prometheus if it is there; supervise and run make one")
	flags.StringVar(&o.Liveness, "multiproc.liveness", o.Liveness,
		"`MODE` auto or off: whether the gauges of dead processes leave the scrape; off: every process counts as "+
			"alive. Proofs of death come in a later version: today both are as off")
	flags.DurationVar(&o.MergeTimeout, "multiproc.merge-timeout", o.MergeTimeout,
		"how long one merge may take, whatever the scrapes that wait for it")
	flags.IntVar(&l.Files, "multiproc.max-files", l.Files, "files that are read at most")
	flags.IntVar(&l.FileBytes, "multiproc.max-file-bytes", l.FileBytes, "bytes of one file that are read at most")
	flags.IntVar(&l.FileSeries, "multiproc.max-file-series", l.FileSeries, "entries of one file at most")
	flags.IntVar(&l.Series, "multiproc.max-series", l.Series, "merged series at most")
	flags.IntVar(&l.LabelBytes, "multiproc.max-label-bytes", l.LabelBytes, "bytes of one series' labels at most")
	return flags
}

func (s *settings) masterFlags() *pflag.FlagSet {
	flags, m := newFlagSet(), &s.options.Master
	flags.StringVar(&m.PIDFile, "master.pidfile", "", "`FILE` with the process id of the master of a running server, which is watched from outside: "+
		"read anew each time, also while another master takes its place (USR2). One that is younger than the file is a stranger")
	flags.IntVar(&m.PID, "master.pid", 0, "process `ID` of the master, until it ends")
	flags.StringVar(&m.Process, "master.process", "", "`PATTERN` (RE2) that the master's command line matches, its words joined by blanks; of those that match, "+
		"the one that is not below another. A command line can be forged: with --master.user or --master.cgroup, or both")
	flags.StringVar(&m.User, "master.user", "", "`USER`, a name or a number, that the process of --master.process runs as")
	flags.StringVar(&m.Cgroup, "master.cgroup", "", "`PATH` at or below which the control group of the process of --master.process is, as in /proc/PID/cgroup: "+
		"/system.slice/shop.service")
	flags.StringVar(&m.Kind, "master.kind", "", "`KIND` of the server: "+strings.Join(app.Kinds(), ", ")+". Without it, it is found out; also with run")
	flags.DurationVar(&m.Timeout, "master.timeout", 0, "how long a worker may give no sign of life, where that cannot be found out; 0s: nobody knows; also with run")
	return flags
}

func (s *settings) webFlags() *pflag.FlagSet {
	flags, o := newFlagSet(), &s.options
	flags.StringArrayVar(&o.Listen, "web.listen-address", o.Listen,
		"`ADDRESS` to serve on: HOST:PORT, or unix:/PATH, which the owner and the group may use; may be repeated")
	flags.StringVar(&o.TelemetryPath, "web.telemetry-path", o.TelemetryPath, "`PATH` of the metrics")
	flags.StringVar(&o.WebConfigFile, "web.config.file", o.WebConfigFile,
		"`FILE` with TLS and basic authentication, as other exporters have it")
	flags.BoolVar(&o.SystemdSocket, "web.systemd-socket", o.SystemdSocket,
		"serve on the sockets that systemd passes, instead of --web.listen-address")
	flags.IntVar(&o.MaxRequests, "web.max-requests", o.MaxRequests,
		"scrapes that are answered at the same time; 0: any number")
	flags.DurationVar(&o.TimeoutOffset, "web.timeout-offset", o.TimeoutOffset,
		"by how much a scrape ends before Prometheus gives it up")
	flags.BoolVar(&o.DisableCompression, "web.disable-compression", o.DisableCompression,
		"never compress an answer")
	flags.BoolVar(&o.EnableLifecycle, "web.enable-lifecycle", o.EnableLifecycle,
		"let POST /-/reload do what SIGHUP does: read --config.file again")
	flags.BoolVar(&o.EnableStatus, "web.enable-status", o.EnableStatus,
		"serve /api/v1/status, which shows process ids, paths and deaths, to everybody who can connect; without it: to who is "+
			"on this machine, or known by a password or a certificate that --web.config.file asks for")
	flags.BoolVar(&o.EnablePprof, "web.enable-pprof", o.EnablePprof,
		"serve /debug/pprof, which shows arguments, paths and memory of the exporter to everybody who can connect")
	return flags
}

// collectorFlags gives each collector two flags; the second is not in the help.
func (s *settings) collectorFlags() *pflag.FlagSet {
	flags := newFlagSet()
	for _, c := range app.Collectors() {
		on := flags.Bool("collector."+c.Name, c.Default, c.Help)
		s.collectors[c.Name] = on
		no := flags.VarPF(&negation{flags, "collector." + c.Name}, "no-collector."+c.Name, "", "")
		no.NoOptDefVal, no.Hidden = "true", true
	}
	flags.StringArrayVar(&s.options.QueueAddresses, "listen.address", nil,
		"`ADDRESS` whose accept queue is measured, whoever listens there: IP:PORT, :PORT of any host, or unix:/PATH; may be "+
			"repeated. Those of a server that run or supervise has started, or whose master is watched, are found without it")
	flags.StringVar(&s.options.CgroupFS, "path.cgroupfs", s.options.CgroupFS,
		"`DIR` at or under which control groups are mounted: what is mounted elsewhere is not read")
	flags.DurationVar(&s.options.PSSInterval, "worker.pss-interval", s.options.PSSInterval,
		"how often it is read how much memory workers share (PSS) and do not (USS), which holds up a worker for some milliseconds a "+
			"gigabyte; 0s: never")
	flags.BoolVar(&s.minimal, "collector.disable-defaults", false,
		"switch off all collectors but those that have a flag; --no-collector.NAME switches off one")
	flags.DurationVar(&s.options.CollectorTimeout, "collector.timeout", s.options.CollectorTimeout,
		"how long a scrape waits for its collectors")
	return flags
}

func (s *settings) generalFlags() *pflag.FlagSet {
	flags, o := newFlagSet(), &s.options
	flags.StringVar(&o.ConfigFile, "config.file", o.ConfigFile, "YAML `FILE` with targets, beside the one that "+
		"--multiproc.dir and --master… make, and with the types of DirectFileStore's metrics")
	flags.BoolVar(&s.check, "config.check", false, "check the flags and files, print one line and end")
	flags.StringVar(&o.StateDir, "state.dir", o.StateDir, "`DIR` for what outlives the exporter; else $STATE_DIRECTORY, "+
		"$XDG_STATE_HOME/"+program+", ~/.local/state/"+program)
	flags.Var(s.level, "log.level", "log messages from this `LEVEL` on: debug, info, warn or error")
	flags.Var(s.format, "log.format", "`FORMAT` of the messages on stderr: logfmt or json")
	flags.BoolP("help", "h", false, "print this help")
	flags.Bool("version", false, "print the version")
	return flags
}

// complete adds to the flags what the environment says, and makes the options
// of it all.
func (s *settings) complete(flags *pflag.FlagSet, env environment) error {
	if err := s.applyTwins(flags, env); err != nil {
		return err
	}
	if err := s.applyEarlier(flags, env); err != nil {
		return err
	}
	s.options.Home = env["HOME"]
	if s.options.StateDir == "" {
		s.options.StateDir = env.stateDir()
	}
	for _, c := range app.Collectors() {
		if *s.collectors[c.Name] && (flags.Changed("collector."+c.Name) || !s.minimal) {
			s.options.Collectors = append(s.options.Collectors, c.Name)
		}
	}
	return nil
}

// directoriesFlag is a flag that may be repeated.
type directoriesFlag []app.Directory

// Set implements [pflag.Value].
func (d *directoriesFlag) Set(value string) error {
	dir, err := app.ParseDirectory(value)
	if err == nil {
		*d = append(*d, dir)
	}
	return err
}

// Type implements [pflag.Value].
func (d *directoriesFlag) Type() string { return "DIR" }

// String implements [pflag.Value].
func (d *directoriesFlag) String() string {
	var all []string
	for _, dir := range *d {
		all = append(all, dir.String())
	}
	return strings.Join(all, " ")
}

// negation is the flag that switches another off. The one that comes last wins.
type negation struct {
	flags *pflag.FlagSet
	name  string
}

// Set implements [pflag.Value].
func (n *negation) Set(value string) error {
	no, err := strconv.ParseBool(value)
	if err != nil {
		return err
	}
	return n.flags.Set(n.name, strconv.FormatBool(!no))
}

// Type implements [pflag.Value].
func (n *negation) Type() string { return "bool" }

// String implements [pflag.Value].
func (n *negation) String() string { return "" }

// levelFlag and formatFlag say what they want, and what they are.
type levelFlag struct{ *promslog.Level }

// Set implements [pflag.Value].
func (l levelFlag) Set(value string) error {
	if l.Level.Set(value) != nil {
		return errors.New("want " + strings.Join(promslog.LevelFlagOptions, ", "))
	}
	return nil
}

// Type implements [pflag.Value].
func (l levelFlag) Type() string { return "level" }

type formatFlag struct{ *promslog.Format }

// Set implements [pflag.Value].
func (f formatFlag) Set(value string) error {
	if f.Format.Set(value) != nil {
		return errors.New("want " + strings.Join(promslog.FormatFlagOptions, ", "))
	}
	return nil
}

// Type implements [pflag.Value].
func (f formatFlag) Type() string { return "format" }

// flagError says in our words what pflag found for a command.
func flagError(command string, err error) error {
	var value *pflag.InvalidValueError
	if errors.As(err, &value) {
		return badValue("--"+value.GetFlag().Name, value.GetFlag(), value.GetValue(), value.Unwrap())
	}
	return fmt.Errorf("%w: see %s --help", err, command)
}

// badValue names what the value was given by.
func badValue(name string, flag *pflag.Flag, value string, cause error) error {
	switch flag.Value.Type() {
	case "int":
		cause = errors.New("want a whole number")
	case "int64":
		cause = errors.New("want a whole number of bytes")
	case "bool":
		cause = errors.New("want true or false")
	case "duration":
		cause = errors.New("want a duration such as 250ms or 10s")
	case "DIR":
		return fmt.Errorf("%s: %w", name, cause) // it has the value
	}
	return fmt.Errorf("%s: %q: %w", name, value, cause)
}

// stateDir returns where state is kept unless a flag says it; empty: nowhere.
func (e environment) stateDir() string {
	if first, _, _ := strings.Cut(e["STATE_DIRECTORY"], ":"); first != "" {
		return first
	}
	if filepath.IsAbs(e["XDG_STATE_HOME"]) {
		return filepath.Join(e["XDG_STATE_HOME"], program)
	}
	if e["HOME"] == "" {
		return ""
	}
	return filepath.Join(e["HOME"], ".local", "state", program)
}

// joinHostPort puts a host before a port, whether or not it has brackets.
func joinHostPort(host, port string) string {
	return net.JoinHostPort(strings.TrimSuffix(strings.TrimPrefix(host, "["), "]"), port)
}
