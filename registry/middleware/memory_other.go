//go:build !linux

package middleware

import "runtime/metrics"

// residentMemory returns the bytes of memory that the Go runtime has mapped and
// not given back.
func residentMemory() int64 {
	s := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	metrics.Read(s)
	return int64(s[0].Value.Uint64() - s[1].Value.Uint64())
}
