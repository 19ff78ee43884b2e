package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/prometheus/common/promslog"
	"github.com/spf13/cobra"

	"github.com/prefork-exporter/prefork_exporter/cmd/internal/app"
	"github.com/prefork-exporter/prefork_exporter/collector"
	"github.com/prefork-exporter/prefork_exporter/multiproc"
)

// mergeFlags are how merge prints.
type mergeFlags struct {
	format     string
	strict     bool
	configFile string
}

func newMergeCommand() *cobra.Command {
	var flags mergeFlags
	cmd := &cobra.Command{
		Use:   "merge DIR[=label=value]...",
		Short: "Print what metric files merge to, once",
		Long: `Merges the metric files in the directories and prints the exposition. It is a
function of the files alone: every process counts, dead or alive, and nothing of
the exporter's own is added. What is wrong with a file is said on standard error
and costs that file's own part; with --strict it makes the exit code 1.`,
		Example: "  prefork_exporter merge /run/app/metrics\n  prefork_exporter merge --format json a=site=a b=site=b",
		Args:    atLeastOne("DIR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop := interruptible(cmd.Context())
			defer stop()
			return flags.run(ctx, args, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	cmd.Flags().StringVar(&flags.format, "format", "text", "text, openmetrics or json")
	cmd.Flags().BoolVar(&flags.strict, "strict", false, "exit with 1 when anything is wrong with a file")
	cmd.Flags().StringVar(&flags.configFile, "config.file", "", "take multiproc.direct_file_store from this file")
	_ = cmd.RegisterFlagCompletionFunc("format",
		cobra.FixedCompletions([]string{"text", "openmetrics", "json"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func (f mergeFlags) run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	write, err := mergeWriter(f.format)
	if err != nil {
		return usageError{err}
	}
	sources, err := f.sources(args)
	if err != nil {
		return err
	}
	m := multiproc.New(multiproc.Options{
		Logger: promslog.New(&promslog.Config{Writer: stderr}),
		Limits: mergeLimits(),
		Refuse: collector.Refused(),
	})
	defer m.Close()
	m.SetSources(sources)
	snapshot, err := m.Merge(ctx)
	if err != nil {
		return err
	}
	out := bufio.NewWriter(stdout)
	if err := errors.Join(write(out, snapshot), out.Flush()); err != nil {
		return fmt.Errorf("print the merge: %w", err)
	}
	st := m.Stats()
	if !st.Readable {
		return errReported
	}
	if st.Files == 0 {
		fmt.Fprintf(stderr, "%s: %s: no metric files there\n", program, printable(strings.Join(args, ", ")))
	}
	for _, n := range st.Errors {
		if n > 0 && f.strict {
			return errReported
		}
	}
	return nil
}

// mergeLimits are wider than the sidecar's: what is printed once can be long.
func mergeLimits() multiproc.Limits {
	limits := multiproc.DefaultLimits()
	limits.LabelBytes = 4 << 20
	return limits
}

func mergeWriter(format string) (func(io.Writer, *multiproc.Snapshot) error, error) {
	switch format {
	case "text":
		return func(w io.Writer, s *multiproc.Snapshot) error { return collector.WriteText(w, s, false) }, nil
	case "json":
		return func(w io.Writer, s *multiproc.Snapshot) error {
			var b bytes.Buffer
			if err := collector.WriteJSON(&b, s); err != nil {
				return err
			}
			_, err := w.Write(graphic(b.Bytes()))
			return err
		}, nil
	case "openmetrics":
		return func(w io.Writer, s *multiproc.Snapshot) error {
			if !collector.OpenMetrics(s) {
				return errors.New("OpenMetrics cannot hold these families: a counter has no _total, or another family its name without it: use --format text")
			}
			return collector.WriteText(w, s, true)
		}, nil
	}
	return nil, fmt.Errorf("--format %q: want text, openmetrics or json", format)
}

func (f mergeFlags) sources(args []string) ([]multiproc.Source, error) {
	direct, err := app.DirectFileStore(f.configFile)
	if err != nil {
		return nil, err
	}
	var sources []multiproc.Source
	for _, arg := range args {
		d, err := app.ParseDirectory(arg)
		if err != nil {
			return nil, usageError{err}
		}
		info, err := os.Stat(d.Path)
		if err != nil {
			return nil, fmt.Errorf("merge metric files: %w", err)
		}
		if !info.IsDir() {
			return nil, fmt.Errorf("merge metric files: %s: not a directory: use dump to look into a file", d.Path)
		}
		sources = append(sources, multiproc.Source{Path: d.Path, Labels: d.Labels, Direct: direct})
	}
	return sources, nil
}
