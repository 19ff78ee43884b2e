//go:build !linux

package main

import "github.com/spf13/cobra"

func becomeWorker() {}

// newSuperviseCommand returns none: a master is for Linux.
func newSuperviseCommand(environment) *cobra.Command { return nil }
