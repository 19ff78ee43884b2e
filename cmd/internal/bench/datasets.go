package main

import (
	"context"
	"embed"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

//go:embed scripts
var scripts embed.FS

// dataset describes one directory of metric files. All processes carry the same series, as they do behind one
// server.
type dataset struct {
	name      string
	processes int
	series    int  // entries per process, about
	histogram int  // percentage of them in histograms
	ruby      bool // measured with Ruby's files too
	churn     bool // workers and series come and go between two scrapes
}

func allDatasets() []dataset {
	return []dataset{
		{name: "D1", processes: 8, series: 200, histogram: 40, ruby: true},
		{name: "D2", processes: 64, series: 1000, histogram: 40, ruby: true},
		{name: "D3", processes: 512, series: 1000, histogram: 40, ruby: true},
		{name: "D4", processes: 2048, series: 245, histogram: 40},
		{name: "D5", processes: 16, series: 20000, histogram: 90},
		{name: "D6", processes: 64, series: 1000, histogram: 40, churn: true},
	}
}

const (
	counterFamilies    = 5
	gaugeFamilies      = 4
	entriesOfHistogram = 16 // per label set
)

// labelSets returns how many label sets each family of a kind gets. What histograms leave is five parts
// counters and one part gauges.
func (d dataset) labelSets() (counters, histograms, gauges int) {
	rest := d.series * (100 - d.histogram) / 100
	histograms = d.series * d.histogram / 100 / entriesOfHistogram
	return rest * 5 / 6 / counterFamilies, histograms, rest / 6 / gaugeFamilies
}

// arguments are what the generator scripts take after the directory.
func (d dataset) arguments() []string {
	counters, histograms, gauges := d.labelSets()
	return strings.Fields(fmt.Sprint(d.processes, counters, histograms, gauges))
}

// writtenBy says whether the data set is measured with the files of p.
func (d dataset) writtenBy(p *peer) bool { return p.files == pythonFiles || d.ruby }

// workspace is where a run keeps its files: scratch, which always goes, and the data sets, which --keep keeps.
type workspace struct {
	scratch string
	scripts string
	data    string
	keep    bool
	made    []string // what to remove; data itself may be a directory of the user's
}

func newWorkspace(o options) (*workspace, error) {
	parent := ""
	if o.tmpfs {
		parent = "/dev/shm"
	}
	scratch, err := os.MkdirTemp("", "prefork-bench-")
	if err != nil {
		return nil, fmt.Errorf("make a scratch directory: %w", err)
	}
	ws := &workspace{scratch: scratch, scripts: filepath.Join(scratch, "scripts"), data: o.data, keep: o.keep}
	if ws.data == "" {
		ws.data, err = os.MkdirTemp(parent, "prefork-bench-data-")
	} else {
		err = os.MkdirAll(ws.data, 0o755)
	}
	if err == nil && o.data == "" {
		ws.made = append(ws.made, ws.data)
	}
	if err == nil {
		err = os.CopyFS(scratch, scripts)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make directories: %w", err), ws.remove())
	}
	return ws, nil
}

// remove deletes what the run made. A kept data directory is left where it is.
func (ws *workspace) remove() error {
	errs := []error{os.RemoveAll(ws.scratch)}
	if !ws.keep {
		for _, path := range ws.made {
			errs = append(errs, os.RemoveAll(path))
			_ = os.Remove(filepath.Dir(path)) // only when nothing else is in it
		}
	}
	return errors.Join(errs...)
}

// build compiles programs of this module into scratch, as they are shipped.
func (ws *workspace) build(ctx context.Context, programs ...string) error {
	args := []string{"build", "-trimpath", "-o", ws.scratch + string(filepath.Separator)}
	for _, program := range programs {
		args = append(args, "github.com/prefork-exporter/prefork_exporter/"+program)
	}
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w: %s", strings.Join(programs, ", "), err, text)
	}
	return nil
}

// program returns the path of one that was built.
func (ws *workspace) program(name string) string { return filepath.Join(ws.scratch, name) }

// fill returns the directory of d that the library p wrote, and has it written unless an earlier run left the
// same one. A directory that no run has marked as its own is never touched.
func (ws *workspace) fill(ctx context.Context, d dataset, p *peer) (string, error) {
	dir := filepath.Join(ws.data, d.name, p.files)
	stamp := dir + ".made"
	want := fmt.Sprintln(p.name, d.arguments())
	if got, err := os.ReadFile(stamp); err == nil && string(got) == want {
		return dir, nil // a run with --keep made it, so it is not ours to remove
	} else if err == nil {
		if err := os.RemoveAll(dir); err != nil {
			return "", fmt.Errorf("remove an older data set: %w", err)
		}
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return "", fmt.Errorf("make a data set: %w", err)
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return "", fmt.Errorf("make a data set: %w", err)
	}
	ws.made = append(ws.made, dir, stamp)
	if err := p.generate(ctx, "fill", dir, d.arguments()...); err != nil {
		return "", errors.Join(err, os.RemoveAll(dir)) // a part of a data set is not worth keeping
	}
	return dir, os.WriteFile(stamp, []byte(want), 0o644)
}

// copy gives a contender that needs the directory for itself its own one. Copies are never kept.
func (ws *workspace) copy(dir string) (string, error) {
	to, err := os.MkdirTemp(filepath.Dir(dir), "copy-")
	if err != nil {
		return "", fmt.Errorf("copy a data set: %w", err)
	}
	if err := os.CopyFS(to, os.DirFS(dir)); err != nil {
		return "", errors.Join(fmt.Errorf("copy a data set: %w", err), os.RemoveAll(to))
	}
	return to, nil
}

// usedBytes adds up what the headers in dir say is used: what a reader has to read.
func usedBytes(dir string) (bytes int64, files int, err error) {
	err = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		used, err := usedOf(path)
		bytes, files = bytes+used, files+1
		return err
	})
	return bytes, files, err
}

func usedOf(path string) (int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	var header [4]byte
	if _, err := io.ReadFull(f, header[:]); err != nil {
		return 0, fmt.Errorf("read the header of %s: %w", path, err)
	}
	return int64(binary.NativeEndian.Uint32(header[:])), nil
}
