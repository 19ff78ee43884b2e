"""A master for the tests, which does as its standard input says, a command a line:

start N         N workers that wait
churn N MS      N workers, one after another, each of which exits with 7 after so many milliseconds
exec            becomes another program of the same name, with the same workers
run             starts a helper: another program

Each is answered by a line when it is done. Ends are waited for at once, unless the variable LAZY is set."""
import os
import signal
import subprocess
import sys
import time

LAZY = 'LAZY' in os.environ


def start(seconds=None):
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        time.sleep(1000 if seconds is None else seconds)
        os._exit(7)
    return pid


def reap():
    try:
        while not LAZY and os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


signal.signal(signal.SIGCHLD, lambda *_: reap())
for line in open(0, 'rb', 0, closefd=False):  # no byte more than the line: exec leaves the rest to who comes after
    word, *rest = line.decode().split()
    if word == 'start':
        for _ in range(int(rest[0])):
            start()
    elif word == 'churn':
        for _ in range(int(rest[0])):
            pid = start(int(rest[1]) / 1000)
            while os.path.exists('/proc/%d' % pid):
                reap()
                time.sleep(.001)
    elif word == 'exec':
        os.execv(sys.executable, [sys.executable, *sys.argv])
    elif word == 'run':
        subprocess.Popen(['sleep', '1000'])
    print('done', flush=True)
