package app

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// node is a value of a YAML file and its place, which the errors name. Only
// what is asked for is accepted: an unknown key, a key twice or a value of
// another kind is an error.
type node struct {
	file string
	path string // as in targets[0].labels; empty at the top
	yaml *yaml.Node
}

// parseYAML returns the top of a file, or nil for one that is empty.
func parseYAML(file string, data []byte) (*node, error) {
	var top yaml.Node
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	switch err := decoder.Decode(&top); {
	case errors.Is(err, io.EOF):
		return nil, nil
	case err != nil:
		return nil, syntaxError(file, err)
	}
	switch err := decoder.Decode(new(yaml.Node)); {
	case err == nil:
		return nil, fmt.Errorf("%s: more than one document: want one", file)
	case !errors.Is(err, io.EOF):
		return nil, syntaxError(file, err)
	}
	return &node{file: file, yaml: top.Content[0]}, nil
}

// syntaxError puts the file in front of the line.
func syntaxError(file string, err error) error {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	if rest, ok := strings.CutPrefix(text, "line "); ok {
		return fmt.Errorf("%s:%s", file, rest)
	}
	return fmt.Errorf("%s: %s", file, text)
}

// at names the place: FILE:LINE, and the path below the top.
func (n node) at() string {
	place := n.file + ":" + strconv.Itoa(n.yaml.Line)
	if n.path != "" {
		place += ": " + n.path
	}
	return place
}

func (n node) errorf(format string, args ...any) error {
	return fmt.Errorf("%s: %w", n.at(), fmt.Errorf(format, args...))
}

// resolved is the value itself where n is an alias.
func (n node) resolved() *yaml.Node {
	if n.yaml.Kind == yaml.AliasNode {
		return n.yaml.Alias
	}
	return n.yaml
}

func (n node) isNull() bool { return n.resolved().Tag == "!!null" }

// fields calls for each key of a mapping what known has for it.
func (n node) fields(known map[string]func(node) error) error {
	return n.pairs(func(key node, value node) error {
		name := key.yaml.Value
		read, ok := known[name]
		if !ok {
			key.path = n.path
			return key.errorf("unknown key %q: want %s", name, alternatives(known))
		}
		return read(value)
	})
}

func alternatives(known map[string]func(node) error) string {
	var names []string
	for name := range known {
		names = append(names, name)
	}
	slices.Sort(names)
	if last := len(names) - 1; last > 0 {
		return strings.Join(names[:last], ", ") + " or " + names[last]
	}
	return strings.Join(names, "")
}

// pairs calls each for the entries of a mapping, in order. Nothing at all
// stands for an empty one.
func (n node) pairs(each func(key, value node) error) error {
	if n.isNull() {
		return nil
	}
	if n.resolved().Kind != yaml.MappingNode {
		return n.errorf("want keys and values")
	}
	seen := map[string]bool{}
	content := n.resolved().Content
	for i := 0; i+1 < len(content); i += 2 {
		key := node{file: n.file, path: n.path, yaml: content[i]}
		if key.yaml.Kind != yaml.ScalarNode {
			return key.errorf("want a plain key")
		}
		name := key.yaml.Value
		if seen[name] {
			return key.errorf("key %q: given twice", name)
		}
		seen[name] = true
		key.path = strings.TrimPrefix(n.path+"."+name, ".")
		if err := each(key, node{file: n.file, path: key.path, yaml: content[i+1]}); err != nil {
			return err
		}
	}
	return nil
}

// items calls each for the items of a list. Nothing at all stands for an empty
// one.
func (n node) items(each func(item node) error) error {
	if n.isNull() {
		return nil
	}
	if n.resolved().Kind != yaml.SequenceNode {
		return n.errorf("want a list")
	}
	for i, item := range n.resolved().Content {
		if err := each(node{file: n.file, path: fmt.Sprintf("%s[%d]", n.path, i), yaml: item}); err != nil {
			return err
		}
	}
	return nil
}

// text returns a scalar as the file has it: 1.10 stays 1.10.
func (n node) text() (string, error) {
	if n.resolved().Kind != yaml.ScalarNode || n.isNull() {
		return "", n.errorf("want a text")
	}
	return n.resolved().Value, nil
}

// textTo stores a scalar.
func textTo(dst *string) func(node) error {
	return func(n node) error {
		text, err := n.text()
		*dst = text
		return err
	}
}

// wholeTo stores a whole number, durationTo a duration such as 30s.
func wholeTo(dst *int) func(node) error {
	return func(n node) error {
		text, err := n.text()
		if err != nil {
			return err
		}
		if *dst, err = strconv.Atoi(text); err != nil {
			return n.errorf("%q: want a whole number", text)
		}
		return nil
	}
}

func durationTo(dst *time.Duration) func(node) error {
	return func(n node) error {
		text, err := n.text()
		if err != nil {
			return err
		}
		if *dst, err = time.ParseDuration(text); err != nil {
			return n.errorf("%q: want a duration such as 30s", text)
		}
		return nil
	}
}

func (n node) number() (float64, error) {
	var f float64
	if n.resolved().Kind != yaml.ScalarNode || n.resolved().Decode(&f) != nil || f != f {
		return 0, n.errorf("want a number")
	}
	return f, nil
}
