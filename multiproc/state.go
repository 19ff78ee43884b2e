package multiproc

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strconv"

	"github.com/prefork-exporter/prefork_exporter/multiproc/internal/entry"
)

// The state of a source outlives the exporter: what files that are gone had
// counted. It is one JSON file for each source in the state directory, replaced
// as a whole. It is good for as long as one of the files that were there when
// it was written is there still; else the application began anew meanwhile.

// stateVersion changes with the shape of the file.
const stateVersion = 2

// state is the file.
type state struct {
	Version int           `json:"version"`
	Path    string        `json:"path"` // quoted: it need not be UTF-8
	Files   []stateFile   `json:"files"`
	Totals  []stateSeries `json:"totals"`
}

// stateFile identifies a metric file.
type stateFile struct {
	Name   string `json:"name"`
	Device uint64 `json:"device"`
	Inode  uint64 `json:"inode"`
	Born   int64  `json:"born"`
}

// stateSeries is a total and all that its cell is found or made by.
type stateSeries struct {
	Family     string     `json:"family"`
	Type       entry.Type `json:"type"`
	Mode       entry.Mode `json:"mode"`
	Help       string     `json:"help"`
	Direct     bool       `json:"direct,omitempty"`
	Name       string     `json:"name"` // as exposed
	Exposed    entry.Type `json:"exposed"`
	Labels     []Label    `json:"labels"`
	Part       Part       `json:"part"`
	Bound      string     `json:"bound,omitempty"` // a number, which may be one that JSON has not
	Text       string     `json:"text,omitempty"`  // of the bound
	Cumulative bool       `json:"cumulative,omitempty"`
	Op         op         `json:"op"`
	Rises      bool       `json:"rises"`
	Value      float64    `json:"value"`
}

// stateFileOf returns where the state of s is.
func (m *Merger) stateFileOf(s *source) string {
	h := sha256.New()
	fmt.Fprintf(h, "%q", s.place)
	for _, l := range s.labels {
		fmt.Fprintf(h, "%q%q", l.Name, l.Value)
	}
	return filepath.Join(m.stateDir, "multiproc-"+hex.EncodeToString(h.Sum(nil)[:8])+".json")
}

// ErrNoState is why no state is kept where nobody named a directory for it.
var ErrNoState = errors.New("no state directory")

// probe returns why no state could be kept.
func (m *Merger) probe() error {
	if m.stateDir == "" {
		return ErrNoState
	}
	err := os.MkdirAll(m.stateDir, 0o700)
	if err == nil {
		var f *os.File
		if f, err = os.CreateTemp(m.stateDir, ".probe"); err == nil {
			err = errors.Join(f.Close(), os.Remove(f.Name()))
		}
	}
	if err != nil {
		m.log.Warn("cannot keep state: a restart of the exporter will forget what deleted files had counted", "dir", m.stateDir, "err", err)
	}
	return err
}

// save writes the state of every source that has changed. What cannot be
// written is noted in Stats, and tried again with the next change.
func (m *Merger) save() {
	if m.stateDir == "" {
		return
	}
	for _, s := range m.sources {
		if !s.dirty {
			continue
		}
		s.dirty = false
		if err := m.saveSource(s); err != nil {
			if m.stateErr == nil {
				m.log.Warn("cannot keep state: a restart of the exporter will forget what deleted files had counted", "err", err)
			}
			m.stateErr = err
			continue
		}
		m.stateErr = nil
	}
}

func (m *Merger) saveSource(s *source) error {
	path := m.stateFileOf(s)
	st := state{Version: stateVersion, Path: strconv.QuoteToASCII(s.place), Totals: m.totals(s)}
	if len(st.Totals) == 0 {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove state: %w", err)
		}
		return nil
	}
	for _, f := range s.order {
		if f.id != (fileID{}) {
			st.Files = append(st.Files, stateFile{Name: f.base, Device: f.id.device, Inode: f.id.inode, Born: f.id.born})
		}
	}
	b, err := json.Marshal(st)
	if err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	if err := os.MkdirAll(m.stateDir, 0o700); err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	return replace(path, b)
}

