package watch

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
)

// identity tells a process from all others that have had its id, as long as the machine runs.
type identity struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"` // in ticks since the machine's start
}

// slots are the places of workers. A new worker takes the lowest free one, unless the
// server has an index of its own: then that is its slot, which two may have for a while.
type slots struct {
	of map[identity]string
}

func newSlots() *slots { return &slots{of: map[identity]string{}} }

// take returns the slot of a worker, now and whenever it is asked again, unless an index
// becomes known.
func (s *slots) take(who identity, index string) string {
	if slot, known := s.of[who]; known && (index == "" || index == slot) {
		return slot
	}
	if index == "" {
		index = s.free()
	}
	s.of[who] = index
	return index
}

func (s *slots) free() string {
	taken := slices.Collect(maps.Values(s.of))
	for n := 0; ; n++ {
		if slot := strconv.Itoa(n); !slices.Contains(taken, slot) {
			return slot
		}
	}
}

func (s *slots) leave(who identity) { delete(s.of, who) }

// keep leaves all that are not among those.
func (s *slots) keep(living map[identity]*member) {
	maps.DeleteFunc(s.of, func(who identity, _ string) bool { return living[who] == nil })
}

// slotFile is what outlives the exporter. What it has of another boot is of no use.
type slotFile struct {
	Version int         `json:"version"`
	Boot    string      `json:"boot"`
	Slots   []slotOwner `json:"slots"`
}

type slotOwner struct {
	identity
	Slot string `json:"slot"`
}

const slotFileVersion = 1

// mostSlots is how many a file may have.
const mostSlots = 100_000

// load takes what an exporter before us has left. Whoever does not live any more has to leave.
func (s *slots) load(file, boot string) error {
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the slots of workers: %w", err)
	}
	var all slotFile
	if err := json.Unmarshal(b, &all); err != nil {
		return fmt.Errorf("read the slots of workers: %s: %w", file, err)
	}
	if all.Version != slotFileVersion || all.Boot != boot || len(all.Slots) > mostSlots {
		return nil
	}
	for _, one := range all.Slots {
		s.of[one.identity] = one.Slot
	}
	return nil
}

// save replaces the file.
func (s *slots) save(file, boot string) error {
	all := slotFile{Version: slotFileVersion, Boot: boot}
	for who, slot := range s.of {
		all.Slots = append(all.Slots, slotOwner{who, slot})
	}
	slices.SortFunc(all.Slots, func(a, b slotOwner) int { return a.PID - b.PID })
	b, err := json.Marshal(all)
	if err != nil {
		return fmt.Errorf("write the slots of workers: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return fmt.Errorf("write the slots of workers: %w", err)
	}
	next := file + ".new"
	if err := os.WriteFile(next, b, 0o600); err != nil {
		return fmt.Errorf("write the slots of workers: %w", err)
	}
	if err := os.Rename(next, file); err != nil {
		return fmt.Errorf("write the slots of workers: %w", err)
	}
	return nil
}
