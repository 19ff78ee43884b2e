package writer

import (
	"testing"
	"time"
)

// StartLater has w take this process for one that began just now.
func StartLater(_ *testing.T, w *Writer) {
	if !w.started.IsZero() {
		w.started = time.Now()
	}
}
