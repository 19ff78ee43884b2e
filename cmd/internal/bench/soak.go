package main

import (
	"context"
	"errors"
	"fmt"
)

// soakPoint is the exporter's state after some scrapes.
type soakPoint struct {
	scrapes int
	memory  memory
	files   int
}

// soakResult is the state at the start, in the middle and at the end.
type soakResult struct {
	dataset string
	points  []soakPoint
}

// soaked scrapes D3 many times, with the encodings in turn, and watches memory and descriptors.
func (b *bench) soaked(ctx context.Context) error {
	const name = "D3"
	if b.options.soak == 0 || len(b.dirs[name]) == 0 {
		return nil
	}
	b.say("%s: %d scrapes", name, b.options.soak)
	points, err := b.soak(ctx, b.dirs[name][0])
	if err != nil {
		return fmt.Errorf("%s: soak: %w", name, err)
	}
	b.report.soak = &soakResult{name, points}
	return nil
}

func (b *bench) soak(ctx context.Context, dir directory) (points []soakPoint, err error) {
	w, err := openWorkers(dir.path, b.options.changing)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	e, err := startExporter(ctx, b.binary, dir.path, b.ws.scratch)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, e.close()) }()
	encodings := ourEncodings()
	for n := range b.options.soak {
		w.advance()
		if _, err := e.scrape(ctx, encodings[n%len(encodings)]); err != nil {
			return nil, err
		}
		if !soakPointDue(n+1, b.options.soak) {
			continue
		}
		p, err := e.soakPoint(n + 1)
		if err != nil {
			return nil, err
		}
		points = append(points, p)
	}
	return points, nil
}

// soakPointDue picks the start, once each encoding has been asked for a few times, the middle and the end.
func soakPointDue(done, all int) bool {
	return done == min(10, all) || done == all/2 && done > 10 || done == all && done > 10
}

func (e *exporter) soakPoint(done int) (soakPoint, error) {
	mem, err := e.memory()
	if err != nil {
		return soakPoint{}, err
	}
	files, err := openFiles(e.cmd.Process.Pid)
	return soakPoint{done, mem, files}, err
}
