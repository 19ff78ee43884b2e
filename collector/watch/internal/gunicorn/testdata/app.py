"""What the tests' workers answer: /wait when the file that the query names is there, all else at once.

A request to /wait first writes what its worker knows of its own heartbeat into another file.
"""
import os
import time

worker = None  # gunicorn.conf.py sets it


def application(environ, start_response):
    if environ['PATH_INFO'] == '/wait':
        gate = environ['QUERY_STRING']
        with open(gate + '.new', 'w') as f:
            f.write('%d %r' % (os.getpid(), worker.tmp.last_update()))
        os.rename(gate + '.new', gate + '.taken')
        while not os.path.exists(gate):
            time.sleep(.01)
    start_response('200 OK', [('Content-Length', '0')])
    return []
