"""The WSGI application of the tests: each path is a way to end, or to hang."""
import ctypes
import os
import signal
import time

if os.environ.get('BROKEN') == 'boot':
    raise RuntimeError('as the test wants it')


def application(environ, start_response):
    word, _, number = environ['PATH_INFO'].strip('/').partition('/')
    if word == 'exit':
        os._exit(int(number))
    if word == 'kill':
        os.kill(os.getpid(), int(number))
    if word == 'crash':
        signal.signal(signal.SIGSEGV, signal.SIG_DFL)
        ctypes.string_at(0)
    if word == 'hang':
        time.sleep(1000)
    if word == 'eat':
        eaten = []
        while True:
            eaten.append(bytearray(b'x' * (1 << 20)))
    start_response('200 OK', [('Content-Type', 'text/plain'), ('Content-Length', '3')])
    return [b'ok\n']
