"""The application that the part about watch has gunicorn serve: the least that a request can cost."""


def application(environ, start_response):
    start_response('200 OK', [('Content-Type', 'text/plain'), ('Content-Length', '3')])
    return [b'ok\n']
