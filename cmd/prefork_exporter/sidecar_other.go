//go:build !linux

package main

import "github.com/spf13/cobra"

func begin() {}

// commandsWithSidecar returns none: a parent is for Linux.
func commandsWithSidecar(environment) []*cobra.Command { return nil }
