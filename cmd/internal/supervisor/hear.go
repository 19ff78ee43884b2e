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

// Reports is the end of a [Sidecar]'s socket at which reports come out.
type Reports struct{ conn net.Conn }

// OpenReports takes over the socket, which is closed.
func OpenReports(socket *os.File) (*Reports, error) {
	conn, err := net.FileConn(socket)
	if err := errors.Join(err, socket.Close()); err != nil {
		return nil, fmt.Errorf("hear the supervisor: %w", err)
	}
	return &Reports{conn}, nil
}

// Close ends Hear.
func (r *Reports) Close() error { return r.conn.Close() }

// Hear hands on each report, until the socket ends: with io.EOF when the supervisor
// has, or when it is closed. What is no report is an error for wrong, and the next one
// is read.
func (r *Reports) Hear(take func(Report), wrong func(error)) error {
	b := make([]byte, maxReport)
	for {
		n, err := r.conn.Read(b)
		switch {
		case errors.Is(err, net.ErrClosed):
			return io.EOF
		case err != nil:
			return fmt.Errorf("hear the supervisor: %w", err)
		}
		var report Report
		if err := json.Unmarshal(b[:n], &report); err != nil {
			wrong(fmt.Errorf("read the supervisor's report: %w", err))
			continue
		}
		if report.Version != reportVersion {
			wrong(fmt.Errorf("read the supervisor's report: version %d, want %d", report.Version, reportVersion))
			continue
		}
		take(report)
	}
}
