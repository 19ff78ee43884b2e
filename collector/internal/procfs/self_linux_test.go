package procfs

import (
	"errors"
	"io/fs"
	"os"
	"testing"
)

func TestSelf(t *testing.T) {
	if got, err := New("/proc").Self(); got != os.Getpid() || err != nil {
		t.Errorf("Self = %d, %v; want %d", got, err, os.Getpid())
	}
	dir := t.TempDir()
	if _, err := New(dir).Self(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Self where we are not there = %v", err)
	}
	if err := os.Symlink("nobody", dir+"/self"); err != nil {
		t.Fatal(err)
	}
	if got, err := New(dir).Self(); err == nil {
		t.Errorf("Self of a forged proc = %d", got)
	}
}
