# Merge the metric files of a directory with prometheus-client-mmap, once per line read from standard input.
#
#   merge.rb DIR        lines: plain | gzip | save FILE | describe
#
# plain and gzip answer with the cost of that merge alone; total is the CPU time since the interpreter started.
require 'json'
require 'logger'
require 'zlib'

directory = ARGV[0]
ENV['prometheus_multiproc_dir'] = directory
require 'prometheus/client'
require 'prometheus/client/formats/text'

merge = -> { Prometheus::Client::Formats::Text.marshal_multiprocess(directory) }

def clocks
  [Process::CLOCK_MONOTONIC, Process::CLOCK_PROCESS_CPUTIME_ID].map { |id| Process.clock_gettime(id) }
end

def timed
  wall, cpu = clocks
  size = yield.bytesize
  now, spent = clocks
  { wall: now - wall, cpu: spent - cpu, total: spent, bytes: size }
end

def describe
  { language: "Ruby #{RUBY_VERSION}",
    client: "prometheus-client-mmap #{Gem::Specification.find_by_name('prometheus-client-mmap').version}",
    gzip: 'Zlib.gzip at its default level, as Rack::Deflater calls it' }
end

$stdout.sync = true
$stdin.each_line(chomp: true) do |line|
  command, argument = line.split(' ', 2)
  answer = case command
           when 'plain' then timed(&merge)
           when 'gzip' then timed { Zlib.gzip(merge.call) }
           when 'save' then File.write(argument, merge.call) && {}
           else describe
           end
  puts answer.to_json
end
