package gunicorn

import (
	"errors"
	"path"
	"strings"
)

// option is the long name of an option of gunicorn's.
type option string

const (
	optChdir             option = "--chdir"
	optConfig            option = "--config"
	optControlSocket     option = "--control-socket"
	optGracefulTimeout   option = "--graceful-timeout"
	optMaxRequests       option = "--max-requests"
	optMaxRequestsJitter option = "--max-requests-jitter"
	optNoControlSocket   option = "--no-control-socket"
	optPIDFile           option = "--pid"
	optPaste             option = "--paste"
	optThreads           option = "--threads"
	optTimeout           option = "--timeout"
	optWorkerClass       option = "--worker-class"
	optWorkers           option = "--workers"
)

// wanted says of the options that matter whether they take a value.
var wanted = map[option]bool{
	optChdir: true, optConfig: true, optControlSocket: true, optGracefulTimeout: true, optMaxRequests: true,
	optMaxRequestsJitter: true, optNoControlSocket: false, optPIDFile: true, optPaste: true, optThreads: true,
	optTimeout: true, optWorkerClass: true, optWorkers: true,
}

// short are the long names of all options of one letter. Those of capital letters take no
// value; so does h, and v.
var short = map[byte]option{
	'c': optConfig, 'b': "--bind", 'w': optWorkers, 'k': optWorkerClass, 't': optTimeout, 'D': "--daemon", 'e': "--env",
	'p': optPIDFile, 'u': "--user", 'g': "--group", 'm': "--umask", 'R': "--enable-stdio-inheritance", 'n': "--name",
	'h': "--help", 'v': "--version",
}

func isSwitch(letter byte) bool { return strings.IndexByte("DRhv", letter) >= 0 }

// otherOptions are the rest of the long names, of versions 20.1 to 26.1: what is the
// beginning of several is no abbreviation of one.
const otherOptions = `
--access-logfile --access-logformat --asgi-disconnect-grace-period --asgi-lifespan --asgi-loop --backlog --bind --ca-certs
--capture-output --casefold-http-method --cert-reqs --certfile --check-config --ciphers --control-socket-mode --daemon
--dirty-app --dirty-graceful-timeout --dirty-threads --dirty-timeout --dirty-workers --disable-redirect-access-to-syslog
--do-handshake-on-connect --dogstatsd-tags --enable-backlog-metric --enable-stdio-inheritance --env --error-logfile
--forwarded-allow-ips --forwarder-headers --group --header-map --help --http-parser --http-protocols --http2-cleartext
--http2-initial-window-size --http2-max-concurrent-streams --http2-max-frame-size --http2-max-header-list-size
--initgroups --keep-alive --keyfile --limit-request-field_size --limit-request-fields --limit-request-line --log-config
--log-config-json --log-file --log-level --log-syslog --log-syslog-facility --log-syslog-prefix --log-syslog-to
--logger-class --name --no-sendfile --paste-global --paster --permit-obsolete-folding
--permit-unconventional-http-method --permit-unconventional-http-version --preload --print-config --protocol
--proxy-allow-from --proxy-protocol --pythonpath --reload --reload-engine --reload-extra-file --reuse-port --root-path
--spew --ssl-version --statsd-host --statsd-prefix --strip-header-spaces --suppress-ragged-eofs
--tolerate-dangerous-framing --umask --user --uwsgi-allow-from --version --worker-connections --worker-tmp-dir`

// arguments are what of a command line matters.
type arguments struct {
	values  map[option]string
	unclear map[option]bool // it may have been given: some versions take it so, or it lacks its value
}

// value returns what was given last; nil: nothing was. It is sure unless the option may
// have been given in another way, too.
func (a arguments) value(o option) (value *string, sure bool) {
	if text, ok := a.values[o]; ok {
		value = &text
	}
	return value, !a.unclear[o]
}

func (a arguments) has(o option) bool {
	value, sure := a.value(o)
	return value != nil && *value != "" || !sure
}

// parseArgs takes what Python's argparse takes: -t 5, -t5, -Dt5, --timeout 5, --timeout=5,
// and every beginning of a long name that is no other's. What it does not know it passes
// over, the value too: no value can be taken for an option.
func parseArgs(args []string) arguments {
	a := arguments{values: map[option]string{}, unclear: map[option]bool{}}
	for i, arg := range args {
		switch {
		case arg == "--":
			return a
		case strings.HasPrefix(arg, "--"):
			a.long(arg, args[i+1:])
		case isOption(arg):
			a.letters(arg, args[i+1:])
		}
	}
	return a
}

func isOption(arg string) bool { return len(arg) > 1 && arg[0] == '-' }

