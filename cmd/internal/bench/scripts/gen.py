"""Write metric files with the Python client, as the workers of one server would.

gen.py fill  DIR PROCESSES COUNTERS HISTOGRAMS GAUGES
gen.py churn DIR PROCESSES COUNTERS HISTOGRAMS GAUGES STEP

COUNTERS, HISTOGRAMS and GAUGES are label sets per family: there are five counter families, one histogram and
four gauges. churn advances a directory by one step: one worker in twenty dies and gets a successor, every living
worker gains 1 % new series, and one counter in ten moves. The same steps give the same directory each time.
"""
import os
import sys

FIRST_PID = 10001
METHODS = ('GET', 'POST', 'PUT', 'DELETE')
STATUSES = ('200', '201', '404', '500', '503')
LATENCIES = (0.003, 0.007, 0.02, 0.04, 0.06, 0.09, 0.2, 0.4, 0.6, 0.9, 2, 4, 6, 9, 20)
MODES = ('all', 'livesum', 'max', 'min')
LABELS = ('method', 'endpoint', 'status')


class App:
    """The metrics of one application, written under whichever process id is current."""

    def __init__(self):
        self.pid = FIRST_PID
        # prometheus_client chooses its value class while it is imported: replace it before there is any metric.
        from prometheus_client import values
        values.ValueClass = values.MultiProcessValue(lambda: self.pid)
        import prometheus_client as client
        registry = client.CollectorRegistry()
        self.counters = [
            client.Counter(f'shop_requests_{n}_total', f'Requests that were answered, kind {n}.', LABELS,
                           registry=registry)
            for n in range(5)
        ]
        self.latency = client.Histogram(
            'shop_request_latency_seconds', 'Time from the first byte read to the last one written.', LABELS,
            registry=registry)
        self.gauges = [
            client.Gauge(f'shop_queue_{mode}', f'Length of a queue, merged as {mode}.', LABELS,
                         registry=registry, multiprocess_mode=mode)
            for mode in MODES
        ]

    def count(self, indexes, amount=None):
        worker = self.pid - FIRST_PID
        for n, counter in enumerate(self.counters):
            for i in indexes:
                by = amount or 1 + (7 * i + 3 * worker + n) % 1000 + 0.5 * (i % 2)
                counter.labels(*label_values(i)).inc(by)

    def observe(self, indexes):
        worker = self.pid - FIRST_PID
        for i in indexes:
            child = self.latency.labels(*label_values(i))
            for n in range(len(LATENCIES)):
                child.observe(LATENCIES[(n + worker) % len(LATENCIES)])

    def gauge(self, indexes):
        worker = self.pid - FIRST_PID
        for gauge in self.gauges:
            for i in indexes:
                gauge.labels(*label_values(i)).set((13 * i + worker) % 97 / 4)

    def write(self, counters, histograms, gauges):
        self.count(counters)
        self.observe(histograms)
        self.gauge(gauges)


def label_values(i):
    return METHODS[i % 4], f'/api/v2/shops/{{shop}}/orders/{i // 20}', STATUSES[i % 5]


def fill(processes, sizes):
    app = App()
    for worker in range(processes):
        app.pid = FIRST_PID + worker
        app.write(*map(range, sizes))


def churn(directory, processes, sizes, step):
    before = [n * (100 + step) // 100 for n in sizes]
    after = [n * (101 + step) // 100 for n in sizes]
    replaced = range(processes * step // 20, processes * (step + 1) // 20)
    pids = [FIRST_PID + n for n in range(processes)]
    for n in range(replaced.start):
        pids[n % processes] = FIRST_PID + processes + n

    app = App()
    from prometheus_client import multiprocess
    for n in replaced:
        multiprocess.mark_process_dead(pids[n % processes], directory)
        pids[n % processes] = FIRST_PID + processes + n
    young = {pids[n % processes] for n in replaced}
    for pid in pids:
        if pid not in young:
            app.pid = pid
            app.count(range(step % 10, before[0], 10), amount=1)
            app.write(*map(range, before, after))
    # Successors come last: a change of process id repeats every metric that this process has touched so far.
    for pid in sorted(young):
        app.pid = pid
        app.write(*map(range, after))


def main():
    command, directory, *numbers = sys.argv[1:]
    os.environ['PROMETHEUS_MULTIPROC_DIR'] = directory
    processes, *sizes = map(int, numbers[:4])
    if command == 'fill':
        fill(processes, sizes)
    else:
        churn(directory, processes, sizes, int(numbers[4]))


main()
