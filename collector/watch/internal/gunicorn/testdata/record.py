"""Records what a real gunicorn, 25.1 or later, answers at its control socket, frame by frame.

Usage: PYTHONPATH=CHECKOUT_OF_GUNICORN python3 record.py

Files whose name begins with show- are the answers to those commands, error.frame that to a command that there is not.
"""
import json
import os
import socket
import struct
import subprocess
import sys
import tempfile
import time

here = os.path.dirname(os.path.abspath(__file__))


def exactly(s, n):
    b = b''
    while len(b) < n:
        part = s.recv(n - len(b))
        if not part:
            raise EOFError
        b += part
    return b


def ask(path, command):
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(path)
        request = json.dumps({'id': 1, 'command': command, 'args': []}).encode()
        s.sendall(struct.pack('>I', len(request)) + request)
        head = exactly(s, 4)
        return head + exactly(s, struct.unpack('>I', head)[0])


def settled(path):
    """Workers that have all given a sign of life."""
    workers = json.loads(ask(path, 'show workers')[4:])['data']['workers']
    return len(workers) == 2 and all(0 <= w['last_heartbeat'] < 100 for w in workers)


with tempfile.TemporaryDirectory() as dir:
    path = os.path.join(dir, 'ctl')
    server = subprocess.Popen([
        sys.executable, '-m', 'gunicorn', '--workers', '2', '--bind', 'unix:http', '--pythonpath', here,
        '--timeout', '20', '--max-requests', '1000', '--control-socket', 'ctl', 'app:application'], cwd=dir)
    try:
        while True:
            try:
                if settled(path):
                    break
            except (OSError, EOFError):
                pass
            time.sleep(.05)
        for name, command in (('show-stats', 'show stats'), ('show-workers', 'show workers'),
                              ('show-config', 'show config'), ('error', 'show nonsense')):
            with open(os.path.join(here, name + '.frame'), 'wb') as f:
                f.write(ask(path, command))
    finally:
        server.terminate()
        server.wait()
