package e2e

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// openTerminal returns both sides of a new terminal: the user's, and that of programs.
func openTerminal(t *testing.T) (user, programs *os.File) {
	t.Helper()
	user, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	must(t, err)
	t.Cleanup(func() { _ = user.Close() })
	must(t, unix.IoctlSetPointerInt(int(user.Fd()), unix.TIOCSPTLCK, 0))
	n, err := unix.IoctlGetInt(int(user.Fd()), unix.TIOCGPTN)
	must(t, err)
	programs, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	must(t, err)
	t.Cleanup(func() { _ = programs.Close() })
	return user, programs
}

// A terminal sends Ctrl-C to all of its foreground: workers hear of it from their master.
func TestCtrlCReachesEachWorkerOnce(t *testing.T) {
	user, programs := openTerminal(t)
	web := freeAddress(t)
	cmd := command("supervise", "--workers=2", "--ready-after=50ms", "--web.listen-address="+web, "--", "sh", "-c",
		`trap "echo got INT" INT; trap "exit 0" QUIT; while :; do sleep 0.01; done`)
	cmd.Stdin = programs
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	m := &master{exporter: startExporterCommand(t, web, cmd)}
	m.awaitWorkers(t, 2)
	_, err := user.WriteString("\x03")
	must(t, err)
	await(t, "both workers to hear of it", func() bool { return strings.Count(m.output(t, m.stdout), "got INT") >= 2 })
	_, err = user.WriteString("\x1c") // Ctrl-\, which is QUIT
	must(t, err)
	if status := m.status(t); status != 0 {
		t.Errorf("status %d, want 0", status)
	}
	if n := strings.Count(m.output(t, m.stdout), "got INT"); n != 2 {
		t.Errorf("%d times INT for two workers", n)
	}
}
