# The Rack application of the tests, as app.py is the WSGI application.
run lambda { |env|
  word, number = env['PATH_INFO'].delete_prefix('/').split('/')
  exit! Integer(number) if word == 'exit'
  Process.kill(Integer(number), Process.pid) if word == 'kill'
  sleep 1000 if word == 'hang'
  [200, { 'Content-Type' => 'text/plain', 'Content-Length' => '3' }, ["ok\n"]]
}
