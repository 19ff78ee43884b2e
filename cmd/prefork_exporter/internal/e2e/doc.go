// Package e2e holds the tests of the whole program: they build it, start it
// beside real servers (Debian's gunicorn, uWSGI, unicorn and Prometheus) or over
// directories that are out to harm it, and look at what it serves. A test whose
// server is not installed is skipped, or fails where PREFORK_REQUIRE_PEERS is set.
package e2e
