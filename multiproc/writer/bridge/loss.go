package bridge

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
)

// Loss says what of a family is not in the files.
type Loss struct {
	Family string
	Reason string // the package comment has them all
}

// String returns the loss as a line of text.
func (l Loss) String() string { return fmt.Sprintf("family %q: %s", l.Family, l.Reason) }

// losses is a set of reasons, a bit each: steady losses cost a write nothing.
type losses uint32

const (
	lostName losses = 1 << iota
	lostUTF8
	lostUntyped
	lostType
	lostClash
	lostHost
	lostWriters
	lostShape
	lostLabel
	lostLabelTwice
	lostDuplicate
	lostNative
	lostExemplar
	lostCreated
	lostUnit
	lostTimestamp
	lostQuantile
	lostNegative
	lostBuckets
	lostGauge
)

// What client_golang gives to many metrics that nobody asked it for.
const (
	createdReason = "created timestamps are not carried"
	unitReason    = "its unit is not carried"
)

// reasons returns the texts of a set.
func (l losses) reasons() []string {
	if l == 0 {
		return nil // mostly
	}
	var out []string
	for i, text := range [...]string{
		"a name is empty: it is left out",
		"text that is not UTF-8: it is left out",
		"there is no file for its type: it is left out",
		"it came back with another type: the first one stays",
		"a counter has its name, but for _total: it is left out",
		"it counts for the whole host, in every process: it is left out",
		"the writer itself has a metric of its name: it is left out",
		"a metric that is not of its family's type: it is left out",
		"a label that readers set (pid of a gauge, le of a histogram, quantile of a summary): the series is left out",
		"a label that is there twice: the series is left out",
		"a series that is there twice: the first one is carried",
		"native buckets are not carried",
		"exemplars are not carried",
		createdReason,
		unitReason,
		"timestamps of samples are not carried",
		"quantiles are not carried",
		"a counter that is negative or not a number: it stays as it was",
		"buckets that do not ascend: the histogram stays as it was",
		"a gauge that is gone keeps its last value",
	} {
		if l&(1<<i) != 0 {
			out = append(out, text)
		}
	}
	return out
}

// when returns l if it is lost.
func (l losses) when(lost bool) losses {
	if lost {
		return l
	}
	return 0
}

// logLoss is what is done where nobody else wants to know.
func logLoss(l Loss) {
	level := slog.LevelWarn
	standard := strings.HasPrefix(l.Family, "go_") || strings.HasPrefix(l.Family, "process_")
	if standard || l.Reason == createdReason || l.Reason == unitReason {
		level = slog.LevelDebug
	}
	slog.Default().Log(context.Background(), level, "metrics are not carried whole", "family", l.Family, "loss", l.Reason)
}
