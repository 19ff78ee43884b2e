package app

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/prefork-exporter/prefork_exporter/collector"
	"github.com/prefork-exporter/prefork_exporter/multiproc"
)

// Options are all that the sidecar needs to know. [DefaultOptions] gives them
// values; [Options.Validate] names the flag of one that cannot be.
type Options struct {
	Logger *slog.Logger // nil: no log

	Listen             []string // HOST:PORT or unix:/PATH
	SystemdSocket      bool     // the sockets that systemd passes, instead of Listen
	WebConfigFile      string   // TLS and authentication; empty: neither
	TelemetryPath      string
	MaxRequests        int           // scrapes at the same time; 0: any number
	TimeoutOffset      time.Duration // by how much a scrape ends before Prometheus gives it up
	DisableCompression bool
	EnableLifecycle    bool // reload over HTTP
	EnablePprof        bool
	EnableStatus       bool // show the status to everybody who can connect

	Collectors       []string // names, out of [Collectors]
	CollectorTimeout time.Duration
	QueueAddresses   []string      // whose accept queues are measured: IP:PORT, :PORT or unix:/PATH
	CgroupFS         string        // where control groups are mounted
	PSSInterval      time.Duration // how often the memory is read that workers share, or do not; 0: never

	Master           Master      // of the first target
	Directories      []Directory // likewise
	AmbientDirectory string      // that of the application's environment: when no flag and no file names one
	Home             string      // its .gunicorn_prometheus, if that exists, is the last resort
	Liveness         string      // auto or off
	Limits           multiproc.Limits
	MergeTimeout     time.Duration

	StateDir   string // for what outlives the process; empty: memory only
	ConfigFile string // empty: none

	Supervisor *os.File // socket to the supervisor whose sidecar this is; nil: it is none's
	Wraps      bool     // the supervisor keeps one server, which is the master
	Supervises bool     // the supervisor is the master

	// ServerLog is what the server writes, if it can be seen: pipes and files, each a stream
	// of its own, which the sidecar closes. ServerLogGap says why that is not all, if it is not.
	ServerLog    []*os.File
	ServerLogGap string

	Started func()           // called by Run once it listens; may be nil
	Hangup  <-chan os.Signal // each signal asks for a reload; may be nil
	Grace   time.Duration    // how long a stop waits for requests in flight
}

// DefaultAddress is where metrics are served when nothing else is said.
const DefaultAddress = ":10142"

// DefaultOptions returns what holds when no flag, variable or file says
// otherwise.
func DefaultOptions() Options {
	return Options{
		Listen:           []string{DefaultAddress},
		TelemetryPath:    "/metrics",
		MaxRequests:      40,
		TimeoutOffset:    250 * time.Millisecond,
		CollectorTimeout: 10 * time.Second,
		CgroupFS:         "/sys/fs/cgroup",
		PSSInterval:      time.Minute,
		Liveness:         "auto",
		Limits:           multiproc.DefaultLimits(),
		MergeTimeout:     30 * time.Second,
		Grace:            3 * time.Second,
	}
}

// OptionError says that the value of a flag, or of its twin in the
// environment, cannot be.
type OptionError struct {
	Flag string // without dashes
	Err  error
}

// Error implements error.
func (e *OptionError) Error() string { return "--" + e.Flag + ": " + e.Err.Error() }

// Unwrap returns what is wrong.
func (e *OptionError) Unwrap() error { return e.Err }

func optionErrorf(flag, format string, args ...any) error {
	return &OptionError{Flag: flag, Err: fmt.Errorf(format, args...)}
}

// Validate returns an [OptionError] for the first option that cannot be.
func (o Options) Validate() error {
	for _, check := range []func(Options) error{
		Options.checkListen, Options.checkTelemetryPath, Options.checkBounds, Options.checkLimits, Options.checkCollectors,
		Options.checkDirectories, Options.checkMaster, Options.checkQueueAddresses, Options.checkCgroupFS,
	} {
		if err := check(o); err != nil {
			return err
		}
	}
	if o.Liveness != "auto" && o.Liveness != "off" {
		return optionErrorf("multiproc.liveness", "%q: want auto or off", o.Liveness)
	}
	return nil
}

const listenFlag = "web.listen-address"

func (o Options) checkListen() error {
	if o.SystemdSocket {
		return nil
	}
	if len(o.Listen) == 0 {
		return optionErrorf(listenFlag, "no address: want HOST:PORT or unix:/PATH")
	}
	for i, address := range o.Listen {
		if err := checkAddress(address); err != nil {
			return optionErrorf(listenFlag, "%q: %w", address, err)
		}
		if slices.Contains(o.Listen[:i], address) && !strings.HasSuffix(address, ":0") {
			return optionErrorf(listenFlag, "%q: given twice", address)
		}
	}
	return nil
}

