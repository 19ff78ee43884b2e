package app

import "github.com/prefork-exporter/prefork_exporter/cmd/internal/supervisor"

// leaveProgram gives back the pages of our own program, most of which only the start has
// needed.
func leaveProgram() { supervisor.ForgetProgram() }
