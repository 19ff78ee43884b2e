# What the Ruby client asks of puma: files for each worker's process.
require 'prometheus/client'

workers 3
threads 1, 1
queue_requests false # else a worker that ends drops connections that it has accepted and not read
bind "tcp://#{ENV.fetch('LISTEN')}"

Prometheus::Client.configure do |config|
  config.multiprocess_files_dir = ENV.fetch('METRIC_DIR')
end

on_worker_boot { Prometheus::Client.reinitialize_on_pid_change }
