//go:build !linux

package sockdiag

import (
	"errors"
	"time"
)

// Kernel cannot be asked here.
type Kernel struct{}

// New returns a Kernel that knows nothing.
func New() *Kernel { return &Kernel{} }

// NewAt returns a Kernel that knows nothing.
func NewAt(string) *Kernel { return &Kernel{} }

var errNotLinux = errors.New("accept queues are read on Linux only")

// Close does nothing.
func (*Kernel) Close() error { return nil }

// Listening returns an error.
func (*Kernel) Listening() (Listening, error) { return Listening{}, errNotLinux }

// Oldest returns an error.
func (*Kernel) Oldest([]Socket) (map[Address]time.Duration, error) { return nil, errNotLinux }

// Held returns an error.
func (*Kernel) Held(int) (map[uint64]bool, error) { return nil, errNotLinux }

// Accepted returns an error.
func (*Kernel) Accepted([]Socket, func(Connection)) error { return errNotLinux }

// Sockets returns an error.
func (*Kernel) Sockets(int, int, func(string, uint64)) (int, error) { return 0, errNotLinux }

// SocketAt knows none.
func (*Kernel) SocketAt(int, string) (uint64, bool) { return 0, false }
