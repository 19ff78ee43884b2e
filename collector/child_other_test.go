//go:build !linux

package collector

import "errors"

func beChild(string) error { return errors.New("processes are measured on Linux only") }
