package writer

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// MarkProcessDead deletes the files of live gauges that the process with that id, or
// with that [Options].ID, has left in dir: for a master, when a worker has ended that
// could not close its writer. It is client_python's mark_process_dead.
func MarkProcessDead(dir, id string) error {
	if !validID(id) {
		return fmt.Errorf("mark process dead: %w", errID(id))
	}
	paths, err := filepath.Glob(filepath.Join(escaped(dir), "gauge_live*_"+id+".db"))
	for _, path := range paths {
		if e := os.Remove(path); !errors.Is(e, os.ErrNotExist) {
			err = errors.Join(err, e)
		}
	}
	if err != nil {
		return fmt.Errorf("mark process dead: %w", err)
	}
	return nil
}

// escaped returns a path as a pattern that only it matches.
func escaped(path string) string {
	var out []rune
	for _, r := range path {
		switch r {
		case '*', '?', '[', '\\':
			out = append(out, '\\')
		}
		out = append(out, r)
	}
	return string(out)
}
