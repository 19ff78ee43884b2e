// Package api answers the JSON endpoints, and says who may see what.
package api

import (
	"maps"
	"time"
)

// ShapeVersion is the version of the shape of [Status]. A field may be added to it; one
// that is renamed, removed or means something else makes another version.
const ShapeVersion = 1

// Status is the document of /api/v1/status. docs/status.md explains its fields. What is
// not known is left out: a list that is empty is known to be so.
type Status struct {
	Version     int          `json:"version"`
	Time        Time         `json:"time"`
	Exporter    Exporter     `json:"exporter"`
	Targets     []Target     `json:"targets"`
	MetricFiles *MetricFiles `json:"metric_files,omitzero"`
	Features    []Feature    `json:"features"` // by name, then labels
	Errors      []Failure    `json:"errors"`   // by collector
}

// Exporter is the exporter itself.
type Exporter struct {
	Version       string  `json:"version"`
	PID           int     `json:"pid"`
	Started       Time    `json:"started"`
	UptimeSeconds float64 `json:"uptime_seconds"`
}

// Failure is a collector that did not give all that it has.
type Failure struct {
	Collector string `json:"collector"`
}

// Target is a master, or none, and what belongs to it.
type Target struct {
	Labels        map[string]string `json:"labels"` // of all its series
	Kind          string            `json:"kind,omitzero"`
	Master        *Master           `json:"master,omitzero"`
	WorkersTarget *int              `json:"workers_target,omitzero"`
	Workers       []Worker          `json:"workers,omitzero"`  // by slot, then the older one
	Exits         []Exit            `json:"exits,omitzero"`    // by code and signal
	Restarts      []Restart         `json:"restarts,omitzero"` // by slot and reason
	Deaths        []Death           `json:"deaths,omitzero"`   // the last ones, oldest first
	ListenQueues  []ListenQueue     `json:"listen_queues,omitzero"`
	Cgroup        *Cgroup           `json:"cgroup,omitzero"`
}

// Master is the parent of the workers. What only who has started it can know is absent if
// that is not us.
type Master struct {
	PID            int           `json:"pid,omitzero"`
	Started        Time          `json:"started,omitzero"`
	UptimeSeconds  *float64      `json:"uptime_seconds,omitzero"`
	Stopping       bool          `json:"stopping"`
	Ended          bool          `json:"ended"`
	BackoffSeconds *float64      `json:"backoff_seconds,omitzero"`
	RestartLoop    *bool         `json:"restart_loop,omitzero"`
	Restarts       []ReasonCount `json:"restarts,omitzero"`
	Reloads        []ResultCount `json:"reloads,omitzero"`
	Signals        []SignalCount `json:"signals,omitzero"`
}

// ReasonCount counts by reason.
type ReasonCount struct {
	Reason string  `json:"reason"`
	Count  float64 `json:"count"`
}

// ResultCount counts by result.
type ResultCount struct {
	Result string  `json:"result"`
	Count  float64 `json:"count"`
}

// SignalCount counts by signal, which is without SIG.
type SignalCount struct {
	Signal string  `json:"signal"`
	Count  float64 `json:"count"`
}

// Worker is one living worker. What the slot has, it shares with those before it there.
type Worker struct {
	Slot                string   `json:"slot"`
	PID                 int      `json:"pid"`
	State               string   `json:"state"`
	Started             Time     `json:"started,omitzero"`
	UptimeSeconds       *float64 `json:"uptime_seconds,omitzero"`
	HeartbeatAgeSeconds *float64 `json:"heartbeat_age_seconds,omitzero"`
	Busy                *bool    `json:"busy,omitzero"`
	ResidentBytes       *float64 `json:"resident_bytes,omitzero"`
	PSSBytes            *float64 `json:"pss_bytes,omitzero"`
	USSBytes            *float64 `json:"uss_bytes,omitzero"`
	Threads             *float64 `json:"threads,omitzero"`
	OpenFDs             *float64 `json:"open_fds,omitzero"`
	SlotUserSeconds     *float64 `json:"slot_cpu_user_seconds,omitzero"`
	SlotSystemSeconds   *float64 `json:"slot_cpu_system_seconds,omitzero"`
}

