# The Rack application of the tests, as app.py is the WSGI application: GET /path?seconds=0.5 is counted by method and
# path, and observed as half a second. /wait is counted, and answered when the file GATE is there. FAMILY is what
# the names of the families begin with.
require 'prometheus/client'
require 'rack'

registry = Prometheus::Client.registry
family = ENV.fetch('FAMILY')
requests = registry.counter(:"#{family}_requests_total", 'Requests that were taken.')
duration = registry.histogram(:"#{family}_request_seconds", 'What the requests asked for.', {}, [0.25, 1, 4])
size = registry.summary(:"#{family}_response_bytes", 'Bytes that were answered.')
last = %i[all liveall min max livesum].map do |mode|
  registry.gauge(:"#{family}_last_#{mode}_seconds", 'What the last request asked for.', {}, mode)
end

run lambda { |env|
  path = env['PATH_INFO']
  requests.increment({ method: env['REQUEST_METHOD'], path: path })
  sleep 0.01 while path == '/wait' && !File.exist?(ENV.fetch('GATE'))
  seconds = Float(Rack::Utils.parse_query(env['QUERY_STRING'])['seconds'])
  duration.observe({ path: path }, seconds)
  last.each { |gauge| gauge.set({}, seconds) }
  body = "done\n"
  size.observe({}, body.bytesize)
  [200, { 'Content-Type' => 'text/plain', 'Content-Length' => body.bytesize.to_s }, [body]]
}
