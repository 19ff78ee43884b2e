package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"
)

// program is the path of the binary under test, and workerProgram that of the
// example worker. TestMain sets them before any test runs; nothing else does.
var program, workerProgram string

func TestMain(m *testing.M) {
	dir, err := build()
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(status int) {
		_ = os.RemoveAll(dir)
		os.Exit(status)
	}))
}

// build builds the programs into a new directory, and returns that. Another user
// can run them, for the tests of files that may not be read.
func build() (string, error) {
	dir, err := os.MkdirTemp("", "e2e-program-")
	if err != nil {
		return "", err
	}
	program, workerProgram = filepath.Join(dir, "prefork_exporter"), filepath.Join(dir, "prefork_worker")
	out, err := exec.Command("go", "build", buildFlags, "-o", dir, "../..", "../../../prefork_worker").CombinedOutput()
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		_ = os.RemoveAll(dir)
		return "", fmt.Errorf("build the programs: %w\n%s", err, out)
	}
	return dir, nil
}
