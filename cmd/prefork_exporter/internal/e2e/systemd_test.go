package e2e

import (
	"os/exec"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// A real systemd passes a socket, hears how the master is, and ends one that hangs.
func TestSystemdKeepsAMaster(t *testing.T) {
	need(t, peer{"/lib/systemd/systemd", "systemd"}, peer{"/usr/bin/unshare", "util-linux"}, peer{"/usr/bin/curl", "curl"})
	cmd := exec.Command("unshare", "--map-root-user", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc",
		"bash", testdata(t, "systemd.sh"), program, workerProgram, freeAddress(t), freeAddress(t))
	cmd.Env = environment(t.TempDir(), nil)
	out, err := cmd.CombinedOutput()
	const want = `answer: worker
state: active, 2 of 2 workers run
after a reload and an upgrade: active, the same process
answer: worker
a master that stands still: watchdog
answer: worker
stopped: success, 0
`
	if diff := cmp.Diff(want, string(out)); diff != "" || err != nil {
		t.Errorf("systemd: %v (-want +got):\n%s", err, diff)
	}
}
