"""The configuration of the tests' gunicorn: each worker tells which heartbeat file is its own, in DIR.

MONOTONIC has workers of any version give signs of life as those of gunicorn 22 do. HELPERS has the master fork processes
that are no workers: before the second worker, when its file is there, or between others.
"""
import os
import signal
import time

from gunicorn.workers.workertmp import WorkerTmp


def beat(self):
    now = time.monotonic()
    os.utime(self.fileno(), (now, now))


if 'MONOTONIC' in os.environ:
    WorkerTmp.notify = beat
    WorkerTmp.last_update = lambda self: os.fstat(self.fileno()).st_mtime


def tell(name, text):
    path = os.path.join(os.environ['DIR'], name)
    with open(path + '.new', 'w') as f:
        f.write(text)
    os.rename(path + '.new', path)


def post_fork(server, worker):
    file = os.fstat(worker.tmp.fileno())
    tell('own.%d' % os.getpid(), '%d %d' % (file.st_dev, file.st_ino))
    if 'BOOT' in os.environ:
        while not os.path.exists(os.environ['BOOT']):
            time.sleep(.01)


def post_worker_init(worker):
    import app
    app.worker = worker
    tell('ready.%d' % os.getpid(), '')


def fork_helper():
    helper = os.fork()
    if helper == 0:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pause()
    tell('helper.%d' % helper, '')


def pre_fork(server, worker):
    if os.environ.get('HELPERS') == 'before' and worker.age == 2:
        fork_helper()


def nworkers_changed(server, new, old):
    if os.environ.get('HELPERS') == 'between' and old is not None:
        fork_helper()