// Exit counts the workers that have ended so: with a code, or by a signal.
type Exit struct {
	Code   *int    `json:"code,omitzero"`
	Signal string  `json:"signal,omitzero"`
	Count  float64 `json:"count"`
}

// Restart counts the restarts of a slot for a reason.
type Restart struct {
	Slot   string  `json:"slot"`
	Reason string  `json:"reason"`
	Count  float64 `json:"count"`
}

// Death is the end of one worker.
type Death struct {
	Time          Time     `json:"time"`
	Slot          string   `json:"slot,omitzero"`
	PID           int      `json:"pid,omitzero"`
	Reason        string   `json:"reason"`
	Code          *int     `json:"code,omitzero"`
	Signal        string   `json:"signal,omitzero"`
	AgeSeconds    *float64 `json:"age_seconds,omitzero"`
	ResidentBytes *float64 `json:"resident_bytes,omitzero"`
}

// ListenQueue is the accept queue of an address.
type ListenQueue struct {
	Listener      string   `json:"listener"`
	Length        *float64 `json:"length,omitzero"`
	Limit         *float64 `json:"limit,omitzero"`
	Peak          *float64 `json:"peak,omitzero"`
	Drops         *float64 `json:"drops,omitzero"`
	OldestSeconds *float64 `json:"oldest_seconds,omitzero"`
	WaitSeconds   *float64 `json:"wait_seconds,omitzero"`
	FullSeconds   *float64 `json:"full_seconds,omitzero"`
}

// MetricFiles are the files that workers write. The figures are of all directories together.
type MetricFiles struct {
	Directories []Directory   `json:"directories"` // by path
	Readable    *bool         `json:"readable,omitzero"`
	Files       *float64      `json:"files,omitzero"`
	Bytes       *float64      `json:"bytes,omitzero"`
	Processes   *float64      `json:"processes,omitzero"`
	Series      *float64      `json:"series,omitzero"`
	Errors      []ReasonCount `json:"errors,omitzero"` // by reason, without those that there were none of
}

// Directory is one directory of metric files.
type Directory struct {
	Path   string            `json:"path"`
	Labels map[string]string `json:"labels"` // of the series in its files
}

// Cgroup is a control group.
type Cgroup struct {
	MemoryBytes      *float64 `json:"memory_bytes,omitzero"`
	MemoryLimitBytes *float64 `json:"memory_limit_bytes,omitzero"`
	OOMKills         *float64 `json:"oom_kills,omitzero"`
	ThrottledSeconds *float64 `json:"cpu_throttled_seconds,omitzero"`
}

// Feature is something that can be watched in some places only.
type Feature struct {
	Name      string            `json:"name"`
	Labels    map[string]string `json:"labels,omitzero"` // of its target; nil: there are none
	Available bool              `json:"available"`
	Reason    string            `json:"reason,omitzero"` // why it is not
}

// Equal says whether both say the same.
func (f Feature) Equal(other Feature) bool {
	return f.Name == other.Name && maps.Equal(f.Labels, other.Labels) && f.Available == other.Available && f.Reason == other.Reason
}

// Time is a time to the millisecond, in UTC, as RFC 3339 has it.
type Time struct{ time.Time }

// timeFormat has a fixed number of digits, so that texts sort as times.
const timeFormat = "2006-01-02T15:04:05.000Z"

// MarshalJSON implements [json.Marshaler].
func (t Time) MarshalJSON() ([]byte, error) {
	return []byte(t.UTC().Format(`"` + timeFormat + `"`)), nil
}

// seconds returns a duration to the millisecond.
func seconds(d time.Duration) float64 { return float64(d.Milliseconds()) / 1000 }
