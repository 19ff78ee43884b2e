"""Counts at full speed until it is told to stop by SIGTERM, then prints as JSON how many rounds and series it made.

Every value is a whole number. A new series comes every EVERY rounds until there are SERIES. Their keys have a long
help, so that the file has to grow several times.
"""
import json
import signal

from prometheus_client import Counter, Histogram

SERIES, EVERY = 200, 1000

rounds = Counter('writer_rounds', 'Rounds.')
steps = Histogram('writer_steps', 'Observations.', buckets=(1, 2, 4))
born = Counter('writer_born', 'Rounds that made a series or used one. ' * 30, ['number'])
stopped = []
signal.signal(signal.SIGTERM, lambda *_: stopped.append(True))

count, children = 0, []
while not stopped:
    count += 1
    rounds.inc()
    steps.observe(count % 6)
    if count % EVERY == 0 and len(children) < SERIES:
        children.append(born.labels(len(children)))
    if children:
        children[count % len(children)].inc()
print(json.dumps({'rounds': count, 'series': len(children)}))
