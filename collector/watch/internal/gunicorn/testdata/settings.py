"""Prints as JSON what gunicorn makes of the command line that follows, without starting a server."""
import json
import sys

sys.argv[0] = 'gunicorn'
from gunicorn import __version__
from gunicorn.app.wsgiapp import WSGIApplication
from gunicorn.config import Config

application = WSGIApplication('%(prog)s')
cfg = application.cfg
print(json.dumps({
    'version': __version__,
    'timeout': str(cfg.timeout), 'graceful_timeout': str(cfg.graceful_timeout), 'workers': str(cfg.workers),
    'threads': str(cfg.threads), 'max_requests': str(cfg.max_requests), 'max_requests_jitter': str(cfg.max_requests_jitter),
    'worker_class': cfg.worker_class_str, 'pidfile': cfg.pidfile or '',
    'control_socket_disable': str(getattr(cfg, 'control_socket_disable', False)).lower(),
    'control_socket': str(getattr(cfg, 'control_socket', '')),
    'options': sorted(option for action in Config('').parser()._actions for option in action.option_strings),
    'values': sorted(option for action in Config('').parser()._actions for option in action.option_strings
                     if action.nargs != 0),
}))
