package gunicorn

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"time"
)

// ErrNotMaster says that somebody else than the master answers at its control socket.
var ErrNotMaster = errors.New("another process listens there: want the master")

// topic is what can be asked. Whoever reaches the control socket may also stop the server,
// so the requests are constants, and these are all there are.
type topic int

const (
	stats topic = iota
	workers
	config
)

// request returns the whole request. Each has its own connection, so that one number will
// do for all (gunicorn/ctl/protocol.py).
func (t topic) request() string {
	return [...]string{
		stats:   `{"id":1,"command":"show stats","args":[]}`,
		workers: `{"id":1,"command":"show workers","args":[]}`,
		config:  `{"id":1,"command":"show config","args":[]}`,
	}[t]
}

const requestID = 1

// mostBytes is how long an answer may be. That of a thousand workers has 100 KiB.
const mostBytes = 1 << 20

// frame puts the length in front: four bytes, the highest first.
func frame(payload string) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(payload))), payload...)
}

// readFrame reads one frame and takes no more memory than has come.
func readFrame(r io.Reader) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, fmt.Errorf("read the length of the answer: %w", err)
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > mostBytes {
		return nil, fmt.Errorf("an answer of %d bytes: want at most %d", n, mostBytes)
	}
	b, err := io.ReadAll(io.LimitReader(r, int64(n)))
	if err == nil && len(b) < int(n) {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, fmt.Errorf("read the answer: %w", err)
	}
	return b, nil
}

// decodeAnswer decodes what an answer has into data.
func decodeAnswer(b []byte, data any) error {
	var a struct {
		ID     *int64          `json:"id"`
		Status string          `json:"status"`
		Error  string          `json:"error"`
		Data   json.RawMessage `json:"data"`
	}
	if err := json.Unmarshal(b, &a); err != nil {
		return fmt.Errorf("decode the answer: %w", err)
	}
	switch {
	case a.ID == nil || *a.ID != requestID:
		return errors.New("an answer to another request")
	case a.Status != "ok":
		return fmt.Errorf("answer with status %.40q, error %.200q: want ok", a.Status, a.Error)
	}
	if err := json.Unmarshal(a.Data, data); err != nil {
		return fmt.Errorf("decode the answer: %w", err)
	}
	return nil
}

// Stats are gunicorn's statistics, since this master has started.
type Stats struct {
	Uptime  time.Duration // by the wall clock, and so perhaps less than before
	PID     int           // of the master, in its own PID namespace
	Workers int           // that it has
	Target  int           // that it should have
	Spawned int           // workers forked
	// Killed is how many signals it has sent workers that were too many or had not ended in
	// time; neither those of timeouts count nor those of others.
	Killed  int
	Reloads int
}

// statsAnswer is on the wire (gunicorn/ctl/handlers.py).
type statsAnswer struct {
	Uptime  *float64 `json:"uptime"`
	PID     *int     `json:"pid"`
	Current *int     `json:"workers_current"`
	Target  *int     `json:"workers_target"`
	Spawned *int     `json:"workers_spawned"`
	Killed  *int     `json:"workers_killed"`
	Reloads *int     `json:"reloads"`
}

func (a statsAnswer) stats() (Stats, error) {
	for name, n := range map[string]*int{
		"pid": a.PID, "workers_current": a.Current, "workers_target": a.Target,
		"workers_spawned": a.Spawned, "workers_killed": a.Killed, "reloads": a.Reloads,
	} {
		if n == nil || *n < 0 {
			return Stats{}, fmt.Errorf("%s: want a number that is not negative", name)
		}
	}
	s := Stats{
		PID: *a.PID, Workers: *a.Current, Target: *a.Target,
		Spawned: *a.Spawned, Killed: *a.Killed, Reloads: *a.Reloads,
	}
	if a.Uptime != nil {
		s.Uptime, _ = duration(*a.Uptime)
	}
	return s, nil
}

// ControlWorker is a worker as its master sees it.
type ControlWorker struct {
	PID     int  // in the master's PID namespace
	Age     int  // the how many-th that the master has forked
	Aborted bool // it has not given a sign of life in time, and was sent ABRT
	// LastSign is how long ago it has given a sign of life; not known while it boots.
	LastSign Setting[time.Duration]
}

