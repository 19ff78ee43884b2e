package supervisor

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
)

// reportVersion is the form of reports that this program writes and reads.
const reportVersion = 1

// maxReport is more than any report has.
const maxReport = 8 << 20

// HearReports hands on each report that comes over a socket that [Sidecar] made,
// until that ends: with io.EOF when the supervisor has. What is no report is an error
// for wrong, and the next one is read.
func HearReports(socket *os.File, take func(Report), wrong func(error)) error {
	conn, err := net.FileConn(socket)
	if err := errors.Join(err, socket.Close()); err != nil {
		return fmt.Errorf("hear the supervisor: %w", err)
	}
	defer func() { _ = conn.Close() }()
	b := make([]byte, maxReport)
	for {
		n, err := conn.Read(b)
		switch {
		case err != nil:
			return fmt.Errorf("hear the supervisor: %w", err)
		case n == 0:
			return io.EOF // a packet without bytes: the other end is closed
		}
		var r Report
		if err := json.Unmarshal(b[:n], &r); err != nil {
			wrong(fmt.Errorf("read the supervisor's report: %w", err))
			continue
		}
		if r.Version != reportVersion {
			wrong(fmt.Errorf("read the supervisor's report: version %d, want %d", r.Version, reportVersion))
			continue
		}
		take(r)
	}
}
