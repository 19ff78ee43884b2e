"""Prints how many nanoseconds one operation of client_python takes in multiprocess mode: count.py OPERATION DIR"""
import os
import sys
import time

operation, os.environ["PROMETHEUS_MULTIPROC_DIR"] = sys.argv[1:]
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram  # noqa: E402, it reads the environment

registry = CollectorRegistry()
vector = Counter("c", "c", ["method", "code"], registry=registry)
counter = vector.labels("GET", "200")
gauge = Gauge("g", "g", registry=registry)
histogram = Histogram("h", "h", registry=registry)
do = {
    "Inc": lambda: counter.inc(),
    "Set": lambda: gauge.set(2.5),
    "Observe": lambda: histogram.observe(0.3),
    "WithLabelValues": lambda: vector.labels("GET", "200"),
}[operation]
N = 100_000
start = time.perf_counter()
for _ in range(N):
    do()
print((time.perf_counter() - start) * 1e9 / N)
