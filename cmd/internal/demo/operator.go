package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Operator does to a master and its workers what happens to them in a long life, in
// rounds: requests that break a worker, signals, and workers that are killed.
type Operator struct {
	Client  *http.Client
	Workers string // their URL
	Metrics string // URL of the master's metrics
	Dir     string // of metric files
	Round   time.Duration

	Signal func(os.Signal) // to the master
	Kill   func(pid int)   // of a worker, if it is there
	// Tell is told in one line what happens, the first time, and always what cannot be done.
	Tell func(string)
}

// act is one thing that happens.
type act struct {
	after       time.Duration // the one before, in a round of a minute
	what, shows string        // empty: not told
	do          func(context.Context) error
}

// acts are a round. Leaks go on beside them.
func (o *Operator) acts() []act {
	return []act{
		{1 * time.Second, "GET /leak, all the time: a worker grows", "prefork_worker_memory_bytes", nothing},
		{1 * time.Second, "GET /crash?code=1: a worker ends", `prefork_worker_exits_total{code="1"}`, o.request("/crash?code=1")},
		{4 * time.Second, "kill -KILL of a worker", `prefork_worker_exits_total{signal="KILL"}`, o.killAny},
		{3 * time.Second, "kill -HUP of the master: all are replaced", "prefork_master_reloads_total", o.signal(syscall.SIGHUP)},
		{9 * time.Second, "GET /hang: a worker gives no sign of life", `prefork_master_worker_restart_total{reason="timeout"}`, o.request("/hang")},
		{6 * time.Second, "kill -TTIN of the master: a worker more", "prefork_workers_target", o.signal(syscall.SIGTTIN)},
		{9 * time.Second, "kill -TTOU of the master: a worker less", "prefork_workers_target", o.signal(syscall.SIGTTOU)},
		{9 * time.Second, "kill -KILL of worker 0, again and again", "prefork_restart_backoff_seconds", o.killOne},
		{5 * time.Second, "", "", o.request("/hang")}, // for the first one's worker may have ended before it was missed
		{5 * time.Second, "GET /crash?code=0: a worker ends unasked", `prefork_master_worker_restart_total{reason="clean"}`, o.request("/crash?code=0")},
		{5 * time.Second, "rm of dead workers' files: no counter falls", "prefork_multiproc_files", o.sweep},
		{3 * time.Second, "kill -USR2 of the master: a newer program", `prefork_master_restarts_total{reason="reload"}`, o.signal(syscall.SIGUSR2)},
	}
}

const (
	roundOfActs = time.Minute // for which their times are
	leakEvery   = 5 * time.Second
	leakPath    = "/leak?bytes=25165824"
)

func nothing(context.Context) error { return nil }

// paced returns a time of acts in a round that lasts as long as it does.
func (o *Operator) paced(d time.Duration) time.Duration {
	return time.Duration(float64(d) * float64(o.Round) / float64(roundOfActs))
}

// Run acts until ctx is done, and waits for the requests on their way.
func (o *Operator) Run(ctx context.Context) {
	var group sync.WaitGroup
	defer group.Wait()
	group.Go(func() { o.leak(ctx) })
	for first := true; ; first = false {
		for _, a := range o.acts() {
			if !sleep(ctx, o.paced(a.after)) {
				return
			}
			if first && a.what != "" {
				o.Tell(fmt.Sprintf("%-44s %s", a.what, a.shows))
			}
			group.Go(func() {
				if err := a.do(ctx); err != nil && ctx.Err() == nil {
					o.Tell(err.Error())
				}
			})
		}
	}
}

// sleep returns whether so much time has passed before ctx was done.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// leak has workers grow until their master replaces them.
func (o *Operator) leak(ctx context.Context) {
	for sleep(ctx, o.paced(leakEvery)) {
		_ = o.request(leakPath)(ctx)
	}
}

