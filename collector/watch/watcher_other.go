//go:build !linux

package watch

import (
	"context"
	"errors"
)

// Watcher follows one master and its workers: on Linux only.
type Watcher struct{}

// New returns a watcher that knows nothing.
func New(Options) *Watcher { return &Watcher{} }

// State implements [Source].
func (*Watcher) State() (State, bool) { return State{}, false }

// Hear takes what a line of the server's log tells.
func (*Watcher) Hear(LogEvent) {}

// Run says that nothing can be watched here.
func (*Watcher) Run(context.Context) error { return errors.ErrUnsupported }
