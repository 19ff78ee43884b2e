# Write metric files with prometheus-client-mmap, as the workers of one server would.
#
#   gen.rb fill DIR PROCESSES COUNTERS HISTOGRAMS GAUGES
#
# COUNTERS, HISTOGRAMS and GAUGES are label sets per family: there are five counter families, one histogram and
# four gauges. Thirteen bounds make sixteen entries per label set of the histogram, as many as with Python's client.
require 'fileutils'
require 'logger'
require 'tmpdir'

FIRST_PID = 10_001
METHODS = %w[GET POST PUT DELETE].freeze
STATUSES = %w[200 201 404 500 503].freeze
BOUNDS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 7.5, 10, 30].freeze
LATENCIES = [0.003, 0.007, 0.02, 0.04, 0.06, 0.09, 0.2, 0.4, 0.6, 0.9, 2, 4, 6, 9, 20].freeze

_command, directory, *numbers = ARGV
processes, counters, histograms, gauges = numbers.map(&:to_i)
FileUtils.mkdir_p(directory)
ENV['prometheus_multiproc_dir'] = directory
require 'prometheus/client'

def labels(index)
  endpoint = "/api/v2/shops/{shop}/orders/#{index / 20}"
  { method: METHODS[index % 4], endpoint: endpoint, status: STATUSES[index % 5] }
end

def write(worker, counters, histograms, gauges)
  registry = Prometheus::Client::Registry.new
  5.times do |n|
    counter = registry.counter(:"shop_requests_#{n}_total", 'Requests that were answered.')
    counters.times { |i| counter.increment(labels(i), 1 + (7 * i + 3 * worker + n) % 1000 + 0.5 * (i % 2)) }
  end
  latency = registry.histogram(:shop_request_latency_seconds, 'Time of a request.', {}, BOUNDS)
  histograms.times { |i| LATENCIES.rotate(worker).each { |value| latency.observe(labels(i), value) } }
  %i[all livesum max min].each do |mode|
    gauge = registry.gauge(:"shop_queue_#{mode}", 'Length of a queue.', {}, mode)
    gauges.times { |i| gauge.set(labels(i), (13 * i + worker) % 97 / 4.0) }
  end
end

# One process after the other: the library keeps its files locked for as long as their writer lives.
processes.times do |worker|
  child = fork do
    Prometheus::Client.configuration.pid_provider = -> { (FIRST_PID + worker).to_s }
    write(worker, counters, histograms, gauges)
    exit!(0)
  end
  Process.wait(child)
  abort "worker #{worker} ended with #{$?}" unless $?.success?
end
