package procfs

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"
)

func TestThisMachine(t *testing.T) {
	f := New("/proc")
	c := exec.Command("sleep", "1000")
	before := time.Now()
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	children, err := f.Children(os.Getpid()) // whichever thread has started it
	if !slices.Contains(children, c.Process.Pid) {
		t.Errorf("children %v, %v; want %d among them", children, err, c.Process.Pid)
	}
	s, err := f.Stat(c.Process.Pid)
	boot, bootErr := Boot()
	if err := errors.Join(err, bootErr); err != nil {
		t.Fatal(err)
	}
	if s.PID != c.Process.Pid || s.Parent != os.Getpid() {
		t.Errorf("%+v", s)
	}
	const tick = time.Second / TicksPerSecond
	if born := s.Born(boot); born.Before(before.Add(-2*tick)) || born.After(time.Now().Add(tick)) {
		t.Errorf("born at %v, want after %v", born, before)
	}
	status, err := f.Status(os.Getpid())
	if err != nil || status.UID != os.Geteuid() || status.GID != os.Getegid() {
		t.Errorf("%+v, %v", status, err)
	}
	if err := c.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = c.Wait() // by a signal
	if _, err := f.Stat(c.Process.Pid); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v of a process that has ended, want ErrNotExist", err)
	}
}
