//go:build !linux

package app

func leaveProgram() {}
