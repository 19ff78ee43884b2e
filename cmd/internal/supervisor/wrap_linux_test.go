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
		"server --name unicorn --with uwsgi":     syscall.SIGTERM,
	} {
		if got := stopSignalOf(strings.Fields(args)); got != want {
			t.Errorf("%s: %v, want %v", args, got, want)
		}
	}
}
