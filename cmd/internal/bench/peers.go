package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// Whose metric files a directory holds.
const (
	pythonFiles = "Python"
	rubyFiles   = "Ruby"
)

// patience bounds one answer of a peer, one scrape and one start: far more than any of them takes.
const patience = 2 * time.Minute

// peer is a client library, which merges the files that it wrote.
type peer struct {
	files     string // pythonFiles or rubyFiles
	command   string // the interpreter
	generator string
	merger    string

	// Filled by describe.
	name     string
	language string
	gzip     string
}

func pythonPeer(command, scripts string) *peer {
	return &peer{files: pythonFiles, command: command,
		generator: filepath.Join(scripts, "gen.py"), merger: filepath.Join(scripts, "merge.py")}
}

func rubyPeer(command, scripts string) *peer {
	return &peer{files: rubyFiles, command: command,
		generator: filepath.Join(scripts, "gen.rb"), merger: filepath.Join(scripts, "merge.rb")}
}

// describe asks the library for its version. An error says that this machine does not have it.
func (p *peer) describe(ctx context.Context) (err error) {
	m, err := p.start(ctx, os.TempDir())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.close()) }()
	a, err := m.ask("describe")
	p.name, p.language, p.gzip = a.Client, a.Language, a.Gzip
	return err
}

// generate runs the library's generator on dir.
func (p *peer) generate(ctx context.Context, command, dir string, args ...string) error {
	cmd := exec.CommandContext(ctx, p.command, append([]string{p.generator, command, dir}, args...)...)
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("write %s files: %w: %s", p.files, err, bytes.TrimSpace(text))
	}
	return nil
}

// start starts an interpreter that merges dir on demand. It does not wait for the library to be loaded.
func (p *peer) start(ctx context.Context, dir string) (*merger, error) {
	m := &merger{cmd: exec.CommandContext(ctx, p.command, p.merger, dir)}
	m.cmd.Stderr = &m.stderr
	var err error
	if m.in, err = m.cmd.StdinPipe(); err != nil {
		return nil, fmt.Errorf("start %s: %w", p.command, err)
	}
	out, err := m.cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", p.command, err)
	}
	m.out = bufio.NewReader(out)
	if err := m.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", p.command, err)
	}
	return m, nil
}

// merger is one interpreter with the library loaded. It is not safe for concurrent use.
type merger struct {
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    *bufio.Reader
	stderr bytes.Buffer // read only once the process is gone
}

// answer is what the scripts print: the cost of one merge in seconds, or who they are.
type answer struct {
	Wall, CPU, Total       float64
	Bytes                  int
	Language, Client, Gzip string
}

// ask sends one command. After an error the merger can only be closed.
func (m *merger) ask(command string) (answer, error) {
	late := time.AfterFunc(patience, func() { _ = m.cmd.Process.Kill() })
	defer late.Stop()
	if _, err := fmt.Fprintln(m.in, command); err != nil {
		return answer{}, fmt.Errorf("ask the library to %s: %w", command, err)
	}
	line, err := m.out.ReadBytes('\n')
	if err != nil {
		return answer{}, fmt.Errorf("ask the library to %s: no answer: %w", command, err)
	}
	var a answer
	if err := json.Unmarshal(line, &a); err != nil {
		return answer{}, fmt.Errorf("ask the library to %s: answer %q: %w", command, line, err)
	}
	return a, nil
}

// merge asks for one merge with the given encoding.
func (m *merger) merge(enc string) (answer, error) {
	if enc == identity {
		return m.ask("plain")
	}
	return m.ask(enc)
}

// samples merges once more and returns what came out.
func (m *merger) samples(scratch string) (map[string]float64, error) {
	path := filepath.Join(scratch, "merged.txt")
	if _, err := m.ask("save " + path); err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read what the library merged: %w", err)
	}
	defer f.Close()
	return parseSamples(f)
}

func (m *merger) memory() (memory, error) { return memoryOf(m.cmd.Process.Pid) }

// close ends the interpreter. Its error carries what the interpreter said last, which explains a missing
// answer.
func (m *merger) close() error {
	_ = m.in.Close() // the end of its input ends the script
	late := time.AfterFunc(patience, func() { _ = m.cmd.Process.Kill() })
	defer late.Stop()
	if err := m.cmd.Wait(); err != nil {
		return fmt.Errorf("%s ended with %w: %s", m.cmd.Path, err, lastLine(m.stderr.Bytes()))
	}
	return nil
}

func lastLine(b []byte) []byte {
	b = bytes.TrimSpace(b)
	return b[bytes.LastIndexByte(b, '\n')+1:]
}

// seconds turns what a script measured into a duration.
func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
