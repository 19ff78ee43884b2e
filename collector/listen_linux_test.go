package collector

import (
	"net"
	"testing"
)

// BenchmarkListenSample takes one sample of ten listeners, beside a thousand connections.
func BenchmarkListenSample(b *testing.B) {
	o := ListenOptions{Logger: quiet()}
	var last net.Listener
	for range 10 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = l.Close() })
		a, err := ParseListenAddress(l.Addr().String())
		if err != nil {
			b.Fatal(err)
		}
		o.Addresses = append(o.Addresses, a)
		last = l
	}
	for range 1000 {
		client, err := net.Dial("tcp", last.Addr().String())
		if err != nil {
			b.Fatal(err)
		}
		server, err := last.Accept()
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _, _ = client.Close(), server.Close() })
	}
	c := NewListen(o)
	b.Cleanup(func() { _ = c.Close() })
	b.ReportAllocs()
	for b.Loop() {
		c.tick()
	}
	if len(c.queues) != 10 {
		b.Errorf("%d queues, want 10", len(c.queues))
	}
}
