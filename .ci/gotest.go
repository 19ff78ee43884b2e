// Command gotest runs `go test` in the modules whose directories its first
// arguments name, with the arguments from the first flag on. It shows what go
// test shows, and closes with the number of tests that passed, failed and were
// skipped, the skipped ones by name. With PREFORK_NO_SKIP set a skipped test is a
// failure: a run that promises everything must not leave out anything.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
)

// event is one line of `go test -json`.
type event struct {
	Action, Package, Test, Output string
}

// report counts what a run did.
type report struct {
	out            io.Writer
	passed, failed int
	skipped        []string
	open           map[string]map[string]string // by package and test: what it wrote, until it ends
}

func main() {
	status, err := run(os.Args[1:], os.Getenv("PREFORK_NO_SKIP") != "")
	if err != nil {
		fmt.Fprintln(os.Stderr, "gotest:", err)
	}
	os.Exit(status)
}

// run returns go test's own status, or 1 with an error.
func run(args []string, noSkip bool) (int, error) {
	flags := slices.IndexFunc(args, func(a string) bool { return strings.HasPrefix(a, "-") })
	if flags < 1 {
		return 1, fmt.Errorf("arguments %q: want directories of modules, and flags", args)
	}
	r := &report{out: os.Stdout, open: map[string]map[string]string{}}
	status := 0
	for _, module := range args[:flags] {
		code, err := r.test(module, args[flags:])
		if err != nil {
			return 1, err
		}
		status = max(status, code)
	}
	r.close()
	switch {
	case status != 0:
		return status, nil
	case noSkip && len(r.skipped) > 0:
		return 1, errors.New("tests were skipped, and none may be")
	case noSkip && r.passed == 0:
		return 1, errors.New("no test ran")
	}
	return 0, nil
}

// test returns the status of go test in a module.
func (r *report) test(module string, args []string) (int, error) {
	cmd := exec.Command("go", append([]string{"-C", module, "test", "-json"}, args...)...)
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return 1, err
	}
	if err := cmd.Start(); err != nil {
		return 1, err
	}
	readErr := r.read(stdout)
	err = cmd.Wait()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		return max(exit.ExitCode(), 1), nil
	case err != nil:
		return 1, err
	case readErr != nil:
		return 1, fmt.Errorf("read go test's output: %w", readErr)
	}
	return 0, nil
}

func (r *report) read(in io.Reader) error {
	lines := bufio.NewReader(in)
	for {
		line, err := lines.ReadString('\n')
		if line != "" {
			r.line(line)
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (r *report) line(line string) {
	var e event
	if json.Unmarshal([]byte(line), &e) != nil {
		fmt.Fprint(r.out, line) // not an event: go test itself speaks
		return
	}
	switch {
	case e.Action == "build-output":
		fmt.Fprint(r.out, e.Output)
	case e.Action == "output":
		r.output(e)
	case e.Test != "":
		r.endTest(e)
	case e.Action == "pass" || e.Action == "fail":
		r.endPackage(e)
	}
}

// output shows what packages write, and keeps what tests write.
func (r *report) output(e event) {
	switch {
	case e.Test == "":
		if e.Output != "PASS\n" {
			fmt.Fprint(r.out, e.Output)
		}
	case strings.HasPrefix(e.Output, "=== "): // RUN, PAUSE, CONT, NAME
	default:
		if r.open[e.Package] == nil {
			r.open[e.Package] = map[string]string{}
		}
		r.open[e.Package][e.Test] += e.Output
	}
}

func (r *report) endTest(e event) {
	text := r.open[e.Package][e.Test]
	switch e.Action {
	case "pass":
		r.passed++
	case "skip":
		r.skipped = append(r.skipped, fmt.Sprintf("%s %s: %s", e.Package, e.Test, lastWords(text)))
	case "fail":
		r.failed++
		fmt.Fprint(r.out, text)
	default:
		return
	}
	delete(r.open[e.Package], e.Test)
}

// lastWords is the last line that a test wrote before it ended: why it skips.
func lastWords(text string) string {
	words := ""
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); !strings.HasPrefix(line, "--- ") {
			words = line
		}
	}
	return words
}

// endPackage shows the tests that a crash left without an end.
func (r *report) endPackage(e event) {
	if e.Action == "fail" {
		for _, text := range r.open[e.Package] {
			fmt.Fprint(r.out, text)
		}
	}
	delete(r.open, e.Package)
}

func (r *report) close() {
	slices.Sort(r.skipped)
	for _, name := range r.skipped {
		fmt.Fprintln(r.out, "skipped:", name)
	}
	fmt.Fprintf(r.out, "%d passed, %d failed, %d skipped\n", r.passed, r.failed, len(r.skipped))
}
