"""Prints what the Python client's own collector makes of the metric files of a directory, read in sorted order."""
import glob
import os
import sys

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector


class Merged:
    def collect(self):
        return MultiProcessCollector.merge(sorted(glob.glob(os.path.join(sys.argv[1], '*.db'))))


registry = CollectorRegistry()
registry.register(Merged())
sys.stdout.buffer.write(generate_latest(registry))
