package middleware

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestResidentMemoryIsThatOfThisProcess(t *testing.T) {
	before := residentMemory()
	b := make([]byte, 64<<20)
	for i := 0; i < len(b); i += 1 << 10 {
		b[i] = 1
	}
	after := residentMemory()
	if more := after - before; before < 1<<20 || more < 32<<20 || more > 512<<20 { // the race detector has its shadow of it
		t.Errorf("%d bytes, and %d with 64 MiB more", before, after)
	}
	_ = b
}

func TestMemoryIsLookedAtOnceASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, looks := newRetirement(Limits{}), 0
		time.Sleep(time.Millisecond)
		for range 25 { // 5 seconds
			if r.due(time.Now()) {
				looks++
			}
			time.Sleep(200 * time.Millisecond)
		}
		if looks != 5 {
			t.Errorf("%d looks in 5 s, want 5", looks)
		}
	})
}
