package app_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// module is the path that imports of our own packages open with.
const module = "github.com/prefork-exporter/prefork_exporter"

// layers are the packages from the top down: a package imports its own layer
// and lower ones. The first prefix that fits decides.
var layers = []struct {
	prefix string
	rank   int
}{
	{"cmd", 5},
	{"deploy", 5},
	{"collector", 4},
	{"registry", 3},
	{"multiproc/internal/entry", 0},
	{"multiproc/internal", 1},
	{"multiproc/writer", 1},
	{"multiproc", 2},
}

// importRules are what holds beside the layers. allow sees an import path;
// paths of our own packages come without the module's.
var importRules = []struct {
	name    string
	applies func(pkg string) bool
	allow   func(path string) bool
}{
	{
		name:    "a worker must not gain an exporter's dependencies: standard library and golang.org/x/sys only",
		applies: isLight,
		allow: func(path string) bool {
			return isStandard(path) && !isOurs(path) || isUnder(path, "golang.org/x/sys") || isLight(path)
		},
	},
	{
		name:    "collector never starts a process",
		applies: func(pkg string) bool { return isUnder(pkg, "collector") },
		allow:   func(path string) bool { return path != "os/exec" },
	},
	{
		name:    "multiproc/fixture serves tests alone",
		applies: func(pkg string) bool { return !isUnder(pkg, "multiproc/fixture") },
		allow:   func(path string) bool { return !isUnder(path, "multiproc/fixture") },
	},
	{
		name:    "supervisor knows none of the rest, and nothing of Prometheus",
		applies: func(pkg string) bool { return isUnder(pkg, "cmd/internal/supervisor") },
		allow: func(path string) bool {
			return !isUnder(path, "github.com/prometheus") && (!isOurs(path) || isUnder(path, "cmd/internal/supervisor"))
		},
	},
}

// isLight tells the packages that a Go worker may link.
func isLight(pkg string) bool {
	if isUnder(pkg, "multiproc/writer/bridge") || isUnder(pkg, "multiproc/fixture") {
		return false
	}
	light := []string{"registry/event", "registry/middleware", "registry/notify", "multiproc"}
	return pkg == "registry" || slices.ContainsFunc(light, func(tree string) bool { return isUnder(pkg, tree) })
}

func isUnder(pkg, prefix string) bool {
	return pkg == prefix || strings.HasPrefix(pkg, prefix+"/")
}

func isStandard(path string) bool {
	first, _, _ := strings.Cut(path, "/")
	return !strings.Contains(first, ".")
}

func isOurs(path string) bool {
	_, ok := rank(path)
	return ok
}

func rank(pkg string) (int, bool) {
	for _, l := range layers {
		if isUnder(pkg, l.prefix) {
			return l.rank, true
		}
	}
	return 0, false
}

// importFault says what is wrong with pkg importing that path, or "". Our own
// packages go without the module's path.
func importFault(pkg, imported string) string {
	above, ok := rank(pkg)
	if !ok {
		return "the layers have no place for " + pkg
	}
	if below, ours := rank(imported); ours && below > above {
		return "imports go cmd, collector, registry, multiproc, codecs and writer, entry, and never up"
	}
	for _, r := range importRules {
		if r.applies(pkg) && !r.allow(imported) {
			return r.name
		}
	}
	return ""
}

