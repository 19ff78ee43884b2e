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
func MarkProcessDead(dir, id string) (err error) {
	if !validID(id) {
		return fmt.Errorf("mark process dead: %w", errID(id))
	}
	for _, mode := range []Mode{ModeLiveAll, ModeLiveMin, ModeLiveMax, ModeLiveSum, ModeLiveMostRecent} {
		e := os.Remove(filepath.Join(dir, "gauge_"+string(mode)+"_"+id+".db"))
		if e != nil && !errors.Is(e, os.ErrNotExist) {
			err = errors.Join(err, fmt.Errorf("mark process dead: %w", e))
		}
	}
	return err
}
