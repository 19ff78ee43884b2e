package watch

import (
	"strings"
	"testing"
)

func TestKindsOfServers(t *testing.T) {
	for line, want := range map[string]Kind{
		"":                                            Generic,
		"/usr/bin/python3 /usr/bin/gunicorn app":      Gunicorn,
		"python3 -m gunicorn app":                     Gunicorn,
		"gunicorn: master [shop]":                     Gunicorn,
		"uwsgi --ini a.ini":                           UWSGI,
		"/usr/bin/uwsgi-core --plugin python3":        UWSGI,
		"uWSGI master":                                UWSGI,
		"shop uWSGI master":                           UWSGI,
		"unicorn master -c unicorn.rb":                Unicorn,
		"/usr/bin/ruby /usr/bin/unicorn_rails":        Unicorn,
		"puma 5.6.5 (tcp://0.0.0.0:80) [shop]":        Puma,
		"ruby bin/puma -w 2":                          Puma,
		"php-fpm: master process (/etc/php-fpm.conf)": PHPFPM,
		"/usr/sbin/php-fpm8.2 -F":                     PHPFPM,
		"sidekiqswarm, managing 2 processes":          Sidekiq,
		"./server --name a b c d gunicorn":            Generic,
		"/usr/bin/python3 gunicorn.py":                Generic,
	} {
		var args []string
		if line != "" {
			args = strings.Split(line, " ")
			if strings.Contains(line, "master") || strings.HasPrefix(line, "puma ") || strings.Contains(line, "managing") {
				args = []string{line} // as a title is
			}
		}
		if got := KindOf(args); got != want {
			t.Errorf("%q: %s, want %s", line, got, want)
		}
	}
}

func TestWhatAProcessBelowAMasterIs(t *testing.T) {
	forked := func(title string) relative { return relative{args: []string{title}, forked: true} }
	for name, tc := range map[string]struct {
		kind  Kind
		of    relative
		want  role
		index string
	}{
		"gunicorn's own, by its fork":       {Gunicorn, forked("python3 gunicorn app"), worker, ""},
		"gunicorn's own, by its title":      {Gunicorn, forked("gunicorn: worker [shop]"), worker, ""},
		"gunicorn's dirty arbiter":          {Gunicorn, forked("gunicorn: dirty-arbiter"), helper, ""},
		"what gunicorn has run":             {Gunicorn, relative{args: []string{"sleep"}}, helper, ""},
		"another gunicorn":                  {Gunicorn, relative{args: []string{"gunicorn"}, same: true}, helper, ""},
		"uWSGI's, by its title":             {UWSGI, forked("uWSGI worker 3"), worker, "3"},
		"uWSGI's, with a prefix and a core": {UWSGI, forked("shop uWSGI worker 12 <10.0.0.1>"), worker, "12"},
		"uWSGI's mule":                      {UWSGI, forked("uWSGI mule 1"), helper, ""},
		"uWSGI's router":                    {UWSGI, forked("shop uWSGI http 1"), helper, ""},
		"uWSGI's, without a title":          {UWSGI, forked("uwsgi --ini a"), worker, ""},
		"unicorn's":                         {Unicorn, forked("unicorn worker[4] -c a.rb"), worker, "4"},
		"unicorn_rails'":                    {Unicorn, forked("unicorn_rails worker[0] -D"), worker, "0"},
		"unicorn's, as it was forked":       {Unicorn, forked("unicorn master -c a.rb"), undecided, ""},
		"puma's":                            {Puma, forked("puma: cluster worker 1: 77 [shop]"), worker, "1"},
		"puma's, as it was forked":          {Puma, forked("puma 5.6.5 (tcp://0.0.0.0:80)"), undecided, ""},
		"what puma has run":                 {Puma, relative{args: []string{"node", "ssr.js"}}, helper, ""},
		"php-fpm's":                         {PHPFPM, forked("php-fpm: pool www"), worker, ""},
		"Sidekiq's":                         {Sidekiq, forked("sidekiq 7.2.0 shop [0 of 5 busy]"), worker, ""},
		"any other's, by its fork":          {Generic, forked("./server"), worker, ""},
		"any other's that it has run":       {Generic, relative{args: []string{"./server", "-child"}, same: true}, worker, ""},
		"another program":                   {Generic, relative{args: []string{"sleep"}}, helper, ""},
	} {
		t.Run(name, func(t *testing.T) {
			got, index := presetOf(tc.kind).role(tc.of)
			if got != tc.want || index != tc.index {
				t.Errorf("%d, index %q; want %d, %q", got, index, tc.want, tc.index)
			}
		})
	}
}