// request returns what sends a request that costs its worker dear. That it is not answered
// is no error.
func (o *Operator) request(path string) func(context.Context) error {
	return func(ctx context.Context) error {
		_ = send(ctx, o.Client, o.Workers, kind{method: http.MethodGet, path: path})
		return nil
	}
}

func (o *Operator) signal(s os.Signal) func(context.Context) error {
	return func(context.Context) error {
		o.Signal(s)
		return nil
	}
}

// killAny kills any worker.
func (o *Operator) killAny(ctx context.Context) error {
	pids, err := o.pids(ctx)
	for _, pid := range pids { // a map has no order
		o.Kill(pid)
		break
	}
	return err
}

const (
	deaths    = 6 // in a row make a backoff of more than a second
	lookEvery = 100 * time.Millisecond
	lookAtAll = 20 * time.Second
)

// killOne kills a worker and its successors, each when it is there.
func (o *Operator) killOne(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, lookAtAll)
	defer cancel()
	killed := 0
	for range deaths {
		pid, err := o.successor(ctx, killed)
		if err != nil {
			return fmt.Errorf("kill worker 0 again and again: %w", err)
		}
		o.Kill(pid)
		killed = pid
	}
	return nil
}

// successor waits for a worker 0 that is another process than before.
func (o *Operator) successor(ctx context.Context, before int) (int, error) {
	for {
		pids, err := o.pids(ctx)
		if pid := pids["0"]; pid != 0 && pid != before {
			return pid, nil
		}
		if !sleep(ctx, lookEvery) {
			return 0, errors.Join(err, fmt.Errorf("there is no worker 0: %w", ctx.Err()))
		}
	}
}

// sweep deletes the metric files of workers that have ended, which would fill the disk in
// the end. What they have counted stays with the sidecar, which has to read it before.
func (o *Operator) sweep(ctx context.Context) error {
	files, err := filepath.Glob(filepath.Join(o.Dir, "*.db"))
	if err != nil {
		return fmt.Errorf("look for metric files: %w", err)
	}
	dead := slices.DeleteFunc(files, func(file string) bool { return !isOfDead(file) })
	if _, err := get(ctx, o.Client, o.Metrics); err != nil {
		return fmt.Errorf("have the metric files read: %w", err)
	}
	for _, file := range dead {
		err = errors.Join(err, os.Remove(file))
	}
	return err
}

// isOfDead says whether a metric file is certainly of a process that has ended.
func isOfDead(file string) bool {
	name := strings.TrimSuffix(filepath.Base(file), ".db")
	pid, err := strconv.Atoi(name[strings.LastIndex(name, "_")+1:])
	return err == nil && pid > 0 && errors.Is(syscall.Kill(pid, 0), syscall.ESRCH)
}

// pids returns the process ids of the workers by slot, as everybody can see them.
func (o *Operator) pids(ctx context.Context) (map[string]int, error) {
	const name = "prefork_worker_pid"
	text, err := get(ctx, o.Client, o.Metrics+"?name[]="+name)
	if err != nil {
		return nil, fmt.Errorf("look for the workers: %w", err)
	}
	pids := map[string]int{}
	for line := range strings.Lines(text) {
		var slot string
		var pid float64 // as all values are
		if _, err := fmt.Sscanf(line, name+"{worker_id=%q} %g", &slot, &pid); err == nil {
			pids[slot] = int(pid)
		}
	}
	return pids, nil
}

// get returns a page that must be there.
func get(ctx context.Context, c *http.Client, url string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	resp, err := c.Do(req)
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("GET %s: %s, want 200 OK", url, resp.Status)
	}
	return string(body), err
}

// Await waits until there is an answer at each of the URLs, or ctx is done.
func Await(ctx context.Context, c *http.Client, urls ...string) error {
	for _, url := range urls {
		for {
			_, err := get(ctx, c, url)
			if err == nil {
				break
			}
			if !sleep(ctx, lookEvery) {
				return fmt.Errorf("wait for an answer: %w", err)
			}
		}
	}
	return nil
}
