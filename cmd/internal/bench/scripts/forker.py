"""A pre-fork master whose workers sleep: forker.py HOST PORT PIDFILE WORKERS.

A worker that ends is followed by another at once; all end with the master, however that ends.
"""
import os
import signal
import socket
import sys

NEEDED = signal.SIGCHLD, signal.SIGTERM


def bear(alive, keep):
    if os.fork() == 0:
        os.close(keep)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, NEEDED)
        os.read(alive, 1)  # until the master is gone
        os._exit(0)


def main():
    host, port, pidfile, workers = sys.argv[1:]
    signal.pthread_sigmask(signal.SIG_BLOCK, NEEDED)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    listener = socket.create_server((host, int(port)))
    alive, keep = os.pipe()
    for _ in range(int(workers)):
        bear(alive, keep)
    with open(pidfile + '.new', 'w') as f:
        print(os.getpid(), file=f)
    os.rename(pidfile + '.new', pidfile)
    while signal.sigwait(NEEDED) != signal.SIGTERM:
        while os.waitpid(-1, os.WNOHANG)[0]:
            bear(alive, keep)
    listener.close()


main()