// replace writes a file as a whole: after a crash it is the old one or the new.
func replace(path string, b []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return fmt.Errorf("write state: %w", err)
	}
	return nil
}

// totals returns what entries of s that are gone had counted.
func (m *Merger) totals(s *source) []stateSeries {
	sums := counts{}
	for c, v := range s.left {
		sums.add(c, v)
	}
	for _, f := range s.order {
		for c, v := range f.gone {
			sums.add(c, v)
		}
	}
	var all []stateSeries
	for _, e := range m.families.sorted {
		for _, one := range e.sorted {
			all = one.state(all, e, sums)
		}
	}
	return all
}

// state appends those cells of the series that have a total.
func (s *series) state(all []stateSeries, e *exposed, sums counts) []stateSeries {
	add := func(c *cell, p Part, b bucket, cumulative bool) {
		v, ok := sums[c]
		if c == nil || !ok || math.IsNaN(v) || math.IsInf(v, 0) { // JSON has no infinity and no NaN
			return
		}
		one := stateSeries{
			Family: e.from.name, Type: e.from.typ, Mode: e.from.mode, Help: e.from.help, Direct: e.from.direct,
			Name: e.name, Exposed: e.typ, Labels: s.labels, Part: p, Text: b.text, Cumulative: cumulative,
			Op: c.op, Rises: c.rises, Value: v, Bound: strconv.FormatFloat(b.bound, 'g', -1, 64),
		}
		all = append(all, one)
	}
	add(s.value, PartValue, bucket{}, false)
	add(s.bare, PartBareBucket, bucket{}, false)
	add(s.sum, PartSum, bucket{}, false)
	add(s.count, PartCount, bucket{}, false)
	for _, b := range s.buckets {
		add(b.single, PartBucket, b, false)
		add(b.total, PartBucket, b, true)
	}
	return all
}

// restore takes in the state of s, if it is of the application as it runs now.
// d is the source's directory, listed already.
func (m *Merger) restore(s *source, d directory) {
	if m.stateDir == "" || s.restored {
		return
	}
	s.restored, s.place = true, s.canonical()
	b, err := os.ReadFile(m.stateFileOf(s))
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	var st state
	if err == nil {
		err = json.Unmarshal(b, &st)
	}
	switch {
	case err != nil:
		m.log.Warn("cannot read state: what deleted files had counted is forgotten", "file", m.stateFileOf(s), "err", err)
	case st.Version == stateVersion && st.Path == strconv.QuoteToASCII(s.place) && s.continues(st, d):
		for _, one := range st.Totals {
			m.restoreSeries(s, one)
		}
		m.stale = true
	}
}

// continues says whether one of the files of the state is there still. One that
// cannot be opened now is, as far as the list tells.
func (s *source) continues(st state, d directory) bool {
	for _, f := range st.Files {
		known := s.files[f.Name]
		if known == nil || known.skip {
			continue
		}
		h, id, err := d.open(f.Name)
		if err != nil {
			if known.listed == f.Inode {
				return true
			}
			continue
		}
		_ = h.Close()
		if id == (fileID{device: f.Device, inode: f.Inode, born: f.Born}) {
			return true
		}
	}
	return false
}

// restoreSeries makes the cell of a total, and gives it to s.
func (m *Merger) restoreSeries(s *source, one stateSeries) {
	fam := m.families.declared[one.Family]
	if fam == nil {
		fam = &family{name: one.Family, typ: one.Type, mode: one.Mode, help: one.Help, direct: one.Direct, decided: true}
		m.families.declared[one.Family] = fam
	}
	e := m.families.expose(fam, one.Name, one.Exposed)
	if e == nil || one.Part > PartBareBucket {
		return
	}
	canonical := text(one.Labels)
	target := e.series[canonical]
	if target == nil {
		target = e.add(one.Labels, canonical)
	}
	bound, err := strconv.ParseFloat(one.Bound, 64)
	if err != nil {
		return
	}
	at := target.cell(one.Part, bound, one.Text, one.Cumulative)
	if *at == nil {
		*at = &cell{op: one.Op, rises: one.Rises, counts: true}
	}
	s.totals[*at] = one.Value
}
