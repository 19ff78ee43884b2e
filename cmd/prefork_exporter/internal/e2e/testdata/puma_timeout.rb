# Puma as the tests of timeouts have it: a worker that says nothing for a while is killed.
workers 2
threads 1, 1
worker_timeout 6
bind "tcp://#{ENV.fetch('LISTEN')}"
