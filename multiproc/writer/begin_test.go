package writer

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"unsafe"
)

func TestAFileThatIsCutAsItBegins(t *testing.T) {
	path := filepath.Join(t.TempDir(), "counter_1.db")
	f := newFile(path, func(err error) { t.Errorf("unexpected: %v", err) })
	fd, err := lock(path, os.O_CREATE)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = fd.Close() }()
	if err := f.extend(fd, initialSize); err != nil {
		t.Fatal(err)
	}
	f.used = (*uint32)(unsafe.Pointer(&f.segments[0].data[0]))
	if err := os.Truncate(path, 0); err != nil {
		t.Fatal(err)
	}
	if err := f.begin(); !errors.Is(err, errCut) {
		t.Errorf("error %v, want that it was cut", err)
	}
	if err := f.begin(); err != nil {
		t.Errorf("in memory: %v", err)
	}
}