const unixPrefix = "unix:"

func checkAddress(address string) error {
	if file, ok := strings.CutPrefix(address, unixPrefix); ok {
		return checkSocketPath(file)
	}
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return errors.New("want HOST:PORT or unix:/PATH")
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Errorf("port %q: want a number from 0 to 65535", port)
	}
	return nil
}

// longestSocketPath leaves a byte for the zero at the end.
const longestSocketPath = len(unix.RawSockaddrUnix{}.Path) - 1

func checkSocketPath(file string) error {
	if !filepath.IsAbs(file) {
		return errors.New("want unix: and an absolute path")
	}
	if len(file) > longestSocketPath {
		return fmt.Errorf("path of %d bytes: a socket's name has at most %d", len(file), longestSocketPath)
	}
	return nil
}

// checkTelemetryPath refuses what the router would take for a pattern, and the
// paths that are ours.
func (o Options) checkTelemetryPath() error {
	const flag = "web.telemetry-path"
	p := o.TelemetryPath
	if !strings.HasPrefix(p, "/") || path.Clean(p) != p || strings.ContainsAny(p, "{}%?# \t\r\n") {
		return optionErrorf(flag, "%q: want a plain path such as /metrics", p)
	}
	if slices.Contains(ownPaths(), p) || strings.HasPrefix(p, pprofPath) {
		return optionErrorf(flag, "%q: the exporter itself answers there", p)
	}
	return nil
}

func (o Options) checkBounds() error {
	for _, b := range []struct {
		flag  string
		value time.Duration
		good  bool
		want  string
	}{
		{"web.timeout-offset", o.TimeoutOffset, o.TimeoutOffset >= 0, "0s or more"},
		{"collector.timeout", o.CollectorTimeout, o.CollectorTimeout > 0, "more than 0s"},
		{"worker.pss-interval", o.PSSInterval, o.PSSInterval >= 0, "0s, which is never, or more"},
		{"multiproc.merge-timeout", o.MergeTimeout, o.MergeTimeout > 0, "more than 0s"},
	} {
		if !b.good {
			return optionErrorf(b.flag, "%s: want %s", b.value, b.want)
		}
	}
	if o.MaxRequests < 0 {
		return optionErrorf("web.max-requests", "%d: want 0, which is any number, or more", o.MaxRequests)
	}
	return nil
}

func (o Options) checkLimits() error {
	for _, l := range []struct {
		flag  string
		value int
	}{
		{"multiproc.max-files", o.Limits.Files},
		{"multiproc.max-file-bytes", o.Limits.FileBytes},
		{"multiproc.max-file-series", o.Limits.FileSeries},
		{"multiproc.max-series", o.Limits.Series},
		{"multiproc.max-label-bytes", o.Limits.LabelBytes},
	} {
		if l.value < 1 {
			return optionErrorf(l.flag, "%d: want 1 or more", l.value)
		}
	}
	return nil
}

func (o Options) checkCollectors() error {
	for _, name := range o.Collectors {
		if !slices.ContainsFunc(Collectors(), func(c CollectorSpec) bool { return c.Name == name }) {
			return fmt.Errorf("unknown collector %q: want some of %s", name, strings.Join(collectorNames(), ", "))
		}
	}
	return nil
}

func (o Options) checkQueueAddresses() error {
	for _, address := range o.QueueAddresses {
		if _, err := collector.ParseListenAddress(address); err != nil {
			return optionErrorf("listen.address", "%q: %w", address, err)
		}
	}
	return nil
}

// checkCgroupFS wants a path that the mounts can have. It need not be there.
func (o Options) checkCgroupFS() error {
	if !filepath.IsAbs(o.CgroupFS) {
		return optionErrorf("path.cgroupfs", "%q: want an absolute path", o.CgroupFS)
	}
	return nil
}

const directoryFlag = "multiproc.dir"

func (o Options) checkDirectories() error {
	var seen []string
	for _, d := range o.Directories {
		if err := d.check(); err != nil {
			return &OptionError{Flag: directoryFlag, Err: err}
		}
		at := multiproc.Canonical(d.Path)
		if slices.Contains(seen, at) {
			return optionErrorf(directoryFlag, "%s: given twice", d.Path)
		}
		seen = append(seen, at)
	}
	return nil
}

// checkMaster refuses what says nothing of the master, or too much. Our supervisor knows
// what its workers are, and when one is late.
func (o Options) checkMaster() error {
	m := o.Master
	if o.Supervises && (m.Kind != "" || m.Timeout != 0) {
		option := "kind"
		if m.Kind == "" {
			option = "timeout"
		}
		return optionErrorf(masterFlag+option, "the supervisor is the master")
	}
	if option, err := m.problem(o.Wraps || o.Supervises); err != nil {
		return &OptionError{Flag: masterFlag + option, Err: err}
	}
	return nil
}
