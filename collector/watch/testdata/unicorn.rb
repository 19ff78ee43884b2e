worker_processes 2
listen ENV.fetch('LISTEN')
timeout 3
