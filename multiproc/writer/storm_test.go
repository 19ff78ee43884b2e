//go:build !race

package writer_test

import (
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/prefork-exporter/prefork_exporter/multiproc/writer"
)

// The race detector makes atomic accesses in C, where a fault cannot become a panic:
// TestAFileThatIsCutAsItBegins is the form that it can run.
func TestAFileThatIsCutWhileItIsOpenedIsAnError(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "counter_1.db")
	stop := make(chan bool)
	var group sync.WaitGroup
	group.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				_ = os.Truncate(path, 0)
			}
		}
	})
	for range 300 {
		w, err := writer.Open(writer.Options{Dir: dir, ID: "1", OnError: func(error) {}})
		if err != nil {
			t.Fatal(err)
		}
		c := w.NewCounter(writer.Opts{Name: "a_total"})
		c.Inc()
		c.Value()
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	group.Wait()
}
