//go:build !linux

package exits

import "errors"

// Watcher watches processes, on Linux only.
type Watcher struct{}

// Open returns [errors.ErrUnsupported].
func Open(Options) (*Watcher, error) { return nil, errors.ErrUnsupported }

// Deaths never tells of one.
func (w *Watcher) Deaths() <-chan Death { return nil }

// Add watches nothing.
func (w *Watcher) Add(Process) error { return errors.ErrUnsupported }

// Remove does nothing.
func (w *Watcher) Remove(Process) {}

// Feature tells nothing.
func (w *Watcher) Feature() Feature { return Feature{} }

// Close does nothing.
func (w *Watcher) Close() error { return nil }
