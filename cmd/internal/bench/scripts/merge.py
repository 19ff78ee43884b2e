"""Merge the metric files of a directory with the Python client, once per line read from standard input.

merge.py DIR        lines: plain | gzip | save FILE | describe

plain and gzip answer with the cost of that merge alone; total is the CPU time since the interpreter started.
"""
import gzip
import inspect
import json
import os
import platform
import sys
import time

directory = sys.argv[1]
os.environ['PROMETHEUS_MULTIPROC_DIR'] = directory

import prometheus_client  # noqa: E402  (the library looks at the environment while it is imported)
from prometheus_client import multiprocess  # noqa: E402


def merge():
    registry = prometheus_client.CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)
    return prometheus_client.generate_latest(registry)


def timed(produce):
    wall, cpu = time.perf_counter(), time.process_time()
    size = len(produce())
    now, spent = time.perf_counter(), time.process_time()
    return {'wall': now - wall, 'cpu': spent - cpu, 'total': spent, 'bytes': size}


def save(path):
    with open(path, 'wb') as f:
        f.write(merge())
    return {}


def describe():
    from importlib.metadata import version
    level = inspect.signature(gzip.compress).parameters['compresslevel'].default
    return {'language': 'Python ' + platform.python_version(),
            'client': 'client_python ' + version('prometheus_client'),
            'gzip': f'gzip.compress at level {level}, as its own server calls it'}


for line in sys.stdin:
    command, _, argument = line.rstrip('\n').partition(' ')
    if command == 'plain':
        answer = timed(merge)
    elif command == 'gzip':
        answer = timed(lambda: gzip.compress(merge()))
    elif command == 'save':
        answer = save(argument)
    else:
        answer = describe()
    print(json.dumps(answer), flush=True)
