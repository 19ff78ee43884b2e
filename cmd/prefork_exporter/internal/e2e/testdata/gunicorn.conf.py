"""What the Python client asks of gunicorn: the live gauges of a dead worker go. And a word when a worker is ready."""
from prometheus_client import multiprocess


def post_worker_init(worker):
    worker.log.info('Application is loaded')


def child_exit(server, worker):
    multiprocess.mark_process_dead(worker.pid)
