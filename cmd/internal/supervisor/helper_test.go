package supervisor

import (
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"testing"

	"github.com/prefork-exporter/prefork_exporter/registry/notify"
)

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

// TestTheWorkerOfTests is a worker when the environment says so.
func TestTheWorkerOfTests(t *testing.T) {
	if os.Getenv("SUPERVISOR_TEST_WORKER") == "" {
		return
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM)
	if err := notify.Ready(); err != nil {
		t.Fatal(err)
	}
	<-signals
}
