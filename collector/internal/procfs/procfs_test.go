package procfs

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const line = "7 (a ) b (c) S 1 2 3 0 -1 4194368 100 0 0 0 250 50 30 10 20 0 3 0 4242 1000000 500 18446744073709551615 " +
	"0 0 0 0 0 0 0 0 0 0 0 0 17 1 0 0 0 0 0 0 0 0 0 0 0 0 9\n"

func TestWhatTheKernelTellsOfAProcess(t *testing.T) {
	want := Stat{
		PID: 7, Parent: 1, Group: 2, Session: 3, Name: "a ) b (c", State: 'S', Forked: true,
		User: 250, System: 50, ChildrenUser: 30, ChildrenSystem: 10, Threads: 3, Start: 4242, ResidentPages: 500, ExitCode: 9,
	}
	got, err := ParseStat([]byte(line))
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Error(err, diff)
	}
	old := "7 (x) Z 1 2 3 0 -1 0 100 0 0 0 250 50 30 10 20 0 1 0 4242 1000000 500" // before there was an exit code
	if got, err := ParseStat([]byte(old)); err != nil || !got.Gone() || got.Forked || got.ExitCode != 0 {
		t.Errorf("%+v, %v", got, err)
	}
	first := "7 (x) Z 1 2 3 0 -1 0 100 0 0 0 250 50 30 10 20 0 2 0 4242 1000000 500" // thread, which has ended
	if got, err := ParseStat([]byte(first)); err != nil || got.Gone() {
		t.Errorf("%+v, %v; want one whose other thread lives", got, err)
	}
}

func TestWhatIsNoProcess(t *testing.T) {
	for name, text := range map[string]string{
		"nothing":                     "",
		"no name":                     "7 x S 1 2 3",
		"a name that does not end":    "7 (x",
		"brackets the wrong way":      "7 )x( S 1",
		"no process id":               "a (x) S 1 2 3 0 -1 0 100 0 0 0 250 50 30 10 20 0 3 0 4242 1000000 500",
		"a state of two letters":      "7 (x) SS 1 2 3 0 -1 0 100 0 0 0 250 50 30 10 20 0 3 0 4242 1000000 500",
		"too few fields":              "7 (x) S 1 2 3 0 -1 0 100 0 0 0 250 50 30 10 20 0 3 0 4242 1000000",
		"a word in place of a number": "7 (x) S 1 2 3 0 -1 0 100 0 0 0 a 50 30 10 20 0 3 0 4242 1000000 500",
		"a number that is too large":  "7 (x) S 1 2 3 0 -1 0 100 0 0 0 99999999999999999999 50 30 10 20 0 3 0 4242 1000000 500",
	} {
		if got, err := ParseStat([]byte(text)); err == nil {
			t.Errorf("%s: %+v, want an error", name, got)
		}
	}
}

func FuzzStat(f *testing.F) {
	f.Add([]byte(line))
	f.Add([]byte(") ("))
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := ParseStat(b); err == nil && s.State == 0 {
			t.Errorf("%q has no state", b)
		}
	})
}

func TestWhatTheKernelTellsMoreOfAProcess(t *testing.T) {
	const text = "Name:\tx\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\nvoluntary_ctxt_switches:\t9\nnonvoluntary_ctxt_switches:\t10\n"
	got, err := ParseStatus([]byte(text))
	if want := (Status{UID: 2, GID: 6, Voluntary: 9, Involuntary: 10}); got != want || err != nil {
		t.Errorf("%+v, %v; want %+v", got, err, want)
	}
	for name, text := range map[string]string{
		"nothing":             "",
		"a line is missing":   "Uid:\t1\t2\nGid:\t5\t6\nvoluntary_ctxt_switches:\t9\n",
		"too few numbers":     "Uid:\t1\nGid:\t5\t6\nvoluntary_ctxt_switches:\t9\nnonvoluntary_ctxt_switches:\t10\n",
		"a word for a number": "Uid:\t1\troot\nGid:\t5\t6\nvoluntary_ctxt_switches:\t9\nnonvoluntary_ctxt_switches:\t10\n",
		"a number below zero": "Uid:\t1\t-1\nGid:\t5\t6\nvoluntary_ctxt_switches:\t9\nnonvoluntary_ctxt_switches:\t10\n",
		"the same line twice": "Uid:\t1\t2\nUid:\t1\t2\nGid:\t5\t6\nvoluntary_ctxt_switches:\t9\n",
	} {
		if got, err := ParseStatus([]byte(text)); err == nil {
			t.Errorf("%s: %+v, want an error", name, got)
		}
	}
}

func write(t *testing.T, root, name, text string) {
	t.Helper()
	name = filepath.Join(root, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, []byte(text), 0o644)); err != nil {
		t.Fatal(err)
	}
}

func TestAMountedFileSystem(t *testing.T) {
	root := t.TempDir()
	for name, text := range map[string]string{
		"7/stat": line, "7/cmdline": "a\x00\x00b c\x00", "7/task/7/children": "9 8 \n", "7/task/10/children": "11 ", "7/status": "x",
		"8/cmdline": "", "8/stat": "x", "8/task/8/children": "x", "9/task/9/other": "", "self": "", "0/stat": "", "-3/stat": "",
	} {
		write(t, root, name, text)
	}
	f := New(root)
	if got, err := f.PIDs(); err != nil || !slices.Equal(got, []int{7, 8, 9}) {
		t.Errorf("processes %v, %v", got, err)
	}
	if got, err := f.Stat(7); err != nil || got.Start != 4242 {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := f.Args(7); err != nil || !slices.Equal(got, []string{"a", "", "b c"}) {
		t.Errorf("command line %q, %v", got, err)
	}
	if got, err := f.Args(8); err != nil || got != nil {
		t.Errorf("command line %q, %v; want none", got, err)
	}
	if got, err := f.Children(7); err != nil || !slices.Equal(got, []int{11, 9, 8}) {
		t.Errorf("children %v, %v", got, err)
	}
	for pid, want := range map[int][]int{1: {7}, 7: {11, 9, 8}, 12: nil} {
		relatives := f.Relatives()
		if pid == 1 { // which does not tell its own
			write(t, root, "1/stat", "1 (x) S 0 1 1 0 -1 0 100 0 0 0 250 50 30 10 20 0 1 0 42 1000000 500")
			write(t, root, "1/task/1/none", "")
		}
		if got, err := relatives.Children(pid); err != nil || !slices.Equal(got, want) {
			t.Errorf("children of %d: %v, %v; want %v", pid, got, err, want)
		}
	}
	for name, err := range map[string]error{
		"a state that is none": second(f.Stat(8)), "a status that is none": second(f.Status(7)), "children that are none": second(f.Children(8)),
	} {
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, err := range map[string]error{
		"no such process":                    second(f.Stat(12)),
		"no such process has a status":       second(f.Status(12)),
		"no such process has a command line": second(f.Args(12)),
		"no such process has children":       second(f.Children(12)),
		"a kernel that tells no children":    second(f.Children(9)),
		"no file system":                     second(New(root + "/none").PIDs()),
	} {
		if !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v, want ErrNotExist", name, err)
		}
	}
}

func second[T any](_ T, err error) error { return err }
