package e2e

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// server is a real server that runs a test application.
type server struct {
	*process
	*client
}

// workers is how many workers the servers run.
const workers = 3

// startServer starts a server that is to listen on the address.
func startServer(t *testing.T, address string, cmd *exec.Cmd, env ...string) *server {
	t.Helper()
	return &server{process: start(t, cmd, env...), client: newClient(t, "tcp", address)}
}

// testdata returns the absolute path of a file in testdata.
func testdata(t *testing.T, name string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("testdata", name))
	must(t, err)
	return path
}

// processIDs returns the ids of the processes that have a file whose name begins with prefix.
func processIDs(t *testing.T, dir, prefix string) []string {
	t.Helper()
	var ids []string
	for _, name := range fileNames(t, dir) {
		if id, ok := strings.CutPrefix(strings.TrimSuffix(name, ".db"), prefix); ok {
			ids = append(ids, id)
		}
	}
	return ids
}
