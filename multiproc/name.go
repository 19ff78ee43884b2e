package multiproc

import (
	"errors"
	"fmt"
	"strings"

	"github.com/prefork-exporter/prefork_exporter/multiproc/internal/entry"
)

// errIgnored says that a name is not that of a metric file.
var errIgnored = errors.New("not a metric file")

// errUnknownType says that a file is named like a metric file, of a type that nobody knows.
var errUnknownType = errors.New("unknown metric type")

// fileName is what the name of a metric file tells.
type fileName struct {
	base        string
	typ         entry.Type // Untyped for a DirectFileStore's
	mode        entry.Mode
	unknownMode bool   // a gauge mode of a later client: read as All
	id          string // of the process; with Ruby's -N
	metric      string // of a DirectFileStore: the metric's name
}

// framing returns how the file's entries follow one another.
func (n fileName) framing() entry.Framing {
	if n.metric != "" {
		return entry.Direct
	}
	return entry.Mapped
}

// parseName reads T_ID.db, gauge_MODE_ID.db and metric_NAME___ID.bin. The
// error is errIgnored, or wraps errUnknownType.
func parseName(base string) (fileName, error) {
	if strings.HasPrefix(base, ".") {
		return fileName{}, errIgnored
	}
	if stem, ok := strings.CutSuffix(base, ".bin"); ok {
		return parseDirectName(base, stem)
	}
	stem, ok := strings.CutSuffix(base, ".db")
	if !ok {
		return fileName{}, errIgnored
	}
	prefix, rest, ok := strings.Cut(stem, "_")
	if prefix == "exemplar" && ok {
		return fileName{}, errIgnored // of a fork of the Ruby client: no samples in it
	}
	typ, known := entry.ParseType(prefix)
	if !ok || !known || typ == entry.Untyped || rest == "" {
		return fileName{}, fmt.Errorf("%q: %w: want counter_, gauge_MODE_, histogram_ or summary_", base, errUnknownType)
	}
	n := fileName{base: base, typ: typ, id: rest}
	if typ == entry.Gauge {
		return parseGaugeName(n)
	}
	return n, nil
}

func parseGaugeName(n fileName) (fileName, error) {
	mode, id, ok := strings.Cut(n.id, "_")
	if !ok || mode == "" || id == "" {
		return fileName{}, fmt.Errorf("%q: %w: want gauge_MODE_ID.db", n.base, errUnknownType)
	}
	m, known := entry.ParseMode(mode)
	n.mode, n.unknownMode, n.id = m, !known, id
	return n, nil
}

func parseDirectName(base, stem string) (fileName, error) {
	stem, ok := strings.CutPrefix(stem, "metric_")
	at := strings.LastIndex(stem, "___")
	if !ok || at <= 0 || at+3 == len(stem) {
		return fileName{}, errIgnored
	}
	return fileName{base: base, metric: stem[:at], id: stem[at+3:]}, nil
}

// processID returns the process's own id: Ruby's clients number the files of a
// process, Python's ids may end in a number of their own.
func (n fileName) processID(ruby bool) string {
	if !ruby {
		return n.id
	}
	at := strings.LastIndexByte(n.id, '-')
	if at <= 0 || strings.Trim(n.id[at+1:], "0123456789") != "" {
		return n.id
	}
	return n.id[:at]
}

// archive says whether the file is where an application folds its dead
// processes by itself: no process has such an id. (An id 0 is no sign of it:
// uWSGI's master has that.)
func (n fileName) archive() bool { return n.id == "archive" }
