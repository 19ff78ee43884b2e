//go:build !linux

package gunicorn

import (
	"context"
	"errors"

	"github.com/prefork-exporter/prefork_exporter/collector/internal/procfs"
)

// Control would ask a master; here it cannot. Its methods return [errors.ErrUnsupported].
type Control struct{}

// NewControl returns a control that cannot ask.
func NewControl(procfs.FS, int, []string) *Control { return &Control{} }

// Stats asks nobody.
func (*Control) Stats(context.Context) (Stats, error) { return Stats{}, errors.ErrUnsupported }

// Workers asks nobody.
func (*Control) Workers(context.Context) ([]ControlWorker, error) { return nil, errors.ErrUnsupported }

// Config asks nobody.
func (*Control) Config(context.Context) (Settings, error) { return Settings{}, errors.ErrUnsupported }