// workersAnswer is on the wire (gunicorn/ctl/handlers.py). What it tells of booting is
// always false: only the worker itself knows.
type workersAnswer struct {
	Workers *[]struct {
		PID      *int     `json:"pid"`
		Age      *int     `json:"age"`
		Aborted  *bool    `json:"aborted"`
		LastSign *float64 `json:"last_heartbeat"`
	} `json:"workers"`
}

func (a workersAnswer) list() ([]ControlWorker, error) {
	if a.Workers == nil {
		return nil, errors.New("workers: want a list")
	}
	all := make([]ControlWorker, 0, len(*a.Workers))
	for _, on := range *a.Workers {
		if on.PID == nil || *on.PID <= 0 || on.Age == nil || *on.Age < 0 || on.Aborted == nil {
			return nil, errors.New("a worker without pid, age or aborted")
		}
		w := ControlWorker{PID: *on.PID, Age: *on.Age, Aborted: *on.Aborted}
		if on.LastSign != nil {
			w.LastSign.Value, w.LastSign.Known = duration(*on.LastSign)
		}
		all = append(all, w)
	}
	return all, nil
}

// duration takes seconds that were rounded, and measured against a clock that was read
// just before. Those of a worker that boots are some decades below zero.
func duration(seconds float64) (d time.Duration, ok bool) {
	if seconds < -1 || seconds > math.MaxInt32 {
		return 0, false
	}
	return time.Duration(max(seconds, 0) * float64(time.Second)), true
}

// configAnswer is on the wire (gunicorn/ctl/handlers.py).
type configAnswer struct {
	Workers           *int    `json:"workers"`
	Threads           *int    `json:"threads"`
	Timeout           *int    `json:"timeout"`
	GracefulTimeout   *int    `json:"graceful_timeout"`
	MaxRequests       *int    `json:"max_requests"`
	MaxRequestsJitter *int    `json:"max_requests_jitter"`
	WorkerClass       *string `json:"worker_class"`
	ControlSocket     *string `json:"control_socket"`
	NoControlSocket   *bool   `json:"control_socket_disable"`
	// PIDFile is null where there is none.
	PIDFile json.RawMessage `json:"pidfile"`
}

func (a configAnswer) settings() (Settings, error) {
	pidFile, err := a.pidFile()
	return Settings{
		Timeout:           seconds(natural(a.Timeout)),
		GracefulTimeout:   seconds(natural(a.GracefulTimeout)),
		Workers:           natural(a.Workers),
		Threads:           natural(a.Threads),
		MaxRequests:       natural(a.MaxRequests),
		MaxRequestsJitter: natural(a.MaxRequestsJitter),
		WorkerClass:       a.workerClass(),
		PIDFile:           pidFile,
		ControlSocket:     told(a.ControlSocket),
		NoControlSocket:   told(a.NoControlSocket),
	}, err
}

func told[T any](v *T) Setting[T] {
	if v == nil {
		return Setting[T]{}
	}
	return Setting[T]{*v, true}
}

// natural takes numbers that are not negative, and of which so many seconds can be told.
func natural(n *int) Setting[int] {
	if n == nil || *n < 0 || *n > math.MaxInt32 {
		return Setting[int]{}
	}
	return told(n)
}

// workerClass reads "<class 'gunicorn.workers.sync.SyncWorker'>".
func (a configAnswer) workerClass() Setting[string] {
	s := told(a.WorkerClass)
	name := strings.TrimSuffix(strings.TrimPrefix(s.Value, "<class '"), "'>")
	return Setting[string]{shortClass(name), s.Known}
}

func (a configAnswer) pidFile() (Setting[string], error) {
	if a.PIDFile == nil {
		return Setting[string]{}, nil
	}
	var path *string
	if err := json.Unmarshal(a.PIDFile, &path); err != nil {
		return Setting[string]{}, fmt.Errorf("pidfile: %w", err)
	}
	if path == nil {
		return Setting[string]{"", true}, nil
	}
	return told(path), nil
}
