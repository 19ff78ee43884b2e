package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"syscall"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/prefork-exporter/prefork_exporter/multiproc"
)

// dumpFlags are how dump prints.
type dumpFlags struct {
	check  bool
	format string
}

func newDumpCommand() *cobra.Command {
	var flags dumpFlags
	cmd := &cobra.Command{
		Use:   "dump FILE|DIR...",
		Short: "Print the entries of metric files, or judge them",
		Long: `Prints each entry of the metric files with its place in bytes, whatever client
wrote them. With --check it prints one line for each file: whether it is whole,
or where it is broken. The exit code is 1 when anything is wrong. What a file
holds is quoted: no control character reaches the terminal.`,
		Example: "  prefork_exporter dump /run/app/metrics/counter_412.db\n  prefork_exporter dump --check /run/app/metrics",
		Args:    atLeastOne("FILE or DIR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return flags.run(args, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	cmd.Flags().BoolVar(&flags.check, "check", false, "print a verdict for each file instead of its entries")
	cmd.Flags().StringVar(&flags.format, "format", "text", "text or json")
	_ = cmd.RegisterFlagCompletionFunc("format",
		cobra.FixedCompletions([]string{"text", "json"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func (f dumpFlags) run(args []string, stdout, stderr io.Writer) error {
	if f.format != "text" && f.format != "json" {
		return usageError{fmt.Errorf("--format %q: want text or json", f.format)}
	}
	files, bad := inspect(args, stderr)
	out := bufio.NewWriter(stdout)
	var err error
	switch {
	case f.format == "json":
		err = printJSON(out, files, f.check)
	case f.check:
		printVerdicts(out, files)
	default:
		printEntries(out, files)
	}
	if err := errors.Join(err, out.Flush()); err != nil {
		return fmt.Errorf("print the dump: %w", err)
	}
	for _, i := range files {
		bad = bad || i.Faults() > 0
	}
	if bad {
		return errReported
	}
	return nil
}

// inspect reads the files that args name. What cannot be read is said at once.
func inspect(args []string, stderr io.Writer) (files []*multiproc.Inspection, bad bool) {
	for _, arg := range args {
		found, err := inspectOne(arg)
		files = append(files, found...)
		if err == nil && len(found) == 0 {
			fmt.Fprintf(stderr, "%s: %s: no metric files there\n", program, printable(arg))
		}
		if err != nil {
			bad = true
			for line := range strings.SplitSeq(err.Error(), "\n") {
				fmt.Fprintf(stderr, "%s: %s\n", program, printable(line))
			}
		}
	}
	return files, bad
}

func inspectOne(path string) ([]*multiproc.Inspection, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("inspect %s: %w", path, syscall.ENOENT)
	}
	if err == nil && info.IsDir() {
		return multiproc.InspectDir(path)
	}
	i, err := multiproc.Inspect(path)
	if err != nil {
		return nil, err
	}
	return []*multiproc.Inspection{i}, nil
}

func printVerdicts(w io.Writer, files []*multiproc.Inspection) {
	for _, i := range files {
		if i.Faults() == 0 {
			fmt.Fprintf(w, "%s: ok, entries: %d\n", printable(i.Path), len(i.Entries))
			continue
		}
		for _, fault := range faults(i) {
			fmt.Fprintf(w, "%s: %s\n", printable(i.Path), printable(fault.Error()))
		}
	}
}

// faults returns all that is wrong with a file.
func faults(i *multiproc.Inspection) []error {
	var errs []error
	for _, e := range i.Entries {
		if e.Err != nil {
			errs = append(errs, e.Err)
		}
	}
	if i.Err != nil {
		errs = append(errs, i.Err)
	}
	return errs
}

func printEntries(w io.Writer, files []*multiproc.Inspection) {
	for _, i := range files {
		mode := ""
		if i.Mode != "" {
			mode = " (" + i.Mode + ")"
		}
		fmt.Fprintf(w, "%s: %s%s of process %s, %d of %d bytes used\n",
			printable(i.Path), i.Type, mode, printable(i.Process), i.Used, i.Size)
		for _, e := range i.Entries {
			printEntry(w, e)
		}
		if i.Err != nil {
			fmt.Fprintf(w, "  broken: %s\n", printable(i.Err.Error()))
		}
	}
}

func printEntry(w io.Writer, e multiproc.Entry) {
	if e.Err != nil {
		fmt.Fprintf(w, "  %8d  broken: %s\n", e.Offset, printable(e.Err.Error()))
		return
	}
	fmt.Fprintf(w, "  %8d  %-3s %s%s %s", e.Offset, e.Era, printable(e.Sample), labels(e.Labels), number(e.Value))
	if e.Stamp != 0 {
		fmt.Fprintf(w, " @%s", number(e.Stamp))
	}
	fmt.Fprintln(w)
}

// labels prints a label set as Prometheus writes it, with every sign that is
// not printable escaped.
func labels(all []multiproc.Label) string {
	if len(all) == 0 {
		return ""
	}
	pairs := make([]string, len(all))
	for i, l := range all {
		pairs[i] = printable(l.Name) + "=" + strconv.QuoteToGraphic(l.Value)
	}
	return "{" + strings.Join(pairs, ",") + "}"
}

// printable returns s, or s quoted when it has a sign that a terminal would act on.
func printable(s string) string {
	if q := strconv.QuoteToGraphic(s); q[1:len(q)-1] != strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) {
		return q
	}
	return s
}

func number(v float64) string { return strconv.FormatFloat(v, 'g', -1, 64) }

// The shape of --format json.
type (
	jsonFile struct {
		Path    string      `json:"path"`
		Type    string      `json:"type"`
		Mode    string      `json:"mode,omitempty"`
		Process string      `json:"process"`
		Size    int         `json:"size"`
		Used    int         `json:"used"`
		Errors  []string    `json:"errors"`
		Entries []jsonEntry `json:"entries,omitempty"`
	}
	jsonEntry struct {
		Offset int               `json:"offset"`
		Era    string            `json:"era,omitempty"`
		Family string            `json:"family,omitempty"`
		Sample string            `json:"sample,omitempty"`
		Labels map[string]string `json:"labels,omitempty"`
		Help   string            `json:"help,omitempty"`
		Value  string            `json:"value"` // text: JSON has no NaN
		Stamp  float64           `json:"timestamp,omitempty"`
		Error  string            `json:"error,omitempty"`
	}
)

func printJSON(w io.Writer, files []*multiproc.Inspection, check bool) error {
	out := make([]jsonFile, 0, len(files))
	for _, i := range files {
		f := jsonFile{Path: i.Path, Type: i.Type, Mode: i.Mode, Process: i.Process, Size: i.Size, Used: i.Used, Errors: []string{}}
		for _, fault := range faults(i) {
			f.Errors = append(f.Errors, fault.Error())
		}
		if !check {
			for _, e := range i.Entries {
				f.Entries = append(f.Entries, newJSONEntry(e))
			}
		}
		out = append(out, f)
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetIndent("", "  ")
	if err := e.Encode(out); err != nil {
		return err
	}
	_, err := w.Write(graphic(b.Bytes()))
	return err
}

// graphic escapes the signs in a JSON text that a terminal would act on: JSON
// itself leaves DEL as it is, and all that lies beyond ASCII.
func graphic(text []byte) []byte {
	out := make([]byte, 0, len(text))
	for _, r := range string(text) {
		if r == '\n' || strconv.IsGraphic(r) {
			out = utf8.AppendRune(out, r)
			continue
		}
		for _, unit := range utf16.AppendRune(nil, r) {
			out = fmt.Appendf(out, `\u%04x`, unit)
		}
	}
	return out
}

func newJSONEntry(e multiproc.Entry) jsonEntry {
	out := jsonEntry{Offset: e.Offset, Value: number(e.Value)}
	if e.Err != nil {
		out.Error = e.Err.Error()
		return out
	}
	out.Era, out.Family, out.Sample, out.Help, out.Stamp = e.Era, e.Family, e.Sample, e.Help, e.Stamp
	out.Labels = map[string]string{}
	for _, l := range e.Labels {
		out.Labels[l.Name] = l.Value
	}
	return out
}
