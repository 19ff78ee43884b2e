package e2e

import (
	"os/exec"
	"strings"
	"testing"
)

// rubyPath is Debian's interpreter: others do not see Debian's packages.
const rubyPath = "/usr/bin/ruby"

// rubyMerge returns what the Ruby client itself makes of a directory.
func rubyMerge(t *testing.T, dir string) scraped {
	t.Helper()
	return output(t, exec.Command(rubyPath, testdata(t, "merge.rb"), dir))
}

// startUnicorn starts unicorn over config.ru.
func startUnicorn(t *testing.T, dir, family string) *server {
	t.Helper()
	need(t, peer{rubyPath, "ruby"}, peer{"/usr/bin/unicorn", "unicorn"},
		peer{"/usr/lib/ruby/vendor_ruby/prometheus/client.rb", "ruby-prometheus-client-mmap"})
	address := freeAddress(t)
	cmd := exec.Command(rubyPath, "/usr/bin/unicorn", "--no-default-middleware",
		"--config-file", testdata(t, "unicorn.rb"), testdata(t, "config.ru"))
	s := startServer(t, address, cmd, "METRIC_DIR="+dir, "FAMILY="+family, "LISTEN="+address)
	await(t, "unicorn's workers", func() bool {
		return strings.Count(s.output(t, s.stderr), " ready\n") == workers+1 // and the master
	})
	return s
}

func TestUnicornCountsWhatWasSent(t *testing.T) {
	dir := t.TempDir()
	s := startUnicorn(t, dir, "app")
	e := startExporter(t, dir)
	requests := plan(400)
	s.send(t, requests)

	got := e.scrape(t).application()
	ruby("app").hasCounted(t, "scrape", got, ruby("app").counted(requests))
	want := rubyMerge(t, dir)
	same(t, "scrape beside the client's own merge", got, want)
	same(t, "merge beside the client's own merge", merged(t, dir), want)
}

func TestPythonAndRubyShareADirectory(t *testing.T) {
	dir := t.TempDir()
	py, rb := startGunicorn(t, dir, "py"), startUnicorn(t, dir, "rb")
	e := startExporter(t, dir)
	stop := e.watch(t, 20, rising{}.see)
	requests := plan(400)
	done := make(chan struct{})
	go func() {
		defer close(done)
		rb.send(t, requests)
	}()
	py.send(t, requests)
	<-done
	stop()
	py.awaitRest(t, dir)

	got := e.scrape(t).application()
	python("py").hasCounted(t, "scrape, Python's part", got, python("py").counted(requests))
	ruby("rb").hasCounted(t, "scrape, Ruby's part", got, ruby("rb").counted(requests))
	want := pythonMerge(t, only(t, dir, false)).and(rubyMerge(t, only(t, dir, true)))
	same(t, "scrape beside the clients' own", got, want)
}