func TestImportsFaultsAreSeen(t *testing.T) {
	const good = ""
	for name, tc := range map[string]struct {
		pkg, imported, want string
	}{
		"a command uses everything":            {"cmd/internal/app", "collector", good},
		"a collector uses client_golang":       {"collector", "github.com/prometheus/client_golang/prometheus", good},
		"a collector starts a process":         {"collector/watch", "os/exec", "never starts a process"},
		"a collector uses a command's package": {"collector", "cmd/internal/web", "never up"},
		"definitions use a collector":          {"registry", "collector", "never up"},
		"definitions use a module":             {"registry", "github.com/prometheus/common/model", "golang.org/x/sys only"},
		"events use a module":                  {"registry/event", "go.etcd.io/bbolt", "golang.org/x/sys only"},
		"the usage payload uses a module":      {"registry/usage", "go.etcd.io/bbolt", good},
		"the merger uses a codec":              {"multiproc", "multiproc/internal/pyfile", good},
		"the merger uses definitions":          {"multiproc", "registry", "never up"},
		"the merger uses the bridge":           {"multiproc", "multiproc/writer/bridge", "golang.org/x/sys only"},
		"the merger makes system calls":        {"multiproc", "golang.org/x/sys/unix", good},
		"the merger uses another module of x":  {"multiproc", "golang.org/x/sync/errgroup", "golang.org/x/sys only"},
		"a codec uses a codec":                 {"multiproc/internal/rubyfile", "multiproc/internal/pyfile", good},
		"a codec uses the merger":              {"multiproc/internal/pyfile", "multiproc", "never up"},
		"entry uses a codec":                   {"multiproc/internal/entry", "multiproc/internal/pyfile", "never up"},
		"entry uses the standard library":      {"multiproc/internal/entry", "encoding/binary", good},
		"the writer uses the merger":           {"multiproc/writer", "multiproc", "never up"},
		"the writer uses client_golang":        {"multiproc/writer", "github.com/prometheus/client_golang/prometheus", "golang.org/x/sys only"},
		"the merger uses what tests use":       {"multiproc", "multiproc/fixture", "golang.org/x/sys only"},
		"a command uses what tests use":        {"cmd/prefork_exporter", "multiproc/fixture", "tests alone"},
		"the fixtures are parsed by a module":  {"multiproc/fixture/exposition", "github.com/prometheus/prometheus/model/textparse", good},
		"the bridge uses client_golang":        {"multiproc/writer/bridge", "github.com/prometheus/client_golang/prometheus", good},
		"the supervisor starts a process":      {"cmd/internal/supervisor", "os/exec", good},
		"the supervisor uses Prometheus":       {"cmd/internal/supervisor", "github.com/prometheus/common/model", "nothing of Prometheus"},
		"the supervisor uses the rest":         {"cmd/internal/supervisor", "multiproc/writer", "none of the rest"},
		"a package outside the layout":         {"internal/web", "net/http", "no place for internal/web"},
		"a name that only looks like a layer":  {"cmdline", "net/http", "no place for cmdline"},
	} {
		t.Run(name, func(t *testing.T) {
			got := importFault(tc.pkg, tc.imported)
			if tc.want == good && got != good || !strings.Contains(got, tc.want) {
				t.Errorf("importFault(%q, %q) = %q, want %q", tc.pkg, tc.imported, got, tc.want)
			}
		})
	}
}

func TestImportsOfEveryPackage(t *testing.T) {
	for _, dir := range packages(t) {
		for _, f := range dir.files {
			for _, spec := range f.Imports {
				imported, err := strconv.Unquote(spec.Path.Value)
				if err != nil {
					t.Fatal(err)
				}
				imported = strings.TrimPrefix(imported, module+"/")
				if fault := importFault(dir.path, imported); fault != "" {
					t.Errorf("%s: import of %q: %s", dir.at(spec), imported, fault)
				}
			}
		}
	}
}

// commentFault says what is wrong with the package comments of a package, or "".
func commentFault(dir *packageDir) string {
	name := dir.files[0].Name.Name
	want := "Package " + name + " "
	if name == "main" {
		want = "Command " + path.Base(dir.path) + " "
	}
	var comments []string
	for _, f := range dir.files {
		if f.Doc != nil {
			comments = append(comments, f.Doc.Text())
		}
	}
	switch {
	case len(comments) != 1:
		return fmt.Sprintf("%d package comments, want one", len(comments))
	case !strings.HasPrefix(comments[0], want):
		return fmt.Sprintf("package comment %.40q, want it to open with %q", comments[0], want)
	}
	return ""
}

func TestImportsCommentFaultsAreSeen(t *testing.T) {
	for name, tc := range map[string]struct {
		path string
		src  []string
		want string
	}{
		"one comment":                {"multiproc", []string{"// Package multiproc merges.\npackage multiproc", "package multiproc"}, ""},
		"a command's comment":        {"cmd/tool", []string{"// Command tool helps.\npackage main"}, ""},
		"no comment":                 {"multiproc", []string{"package multiproc"}, "0 package comments"},
		"two comments":               {"multiproc", []string{"// Package multiproc a.\npackage multiproc", "// More.\npackage multiproc"}, "2 package comments"},
		"another opening":            {"multiproc", []string{"// Merges files.\npackage multiproc"}, "want it to open with"},
		"another command's name":     {"cmd/tool", []string{"// Command saw cuts.\npackage main"}, "want it to open with"},
		"a comment that is detached": {"multiproc", []string{"// Package multiproc merges.\n\npackage multiproc"}, "0 package comments"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := &packageDir{path: tc.path, fset: token.NewFileSet()}
			for i, src := range tc.src {
				dir.parse(t, fmt.Sprintf("%d.go", i), src)
			}
			got := commentFault(dir)
			if tc.want == "" && got != "" || !strings.Contains(got, tc.want) {
				t.Errorf("commentFault = %q, want %q", got, tc.want)
			}
		})
	}
}

