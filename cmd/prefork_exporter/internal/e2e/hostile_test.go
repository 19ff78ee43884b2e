package e2e

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// hostile is something in a metric directory that harms a reader that trusts it.
type hostile struct {
	make   func(t *testing.T, path string)
	reason string // that it is counted by; "" if nothing is wrong with it
}

// hostiles returns what may cost itself only.
func hostiles() map[string]hostile {
	link := func(to string) func(*testing.T, string) {
		return func(t *testing.T, path string) { must(t, os.Symlink(to, path)) }
	}
	file := func(content []byte, mode os.FileMode) func(*testing.T, string) {
		return func(t *testing.T, path string) { must(t, os.WriteFile(path, content, mode)) }
	}
	return map[string]hostile{
		"a pipe":                              {pipe, "not_regular"},
		"a socket":                            {socket, "not_regular"},
		"a directory":                         {directory, "not_regular"},
		"a link to a file elsewhere":          {link("/etc/passwd"), "not_regular"},
		"a link to a metric file":             {link("counter_1.db"), "not_regular"},
		"a link to nothing":                   {link("nothing"), "not_regular"},
		"a link to itself":                    {link(hostileName), "not_regular"},
		"a device":                            {device, "not_regular"},
		"a file without permission":           {file(fileBytes(jobs("mail", 7)), 0), "open"},
		"a file that is not begun":            {file(nil, 0o644), "empty"},
		"a text":                              {file([]byte("There is no metric in here."), 0o644), "truncated"},
		"a gigabyte of nothing":               {sparse(0), ""},
		"a gigabyte that claims to be in use": {sparse(1 << 30), "corrupt"},
	}
}

func pipe(t *testing.T, path string) {
	t.Helper()
	must(t, unix.Mkfifo(path, 0o644))
}

func directory(t *testing.T, path string) {
	t.Helper()
	must(t, os.Mkdir(path, 0o755))
}

func socket(t *testing.T, path string) {
	t.Helper()
	l, err := net.Listen("unix", path)
	must(t, err)
	t.Cleanup(func() { _ = l.Close() })
}

// device makes a device that is read without an end, where that is permitted.
func device(t *testing.T, path string) {
	t.Helper()
	err := unix.Mknod(path, unix.S_IFCHR|0o644, int(unix.Mkdev(1, 5))) // as /dev/zero
	if errors.Is(err, unix.EPERM) {
		t.Skip("this user may not make a device: root may, with the capability MKNOD")
	}
	must(t, err)
}

// hostileName comes between the names of good files.
const hostileName = "counter_5.db"

// sparse makes a file of a gigabyte whose header claims that so much is in use.
func sparse(used uint32) func(t *testing.T, path string) {
	return func(t *testing.T, path string) {
		t.Helper()
		must(t, os.WriteFile(path, binary.LittleEndian.AppendUint32(nil, used), 0o644))
		must(t, os.Truncate(path, 1<<30))
	}
}

// startExporterAsNobody starts the exporter as a user who may not read
// everything, where that can be done.
func startExporterAsNobody(t *testing.T, dir string) *exporter {
	t.Helper()
	address := freeAddress(t)
	cmd := command("--multiproc.dir", dir, "--web.listen-address", address)
	if os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	}
	return startExporterCommand(t, address, cmd)
}

func TestHostileFileCostsItselfOnly(t *testing.T) {
	for name, tc := range hostiles() {
		t.Run(name, func(t *testing.T) {
			dir := openDir(t)
			writeFile(t, dir, "counter_1.db", fileBytes(jobs("mail", 3), jobs("print", 4)))
			tc.make(t, filepath.Join(dir, hostileName))
			writeFile(t, dir, "counter_9.db", fileBytes(jobs("mail", 5)))
			e := startExporterAsNobody(t, dir)

			want := map[string]float64{jobsSeries("mail"): 8, jobsSeries("print"): 4}
			faults := map[string]float64{}
			for range 3 {
				got := e.scrape(t)
				if diff := cmp.Diff(want, got.application().samples); diff != "" {
					t.Fatalf("samples (-want +got):\n%s", diff)
				}
				faults = risingFaults(t, faults, got, tc.reason)
			}
			log := e.output(t, e.stderr)
			if n := strings.Count(log, "file="+hostileName); tc.reason != "" && n != 1 || n > 1 {
				t.Errorf("the log names the file %d times:\n%s", n, log)
			}
		})
	}
}

// risingFaults returns the counts of faults by reason, and fails the test when
// another has risen since before than reason's, or that one has not.
func risingFaults(t *testing.T, before map[string]float64, got scraped, reason string) map[string]float64 {
	t.Helper()
	now := map[string]float64{}
	for s, v := range got.samples {
		if !isOf(s, "prefork_multiproc_file_errors_total") {
			continue
		}
		now[s] = v
		if mine := s == series("prefork_multiproc_file_errors_total", "reason", reason); mine != (v > before[s]) {
			t.Errorf("%s was %v, is %v: want reason %q to rise alone", s, before[s], v, reason)
		}
	}
	return now
}

func TestFiftyThousandFilesAreMerged(t *testing.T) {
	const files = 50_000
	dir := t.TempDir()
	content := fileBytes(jobs("mail", 1), jobs("print", 2))
	for id := range files {
		writeFile(t, dir, fmt.Sprintf("counter_%d.db", id), content)
	}
	e := startExporter(t, dir)
	want := map[string]float64{jobsSeries("mail"): files, jobsSeries("print"): 2 * files}
	for _, what := range []string{"first scrape", "second scrape"} {
		got := e.scrape(t)
		if diff := cmp.Diff(want, got.application().samples); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
		if n := got.samples[series("prefork_multiproc_files", "state", "alive")]; n != files {
			t.Errorf("%s: prefork_multiproc_files = %v, want %d", what, n, files)
		}
	}
}
