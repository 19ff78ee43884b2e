# Prints what the Ruby client itself makes of the metric files of a directory.
require 'prometheus/client'
require 'prometheus/client/formats/text'

$stdout.write Prometheus::Client::Formats::Text.marshal_multiprocess(ARGV[0])
