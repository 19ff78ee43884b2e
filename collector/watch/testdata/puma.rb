workers 2
threads 1, 1
bind "tcp://#{ENV.fetch('LISTEN')}"
