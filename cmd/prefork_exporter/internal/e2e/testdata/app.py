"""The WSGI application of the tests: counts what it answers, in every type and gauge mode that the client has.

A request GET /path?seconds=0.5 is counted by method and path, and observed as half a second. /die is counted, and never
answered: the worker kills itself. /wait is counted, and answered when the file GATE is there. FAMILY is what the names
of the families begin with.
"""
import os
import signal
import time
from urllib.parse import parse_qs

import prometheus_client
from prometheus_client import Counter, Gauge, Histogram, Summary

try:
    import uwsgi
except ImportError:
    pass
else:  # files by worker id: a new worker goes on with the files of the one before
    prometheus_client.values.ValueClass = prometheus_client.values.MultiProcessValue(uwsgi.worker_id)

FAMILY = os.environ['FAMILY']
MODES = ('all', 'liveall', 'min', 'livemin', 'max', 'livemax', 'sum', 'livesum')

requests = Counter(FAMILY + '_requests', 'Requests that were taken.', ['method', 'path'])
duration = Histogram(FAMILY + '_request_seconds', 'What the requests asked for.', ['path'], buckets=(.25, 1, 4))
size = Summary(FAMILY + '_response_bytes', 'Bytes that were answered.')
last = [Gauge('%s_last_%s_seconds' % (FAMILY, mode), 'What the last request asked for.', multiprocess_mode=mode)
        for mode in MODES]
busy = Gauge(FAMILY + '_requests_in_progress', 'Requests that are being answered.', multiprocess_mode='livesum')


@busy.track_inprogress()
def application(environ, start_response):
    path = environ['PATH_INFO']
    requests.labels(environ['REQUEST_METHOD'], path).inc()
    if path == '/die':
        os.kill(os.getpid(), signal.SIGKILL)
    while path == '/wait' and not os.path.exists(os.environ['GATE']):
        time.sleep(.01)
    seconds = float(parse_qs(environ['QUERY_STRING'])['seconds'][0])
    duration.labels(path).observe(seconds)
    for gauge in last:
        gauge.set(seconds)
    body = b'done\n'
    size.observe(len(body))
    start_response('200 OK', [('Content-Type', 'text/plain'), ('Content-Length', str(len(body)))])
    return [body]
