"""The first process of a PID namespace, which gives process ids to strangers: strangers.py MASTER PIDFILE

It starts a master, forker.py, as its child, and does as its standard input says, a command a line, each of which is
answered by a line when it is done:

replace PID    kills a process, and has a stranger get its id at once
master         as replace, of the master
end PID        kills a stranger
"""
import os
import signal
import subprocess
import sys
import time

master = subprocess.Popen([sys.executable, '-u', sys.argv[1]], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
master.stdin.write(b'start 3\n')
master.stdin.flush()
master.stdout.readline()
with open(sys.argv[2], 'w') as f:
    f.write('%d\n' % master.pid)


def stranger(wanted):
    """Forks until the child has that id: threads of others may take it first."""
    while True:
        with open('/proc/sys/kernel/ns_last_pid', 'w') as f:
            f.write(str(wanted - 1))
        pid = os.fork()
        if pid == 0:
            while True:
                time.sleep(1000)
        if pid == wanted:
            return
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def gone(pid):
    while os.path.exists('/proc/%d' % pid):
        try:
            os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            pass


print('started', master.pid, flush=True)
for line in sys.stdin:
    word, *rest = line.split()
    pid = int(rest[0]) if rest else master.pid
    os.kill(pid, signal.SIGKILL)
    gone(pid)
    if word != 'end':
        stranger(pid)
    print('done', flush=True)