func (a arguments) long(arg string, next []string) {
	name, value, attached := strings.Cut(arg, "=")
	matches := matching(name)
	if len(matches) != 1 {
		for _, o := range matches {
			a.unclear[o] = true
		}
		return
	}
	if attached {
		next = []string{value}
	}
	a.set(matches[0], next, attached)
}

// matching returns the options that a long name may stand for.
func matching(name string) (found []option) {
	for _, o := range longOptions() {
		if string(o) == name {
			return []option{canonical(o)}
		}
		if strings.HasPrefix(string(o), name) {
			found = append(found, canonical(o))
		}
	}
	return found
}

// canonical returns the first name of an option that has two.
func canonical(o option) option {
	if o == "--paster" {
		return optPaste
	}
	return o
}

// longOptions returns all names.
func longOptions() []option {
	var all []option
	for name := range strings.FieldsSeq(otherOptions) {
		all = append(all, option(name))
	}
	for o := range wanted {
		all = append(all, o)
	}
	return all
}

// letters reads -t5, or -Dt5.
func (a arguments) letters(arg string, next []string) {
	for i := 1; i < len(arg); i++ {
		o, ok := short[arg[i]]
		if !ok {
			return
		}
		if isSwitch(arg[i]) {
			continue
		}
		if value := arg[i+1:]; value != "" {
			if i == 1 {
				value = strings.TrimPrefix(value, "=")
			}
			a.set(o, []string{value}, true)
			return
		}
		a.set(o, next, false)
		return
	}
}

// set notes an option with the first of what follows it.
func (a arguments) set(o option, next []string, attached bool) {
	takesValue, ok := wanted[o]
	switch {
	case !ok:
	case !takesValue:
		a.values[o] = ""
	case len(next) == 0 || !attached && isOption(next[0]):
		a.unclear[o] = true
	default:
		a.values[o] = next[0]
	}
}

// gunicornArgs returns the arguments that gunicorn itself gets, if it is gunicorn's own
// program that runs.
func gunicornArgs(args []string) ([]string, bool) {
	if len(args) == 0 {
		return nil, false
	}
	if isProgram(args[0]) {
		return args[1:], true
	}
	if name := path.Base(args[0]); !strings.HasPrefix(name, "python") && !strings.HasPrefix(name, "pypy") {
		return nil, false
	}
	rest, ok := interpreterArgs(args[1:])
	return rest, ok
}

// isProgram tells gunicorn's programs, and the files that python -m runs.
func isProgram(name string) bool {
	base := path.Base(name)
	return base == "gunicorn" || base == "gunicorn3" ||
		strings.HasSuffix(name, "/gunicorn/__main__.py") || strings.HasSuffix(name, "/gunicorn/app/wsgiapp.py")
}

func isModule(name string) bool { return name == "gunicorn" || name == "gunicorn.app.wsgiapp" }

// interpreterArgs returns what follows the program in the arguments of Python.
func interpreterArgs(args []string) ([]string, bool) {
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		if !isOption(arg) {
			return args, isProgram(arg)
		}
		if strings.HasPrefix(arg, "--") {
			return nil, false
		}
		at := strings.IndexAny(arg, "mcXW") // those that take a value
		if at < 0 {
			continue
		}
		value := arg[at+1:]
		if value == "" {
			if len(args) == 0 {
				return nil, false
			}
			value, args = args[0], args[1:]
		}
		switch arg[at] {
		case 'm':
			return args, isModule(value)
		case 'c':
			return nil, false
		}
	}
	return nil, false
}

// splitShell splits words as Python's shlex.split does, by the rules of the POSIX shell
// without its expansions.
func splitShell(s string) (words []string, err error) {
	var word strings.Builder
	inWord := false
	var quote byte
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '\\' && quote != '\'':
			if i++; i == len(s) {
				return nil, errors.New("split words: nothing after the last backslash")
			}
			if quote == '"' && s[i] != '"' && s[i] != '\\' {
				word.WriteByte(c)
			}
			word.WriteByte(s[i])
			inWord = true
		case quote != 0 && c == quote:
			quote = 0
		case quote != 0:
			word.WriteByte(c)
		case c == '\'' || c == '"':
			quote, inWord = c, true
		case strings.IndexByte(" \t\r\n", c) >= 0:
			if inWord {
				words = append(words, word.String())
			}
			word.Reset()
			inWord = false
		default:
			word.WriteByte(c)
			inWord = true
		}
	}
	if quote != 0 {
		return nil, errors.New("split words: a quotation has no end")
	}
	if inWord {
		words = append(words, word.String())
	}
	return words, nil
}
