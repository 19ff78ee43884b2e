package main

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"github.com/prefork-exporter/prefork_exporter/cmd/internal/app"
)

// environment is the variables by name. An empty one counts as not set.
type environment map[string]string

func newEnvironment(pairs []string) environment {
	env := environment{}
	for _, pair := range pairs {
		if name, value, _ := strings.Cut(pair, "="); value != "" {
			env[name] = value
		}
	}
	return env
}

const twinPrefix = "PREFORK_EXPORTER_"

// twin returns the variable that stands for a flag. No flag may begin with
// port or service: Kubernetes sets variables of those names for a service that
// is called like the program.
func twin(flag string) string {
	return twinPrefix + strings.ToUpper(strings.NewReplacer(".", "_", "-", "_").Replace(flag))
}

// hasTwin leaves out what is no setting, and the second name of a setting.
func hasTwin(f *pflag.Flag) bool { return f.Name != "help" && f.Name != "version" && !f.Hidden }

// applyTwins gives the flags that are not on the command line the values of
// their twins.
func (s *settings) applyTwins(flags *pflag.FlagSet, env environment) error {
	var failed error
	known := map[string]bool{}
	flags.VisitAll(func(f *pflag.Flag) {
		name := twin(f.Name)
		known[name] = hasTwin(f)
		value, set := env[name]
		if failed != nil || !set || !hasTwin(f) || f.Changed {
			return
		}
		s.from[f.Name] = name
		for _, item := range split(f, value) {
			if err := f.Value.Set(item); err != nil {
				failed = badValue(name, f, item, err)
				return
			}
		}
		f.Changed = true
	})
	for name := range env {
		if strings.HasPrefix(name, twinPrefix) && !known[name] && !isFromKubernetes(name) {
			s.unknownVars = append(s.unknownVars, name)
		}
	}
	slices.Sort(s.unknownVars)
	return failed
}

// split returns the items of a list: commas separate them. One of the form
// label=value belongs to the directory before it.
func split(f *pflag.Flag, value string) []string {
	switch f.Value.Type() {
	case "stringArray":
		return strings.Split(value, ",")
	case "DIR":
		return splitDirectories(value)
	}
	return []string{value}
}

func splitDirectories(value string) []string {
	var items []string
	for item := range strings.SplitSeq(value, ",") {
		if last := len(items) - 1; last >= 0 && regexp.MustCompile(`^\w+=[^=]*$`).MatchString(item) {
			items[last] += "," + item
			continue
		}
		items = append(items, item)
	}
	return items
}

// isFromKubernetes tells the variables that point a container to services.
func isFromKubernetes(name string) bool {
	return regexp.MustCompile(`_SERVICE_(HOST|PORT)|_PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?$`).MatchString(name)
}

// applyEarlier honours the variables of earlier exporters, where neither a flag
// nor its twin says anything.
func (s *settings) applyEarlier(flags *pflag.FlagSet, env environment) error {
	s.options.AmbientDirectory = env["PROMETHEUS_MULTIPROC_DIR"]
	if s.options.AmbientDirectory == "" {
		s.options.AmbientDirectory = env["prometheus_multiproc_dir"]
	}
	host, port := env["PROMETHEUS_BIND_ADDRESS"], env["PROMETHEUS_METRICS_PORT"]
	if flags.Changed("web.listen-address") || host == "" && port == "" {
		return nil
	}
	if port == "" {
		port = strings.TrimPrefix(app.DefaultAddress, ":")
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return fmt.Errorf("PROMETHEUS_METRICS_PORT: %q: want a port from 1 to 65535", port)
	}
	s.options.Listen = []string{joinHostPort(host, port)}
	return nil
}
