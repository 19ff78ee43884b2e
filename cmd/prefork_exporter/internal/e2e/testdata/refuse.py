"""Runs a command for which the kernel refuses something: refuse.py netlink|pidfd COMMAND...

A seccomp filter, as in seccomp(2), has socket(AF_NETLINK) end with EPERM, or pidfd_open with ENOSYS."""
import ctypes
import errno
import os
import platform
import struct
import sys

SOCKET, AUDIT_ARCH = {'x86_64': (41, 0xc000003e), 'aarch64': (198, 0xc00000b7)}[platform.machine()]
PIDFD_OPEN, AF_NETLINK = 434, 16
LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06  # a word; jump where it is equal; return
ALLOW, REFUSE = 0x7fff0000, 0x00050000
NUMBER, ARCH, FIRST_ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data


def instruction(code, k, true=0, false=0):
    return struct.pack('HBBI', code, true, false, k)


netlink = [
    instruction(LOAD, ARCH), instruction(EQUAL, AUDIT_ARCH, 0, 5),
    instruction(LOAD, NUMBER), instruction(EQUAL, SOCKET, 0, 3),
    instruction(LOAD, FIRST_ARGUMENT), instruction(EQUAL, AF_NETLINK, 0, 1),
    instruction(RETURN, REFUSE | errno.EPERM), instruction(RETURN, ALLOW),
]
pidfd = [
    instruction(LOAD, ARCH), instruction(EQUAL, AUDIT_ARCH, 0, 3),
    instruction(LOAD, NUMBER), instruction(EQUAL, PIDFD_OPEN, 0, 1),
    instruction(RETURN, REFUSE | errno.ENOSYS), instruction(RETURN, ALLOW),
]
program = {'netlink': netlink, 'pidfd': pidfd}[sys.argv[1]]
code = ctypes.create_string_buffer(b''.join(program))
head = ctypes.create_string_buffer(struct.pack('HxxxxxxP', len(program), ctypes.addressof(code)))
libc = ctypes.CDLL(None, use_errno=True)
NO_NEW_PRIVS, SET_SECCOMP, FILTER = 38, 22, 2
if libc.prctl(NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(SET_SECCOMP, FILTER, head, 0, 0):
    sys.exit('prctl: ' + os.strerror(ctypes.get_errno()))
os.execv(sys.argv[2], sys.argv[2:])
