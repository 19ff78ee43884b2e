#!/usr/bin/env python3
"""Writes the damaged metric files of corrupt/cases.json.

usage: gen_corrupt.py OUT

Each case becomes OUT/CASE/db (client_python's era D) and OUT/CASE/db_ruby (prometheus-client-mmap's era R): one damaged
file of process 101 and a healthy one of process 102. No client writes such files on purpose, so they are built here byte
by byte; FORMAT.md has the layout.
"""
import os
import struct
import sys

SIZE = 1 << 16
A_FILE = b'["a", "a", ["x"], ["1"]]'
B_FILE = b'["a", "a_total", {"x": "1"}]'


class Client:
    """How one client frames and names things."""

    def __init__(self, directory, suffix, stride):
        self.directory, self.suffix, self.stride = directory, suffix, stride

    def key(self, family):
        if self.stride == 16:
            return b'["%s", "%s_total", {}, "h"]' % (family, family)
        return b'["%s","%s_total",[],[]]' % (family, family)

    def entry(self, key, value, pad=b' ', length=None, stride=None, order='<'):
        padding = pad * (8 - (4 + len(key)) % 8)
        head = struct.pack(order + 'i', len(key) if length is None else length)
        return head + key + padding + struct.pack(order + 'd', value) + bytes((stride or self.stride) - 8)

    def file(self, *entries, used=None, size=SIZE, order='<'):
        body = b''.join(entries)
        header = struct.pack(order + 'ii', 8 + len(body) if used is None else used, 0)
        return (header + body).ljust(size, b'\0')

    def three(self, middle, value=2.0):
        """a and c whole, and between them an entry with the key middle."""
        return self.file(self.entry(self.key(b'a'), 1), self.entry(middle, value), self.entry(self.key(b'c'), 3))


PYTHON = Client('db', '', 16)
RUBY = Client('db_ruby', '-0', 8)


def cases(c):
    """Yields (case, name of the damaged file, its bytes) as the client c would have left them."""
    a, b, d = (c.entry(c.key(k), v) for k, v in ((b'a', 1), (b'b', 2), (b'c', 3)))
    whole = c.file(a, b, d)
    py = c.stride == 16

    yield 'all_zero', 'counter', bytes(SIZE)
    yield 'bad_metric_name', 'counter', c.three(b'["", "", {}, "h"]' if py else b'["","",[],[]]')
    yield 'big_endian', 'counter', c.file(c.entry(PYTHON.key(b'a'), 1, stride=16, order='>'),
                                          used=40 + c.stride, size=1056, order='>')
    yield 'empty_0_bytes', 'counter', b''
    yield 'era_a_file', 'counter', c.file(c.entry(A_FILE, 1, stride=8), size=1 << 20)
    yield 'era_b_file', 'counter', c.file(c.entry(B_FILE, 1, stride=8), size=1 << 20)
    yield 'gauge_unknown_mode', 'gauge_average', c.file(c.entry(b'["g", "g", {}, "h"]' if py else b'["g","g",[],[]]', 1))
    yield 'hist_le_variants', 'histogram', c.file(*(
        c.entry(b'["h", "h_bucket", {"le": "%s"}, "h"]' % le, 2.0 ** i)
        for i, le in ((0, b'1'), (1, b'1.0'), (2, b'1e0'), (3, b'+Inf'), (4, b'inf'))))
    yield 'hist_no_le', 'histogram', c.file(c.entry(b'["h", "h_bucket", {"x": "1"}, "h"]', 3),
                                            c.entry(b'["h", "h_sum", {"x": "1"}, "h"]', 3))
    yield 'key_bad_json', 'counter', c.three(b'["b", "b_total", {"x": "1}, "h"]')
    yield 'key_bad_utf8', 'counter', c.three(b'["b\xff\xfe", "b_total", {}, "h"]' if py else
                                             b'["b\xff\xfe", "b_total",[],[]]')
    yield 'key_dup', 'counter', c.three(c.key(b'a'), 5)
    yield 'key_label_nonstring', 'counter', c.three(b'["b", "b_total", {"x": 1, "y": null, "z": true}, "h"]')
    yield 'key_wrong_arity', 'counter', c.three(b'["b", "b_total"]')
    yield 'len_huge', 'counter', c.file(a, c.entry(c.key(b'b'), 2, length=0x7fffffff), d)
    yield 'pad_garbage', 'counter', c.file(c.entry(c.key(b'a'), 1, pad=b'\0'), b)
    yield 'truncated_file', 'counter', whole[:8 + len(a) + len(b) + 10]
    yield 'unknown_type', 'foo', c.file(a)
    yield 'used_4_bytes_only', 'counter', struct.pack('<i', 8)
    yield 'used_7', 'counter', c.file(a, used=7)
    yield 'used_8', 'counter', c.file()
    yield 'used_gt_size', 'counter', c.file(a, b, used=1 << 20)
    yield 'used_stale_small', 'counter', c.file(a, b, d, used=8 + len(a))
    yield 'wsl_shifted', 'counter', bytes(SIZE) + c.file(a)


def main(out):
    for c in (PYTHON, RUBY):
        good = b'["good", "good_total", {}, "ok"]' if c is PYTHON else b'["good","good_total",[],[]]'
        for name, kind, data in cases(c):
            directory = os.path.join(out, name, c.directory)
            os.makedirs(directory)
            for prefix, ident, content in ((kind, 101, data), ('counter', 102, c.file(c.entry(good, 2)))):
                with open(os.path.join(directory, '%s_%d%s.db' % (prefix, ident, c.suffix)), 'wb') as f:
                    f.write(content)


if __name__ == '__main__':
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
