package writer

import (
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// label is one label of a series.
type label struct{ name, value string }

// appendKey appends the key of era D, byte for byte as Python's json.dumps
// writes it: `["family", "sample", {"a": "b"}, "help"]`, labels sorted, ASCII
// only. So one series has one key, whoever wrote it.
func appendKey(b []byte, family, sample string, labels []label, help string) []byte {
	b = appendString(append(b, '['), family)
	b = appendString(append(b, ", "...), sample)
	b = append(b, ", {"...)
	sorted := slices.SortedFunc(slices.Values(labels), func(x, y label) int { return strings.Compare(x.name, y.name) })
	for i, l := range sorted {
		if i > 0 {
			b = append(b, ", "...)
		}
		b = appendString(b, l.name)
		b = appendString(append(b, ": "...), l.value)
	}
	b = appendString(append(b, "}, "...), help)
	return append(b, ']')
}

// appendString appends s as JSON of ASCII characters. Bytes that are no UTF-8
// become U+FFFD.
func appendString(b []byte, s string) []byte {
	b = append(b, '"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b = append(b, '\\', byte(r))
		case r >= ' ' && r < 0x7f:
			b = append(b, byte(r))
		case r < utf8.RuneSelf && shortEscape(byte(r)) != 0:
			b = append(b, '\\', shortEscape(byte(r)))
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			b = appendUnicode(appendUnicode(b, high), low)
		default:
			b = appendUnicode(b, r)
		}
	}
	return append(b, '"')
}

func shortEscape(c byte) byte {
	switch c {
	case '\b':
		return 'b'
	case '\f':
		return 'f'
	case '\n':
		return 'n'
	case '\r':
		return 'r'
	case '\t':
		return 't'
	}
	return 0
}

func appendUnicode(b []byte, r rune) []byte {
	digits := strconv.FormatUint(uint64(r), 16)
	return append(append(b, `\u0000`[:6-len(digits)]...), digits...)
}
