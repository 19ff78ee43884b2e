package watch

import (
	"path"
	"regexp"
	"slices"
	"strings"
)

// Kinds returns all kinds, in order of their names.
func Kinds() []Kind {
	return []Kind{Generic, Gunicorn, PHPFPM, Puma, Sidekiq, Unicorn, UWSGI}
}

// KindOf finds out the kind of a server by its command line, or by what its master has
// put in its place. It is Generic where nothing says more.
func KindOf(args []string) Kind {
	if len(args) == 0 {
		return Generic
	}
	for _, title := range []struct {
		begins string
		kind   Kind
	}{
		{"gunicorn: master", Gunicorn}, {"unicorn master", Unicorn}, {"unicorn_rails master", Unicorn},
		{"puma ", Puma}, {"php-fpm: master", PHPFPM}, {"sidekiqswarm", Sidekiq},
	} {
		if strings.HasPrefix(args[0], title.begins) {
			return title.kind
		}
	}
	if strings.Contains(args[0], "uWSGI master") { // perhaps behind its procname-prefix
		return UWSGI
	}
	// The program, or what an interpreter runs: python3 -m gunicorn, ruby /usr/bin/puma.
	for _, word := range args[:min(len(args), mostWordsBefore)] {
		if kind, ok := kindOfProgram(path.Base(word)); ok {
			return kind
		}
	}
	return Generic
}

// mostWordsBefore is how many words may stand before the name of the server's program:
// an interpreter and its flags. What comes later are words of the server's own.
const mostWordsBefore = 4

func kindOfProgram(name string) (Kind, bool) {
	switch {
	case slices.Contains([]string{"gunicorn", "gunicorn3"}, name):
		return Gunicorn, true
	case name == "uwsgi" || strings.HasPrefix(name, "uwsgi-") || strings.HasPrefix(name, "uwsgi_"):
		return UWSGI, true
	case name == "unicorn" || name == "unicorn_rails":
		return Unicorn, true
	case name == "puma":
		return Puma, true
	case strings.HasPrefix(name, "php-fpm"):
		return PHPFPM, true
	case name == "sidekiqswarm":
		return Sidekiq, true
	}
	return "", false
}

// role is what a process below a master is.
type role int

const (
	// undecided is one that does not show yet what it is.
	undecided role = iota
	worker
	helper
)

// relative is a process below a master.
type relative struct {
	args   []string
	forked bool // it runs its master's program: see [procfs.Stat]
	same   bool // it runs a program of the same name
}

// title returns what the process calls itself.
func (r relative) title() string { return strings.Join(r.args, " ") }

// preset is what is peculiar to a kind of server.
type preset struct {
	// deep says that workers may fork workers: puma's fork_worker.
	deep bool
	// titles are what processes call themselves, the index of a worker in the first group.
	// Empty: they keep the master's command line.
	worker, helper *regexp.Regexp
	// always says that workers have that title. Else it has to be asked for, or to be installed.
	always bool
}

func presetOf(k Kind) preset {
	switch k {
	case Gunicorn:
		return preset{worker: regexp.MustCompile(`^gunicorn: worker`), helper: regexp.MustCompile(`^gunicorn: dirty`)}
	case UWSGI: // a prefix may stand before it: procname-prefix
		return preset{worker: regexp.MustCompile(`\buWSGI worker (\d+)`), helper: regexp.MustCompile(`\buWSGI (?:mule|spooler|http|fastrouter|rawrouter|sslrouter|emperor|cron|carbon)`)}
	case Unicorn:
		return preset{worker: regexp.MustCompile(`^\S*unicorn(?:_rails)? worker\[(\d+)\]`), always: true}
	case Puma:
		return preset{deep: true, worker: regexp.MustCompile(`^puma: cluster worker (\d+):`), always: true}
	case PHPFPM:
		return preset{worker: regexp.MustCompile(`^php-fpm: pool `), always: true}
	}
	return preset{}
}

// role returns what a process is, and its index, if it tells one.
func (p preset) role(r relative) (is role, index string) {
	title := r.title()
	if p.worker != nil && (r.forked || r.same) { // anybody may call itself so
		if found := p.worker.FindStringSubmatch(title); found != nil {
			return worker, strings.Join(found[1:], "")
		}
	}
	switch {
	case p.helper != nil && p.helper.MatchString(title), !r.forked && !r.same:
		return helper, ""
	case p.always:
		return undecided, ""
	case p.worker == nil, r.forked:
		return worker, ""
	}
	return helper, ""
}

// reloadSignals are those that have a master replace all its workers.
func reloadSignals(k Kind) []string {
	switch k {
	case Gunicorn, Unicorn, UWSGI:
		return []string{"HUP"}
	case Puma:
		return []string{"USR1", "USR2"}
	case PHPFPM:
		return []string{"USR2"}
	}
	return nil
}
