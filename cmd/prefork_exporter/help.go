package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

const longHelp = `Merges the metric files that the workers of a pre-fork server (gunicorn, uWSGI,
unicorn, puma, …) write, and serves them at /metrics: beside the server, from
outside, without a signal to it.`

const exampleHelp = `  # gunicorn was started with PROMETHEUS_MULTIPROC_DIR=/run/app/metrics
  prefork_exporter --multiproc.dir=/run/app/metrics
  curl http://localhost:10142/metrics

  # two applications, told apart by a label, on loopback only
  prefork_exporter --web.listen-address=127.0.0.1:10142 \
      --multiproc.dir=/run/shop/metrics=app=shop --multiproc.dir=/run/blog/metrics=app=blog`

const environmentHelp = `Every flag has a twin in the environment, in upper case with underscores:
--web.listen-address is PREFORK_EXPORTER_WEB_LISTEN_ADDRESS. Commas separate the
items of a list. A flag wins over its twin, and both win over --config.file.
PROMETHEUS_MULTIPROC_DIR, PROMETHEUS_METRICS_PORT and PROMETHEUS_BIND_ADDRESS
count where neither says anything.

It ends with 0 when it is told to stop, with 1 when something fails, and with 2
when a flag, an argument or a variable cannot be.`

// helpWidth fits a terminal that nobody has widened.
const helpWidth = 100

// withGroupedHelp makes the help of cmd list its flags by group. Other
// commands keep cobra's.
func withGroupedHelp(cmd *cobra.Command, groups []flagGroup) {
	usual := cmd.HelpFunc()
	cmd.SetHelpFunc(func(c *cobra.Command, args []string) {
		if c != cmd {
			usual(c, args)
			return
		}
		fmt.Fprint(c.OutOrStdout(), helpText(c, groups))
	})
}

func helpText(cmd *cobra.Command, groups []flagGroup) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n\nUsage:\n  %s\n", cmd.Long, cmd.UseLine())
	if cmd.HasAvailableSubCommands() {
		fmt.Fprintf(&b, "  %s COMMAND\n", cmd.Name())
	}
	fmt.Fprintf(&b, "\nExamples:\n%s\n", cmd.Example)
	if cmd.HasAvailableSubCommands() {
		b.WriteString("\nCommands:\n")
	}
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() || c.Name() == "help" {
			fmt.Fprintf(&b, "  %-12s%s\n", c.Name(), c.Short)
		}
	}
	for _, g := range groups {
		fmt.Fprintf(&b, "\n%s:\n%s", g.title, g.flags.FlagUsagesWrapped(helpWidth))
	}
	fmt.Fprintf(&b, "\n%s\n", environmentHelp)
	return b.String()
}
