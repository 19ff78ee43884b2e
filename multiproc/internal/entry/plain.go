package entry

import (
	"slices"
	"strings"
	"unicode/utf8"
)

// Shape is how a key that is a JSON list goes on behind its two names.
type Shape uint8

// The shapes.
const (
	TwoLists   Shape = iota // of label names and of label values
	Object                  // of labels
	ObjectHelp              // of labels, and the help
)

// Plain reads a key as the clients write nearly all: JSON whose values are
// strings without escapes. It tells no other from a malformed one: [Items] does.
// All strings of the key share one copy of raw.
func Plain(raw []byte) (k Key, shape Shape, ok bool) {
	if !utf8.Valid(raw) {
		return Key{}, 0, false
	}
	s := scanner{rest: string(raw)}
	s.sign('[')
	k.Family = s.text()
	s.sign(',')
	k.Sample = s.text()
	s.sign(',')
	switch {
	case s.try('['):
		k.Labels = s.lists()
	case s.try('{'):
		shape, k.Labels = Object, s.object()
		if s.try(',') {
			shape, k.Help = ObjectHelp, s.text()
		}
	default:
		s.failed = true
	}
	s.sign(']')
	s.blank()
	return k, shape, !s.failed && s.rest == ""
}

// scanner takes JSON from the front of a text. Once it has failed, it only
// fails.
type scanner struct {
	rest   string
	failed bool
}

func (s *scanner) blank() { s.rest = strings.TrimLeft(s.rest, " \t\r\n") }

// try takes the sign, if it comes next.
func (s *scanner) try(sign byte) bool {
	s.blank()
	if s.failed || s.rest == "" || s.rest[0] != sign {
		return false
	}
	s.rest = s.rest[1:]
	return true
}

// sign takes the sign, which must come next.
func (s *scanner) sign(sign byte) { s.failed = !s.try(sign) }

// text takes a string.
func (s *scanner) text() string {
	s.sign('"')
	for i := 0; i < len(s.rest) && !s.failed; i++ {
		switch c := s.rest[i]; {
		case c == '"':
			text := s.rest[:i]
			s.rest = s.rest[i+1:]
			return text
		case c == '\\' || c < ' ':
			s.failed = true
		}
	}
	s.failed = true
	return ""
}

// object takes what follows the sign that opens an object. A name that is there
// twice is left to others.
func (s *scanner) object() []Label {
	var labels []Label
	if s.try('}') {
		return nil
	}
	for {
		l := Label{Name: s.text()}
		s.sign(':')
		l.Value = s.text()
		if slices.ContainsFunc(labels, func(o Label) bool { return o.Name == l.Name }) {
			s.failed = true
		}
		labels = append(labels, l)
		if !s.try(',') {
			s.sign('}')
			return labels
		}
	}
}

// lists takes what follows the sign that opens the list of names, up to the end
// of the list of values.
func (s *scanner) lists() []Label {
	names := s.list()
	s.sign(',')
	s.sign('[')
	values := s.list()
	if len(names) != len(values) {
		s.failed = true
		return nil
	}
	labels := make([]Label, len(names))
	for i := range names {
		labels[i] = Label{Name: names[i], Value: values[i]}
	}
	return labels
}

// list takes what follows the sign that opens a list.
func (s *scanner) list() []string {
	var texts []string
	if s.try(']') {
		return nil
	}
	for {
		texts = append(texts, s.text())
		if !s.try(',') {
			s.sign(']')
			return texts
		}
	}
}
