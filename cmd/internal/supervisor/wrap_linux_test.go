package supervisor

import (
	"strings"
	"syscall"
	"testing"
)

func TestWithWhichSignalAServerStops(t *testing.T) {
	for args, want := range map[string]syscall.Signal{
		"gunicorn app:app":                       syscall.SIGTERM,
		"/usr/bin/python3 /usr/bin/gunicorn app": syscall.SIGTERM,
		"puma":                                   syscall.SIGTERM,
		"/usr/bin/uwsgi-core --ini app.ini":      syscall.SIGINT,
		"uwsgi":                                  syscall.SIGINT,
		"unicorn -c x":                           syscall.SIGQUIT,
		"bundle exec unicorn":                    syscall.SIGQUIT,
		"ruby /usr/bin/unicorn":                  syscall.SIGQUIT,
		"php-fpm8.2 -F":                          syscall.SIGQUIT,
		"python3 -X dev -m gunicorn app":         syscall.SIGTERM,
		"ruby -W0 -I lib /usr/bin/unicorn":       syscall.SIGQUIT,
		"bundle exec ruby -S unicorn_rails":      syscall.SIGQUIT,
		"bundle exec puma -C config/puma.rb":     syscall.SIGTERM,
		"ruby3.1 /usr/bin/puma -w 2":             syscall.SIGTERM,
		"/usr/sbin/php-fpm8.2 --nodaemonize":     syscall.SIGQUIT,
		"python3 -X":                             syscall.SIGTERM,
		"ruby":                                   syscall.SIGTERM,
		"server --name unicorn --with uwsgi":     syscall.SIGTERM,
	} {
		if got := stopSignalOf(strings.Fields(args)); got != want {
			t.Errorf("%s: %v, want %v", args, got, want)
		}
	}
}
