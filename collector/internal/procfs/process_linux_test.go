package procfs_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prefork-exporter/prefork_exporter/collector/internal/procfs"
)

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// held opens a process.
func held(t *testing.T, f procfs.FS, pid int) *procfs.Process {
	t.Helper()
	p, err := f.Open(pid)
	must(t, err)
	t.Cleanup(func() { must(t, p.Close()) })
	return p
}

// A process that is held is read, or nobody is.
func TestAProcessThatHasEndedIsNotThere(t *testing.T) {
	cmd := exec.Command("sleep", "1000")
	must(t, cmd.Start())
	p := held(t, procfs.New("/proc"), cmd.Process.Pid)
	reads := map[string]func() error{
		"stat":    func() error { _, err := p.Stat(); return err },
		"status":  func() error { _, err := p.Status(); return err },
		"memory":  func() error { _, err := p.Memory(); return err },
		"threads": func() error { _, err := p.Threads(10); return err },
		"files":   func() error { _, err := p.OpenFiles(); return err },
	}
	for name, read := range reads {
		if err := read(); err != nil {
			t.Errorf("%s of a living process: %v", name, err)
		}
	}
	must(t, cmd.Process.Kill())
	_ = cmd.Wait()
	for name, read := range reads {
		if err := read(); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s of a process that has ended: %v, want that it is not there", name, err)
		}
	}
	if _, err := procfs.New("/proc").Open(1 << 30); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("opened a process that is not there: %v", err)
	}
}

func TestThreadsAreBounded(t *testing.T) {
	root := t.TempDir()
	for id := range 5 {
		dir := filepath.Join(root, "7", "task", fmt.Sprint(id))
		must(t, os.MkdirAll(dir, 0o755))
		status := fmt.Sprintf("Uid: 1 1 1 1\nGid: 1 1 1 1\nvoluntary_ctxt_switches: %d\nnonvoluntary_ctxt_switches: 3\n", id)
		must(t, os.WriteFile(filepath.Join(dir, "status"), []byte(status), 0o644))
	}
	p := held(t, procfs.New(root), 7)
	if got, err := p.Threads(5); err != nil || len(got) != 5 || got[4].Voluntary != 4 || got[4].Involuntary != 3 {
		t.Errorf("%v, %v; want five", got, err)
	}
	if got, err := p.Threads(4); err == nil {
		t.Errorf("%v, want an error: they are five", got)
	}
	must(t, os.Remove(filepath.Join(root, "7", "task", "4", "status")))
	if got, err := p.Threads(5); err != nil || len(got) != 4 {
		t.Errorf("%v, %v; want the four that are left", got, err)
	}
}

// Before Linux 6.2 files are counted: as what is in the directory fdinfo still.
func TestFilesAreCounted(t *testing.T) {
	cmd := exec.Command("sh", "-c", "echo; read x")
	for range 5 {
		f, err := os.Open(os.DevNull)
		must(t, err)
		t.Cleanup(func() { _ = f.Close() })
		cmd.ExtraFiles = append(cmd.ExtraFiles, f)
	}
	_, err := cmd.StdinPipe() // it has nothing to read
	must(t, err)
	stdout, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	defer func() { _, _ = cmd.Process.Kill(), cmd.Wait() }()
	_, err = stdout.Read(make([]byte, 1)) // it opens no more files
	must(t, err)
	truth, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", cmd.Process.Pid))
	must(t, err)
	root := t.TempDir()
	must(t, os.Mkdir(filepath.Join(root, "7"), 0o755))
	must(t, os.Symlink(fmt.Sprintf("/proc/%d/fdinfo", cmd.Process.Pid), filepath.Join(root, "7", "fd")))
	for name, p := range map[string]*procfs.Process{
		"told": held(t, procfs.New("/proc"), cmd.Process.Pid), "counted": held(t, procfs.New(root), 7),
	} {
		if n, err := p.OpenFiles(); err != nil || n < 3+5 || n != len(truth) {
			t.Errorf("%s: %d files, %v; want %d", name, n, err, len(truth))
		}
	}
}

// A file may be longer than what is read at once.
func TestLongFilesAreReadToTheirEnd(t *testing.T) {
	root := t.TempDir()
	must(t, os.Mkdir(filepath.Join(root, "7"), 0o755))
	text := strings.Repeat("Groups: 1 2 3\n", 10_000) + "Uid: 1 1 1 1\nGid: 1 1 1 1\nvoluntary_ctxt_switches: 8\nnonvoluntary_ctxt_switches: 3\n"
	must(t, os.WriteFile(filepath.Join(root, "7", "status"), []byte(text), 0o644))
	if got, err := held(t, procfs.New(root), 7).Status(); err != nil || got.Voluntary != 8 {
		t.Errorf("%+v, %v", got, err)
	}
}

const rollup = "55d23a253000-7ffd82259000 ---p 00000000 00:00 0                          [rollup]\n" +
	"Rss:                1728 kB\nPss:                 394 kB\nPss_Dirty:           112 kB\n" +
	"Private_Clean:       100 kB\nPrivate_Dirty:       112 kB\nPrivate_Hugetlb:    2048 kB\n"

func TestMemoryShares(t *testing.T) {
	for name, tc := range map[string]struct {
		text string
		want procfs.Memory // zero: an error
	}{
		"all":              {rollup, procfs.Memory{Proportional: 394 << 10, Unique: (100 + 112 + 2048) << 10}},
		"no huge pages":    {strings.Replace(rollup, "Private_Hugetlb", "Else", 1), procfs.Memory{Proportional: 394 << 10, Unique: 212 << 10}},
		"nothing":          {"", procfs.Memory{}},
		"no Pss":           {strings.Replace(rollup, "Pss:", "Else:", 1), procfs.Memory{}},
		"no Private_Clean": {strings.Replace(rollup, "Private_Clean", "Else", 1), procfs.Memory{}},
		"no Private_Dirty": {strings.Replace(rollup, "Private_Dirty", "Else", 1), procfs.Memory{}},
		"no number":        {strings.Replace(rollup, "394", "lots", 1), procfs.Memory{}},
		"more than can be": {strings.Replace(rollup, "394", "18446744073709551615", 1), procfs.Memory{}},
		"another unit":     {strings.Replace(rollup, "394 kB", "394 MB", 1), procfs.Memory{}},
	} {
		got, err := procfs.ParseMemory([]byte(tc.text))
		if got != tc.want || (err == nil) != (tc.want != procfs.Memory{}) {
			t.Errorf("%s: %+v, %v; want %+v", name, got, err, tc.want)
		}
	}
}

func FuzzMemory(f *testing.F) {
	f.Add([]byte(rollup))
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, err := procfs.ParseMemory(b); err != nil && m != (procfs.Memory{}) {
			t.Errorf("%+v beside an error", m)
		}
	})
}
