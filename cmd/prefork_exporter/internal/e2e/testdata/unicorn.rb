# What the Ruby client asks of unicorn: a file for each worker's number.
require 'prometheus/client'
require 'prometheus/client/support/unicorn'

worker_processes 3
listen ENV.fetch('LISTEN')
preload_app true
timeout 30

Prometheus::Client.configure do |config|
  config.multiprocess_files_dir = ENV.fetch('METRIC_DIR')
  config.pid_provider = Prometheus::Client::Support::Unicorn.method(:worker_pid_provider)
end

after_fork { |_server, _worker| Prometheus::Client.reinitialize_on_pid_change }