func TestImportsEveryPackageHasOneComment(t *testing.T) {
	for _, dir := range packages(t) {
		if len(dir.files) == 0 {
			continue // tests only
		}
		if fault := commentFault(dir); fault != "" {
			t.Errorf("%s: %s", dir.path, fault)
		}
	}
}

// stateFaults lists the places of a file that run before main or use state
// that all packages share.
func stateFaults(f *ast.File) map[ast.Node]string {
	faults := map[ast.Node]string{}
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncDecl:
			if n.Recv == nil && n.Name.Name == "init" {
				faults[n] = "func init: let main call it"
			}
		case *ast.SelectorExpr:
			switch n.Sel.Name {
			case "MustRegister", "Default" + "Registerer", "Default" + "Gatherer":
				faults[n] = n.Sel.Name + ": hand over a registry of one's own, and its errors"
			}
		}
		return true
	})
	return faults
}

func TestImportsStateFaultsAreSeen(t *testing.T) {
	for name, tc := range map[string]struct {
		src  string
		want int
	}{
		"a method called init":     {"package p; type T int; func (T) init() {}", 0},
		"a registry of one's own":  {"package p; var err = r.Register(c)", 0},
		"an init function":         {"package p; func init() {}", 1},
		"two init functions":       {"package p; func init() {}; func init() {}", 2},
		"a registration that dies": {"package p; func f() { r.MustRegister" + "(c) }", 1},
		"the shared registry":      {"package p; var r = prometheus.Default" + "Registerer", 1},
	} {
		t.Run(name, func(t *testing.T) {
			dir := &packageDir{fset: token.NewFileSet()}
			dir.parse(t, "p.go", tc.src)
			if got := stateFaults(dir.files[0]); len(got) != tc.want {
				t.Errorf("stateFaults = %v, want %d", slices.Collect(maps.Values(got)), tc.want)
			}
		})
	}
}

func TestImportsRunNothing(t *testing.T) {
	for _, dir := range packages(t) {
		for _, f := range append(dir.files, dir.tests...) {
			for node, fault := range stateFaults(f) {
				t.Errorf("%s: %s", dir.at(node), fault)
			}
		}
	}
}

// packageDir is the Go files of one directory, for every system that we build for.
type packageDir struct {
	path  string // from the module's root
	fset  *token.FileSet
	files []*ast.File
	tests []*ast.File
}

func (p *packageDir) at(n ast.Node) token.Position { return p.fset.Position(n.Pos()) }

// parse adds a file; src is as [parser.ParseFile] has it.
func (p *packageDir) parse(t *testing.T, name string, src any) {
	t.Helper()
	f, err := parser.ParseFile(p.fset, name, src, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	if strings.HasSuffix(name, "_test.go") {
		p.tests = append(p.tests, f)
		return
	}
	p.files = append(p.files, f)
}

// packages reads the whole module.
func packages(t *testing.T) []*packageDir {
	t.Helper()
	root := moduleRoot(t)
	found := map[string]*packageDir{}
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name != root && isIgnored(d.Name()) {
				return fs.SkipDir
			}
			return nil
		}
		if path.Ext(name) != ".go" || isIgnored(d.Name()) {
			return nil
		}
		dir, err := filepath.Rel(root, filepath.Dir(name))
		if err != nil {
			return err
		}
		dir = filepath.ToSlash(dir)
		if found[dir] == nil {
			found[dir] = &packageDir{path: dir, fset: token.NewFileSet()}
		}
		found[dir].parse(t, name, nil)
		return nil
	})
	if err != nil {
		t.Fatalf("read the module: %v", err)
	}
	if len(found) == 0 {
		t.Fatalf("no package below %s", root)
	}
	return slices.SortedFunc(maps.Values(found), func(a, b *packageDir) int { return strings.Compare(a.path, b.path) })
}

// isIgnored tells what the go command passes over, and build output.
func isIgnored(base string) bool {
	return base == "testdata" || base == "build" || strings.HasPrefix(base, ".") || strings.HasPrefix(base, "_")
}

func moduleRoot(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		if dir == filepath.Dir(dir) {
			t.Fatal("no go.mod above the test")
		}
		dir = filepath.Dir(dir)
	}
}
