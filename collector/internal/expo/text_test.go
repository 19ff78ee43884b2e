package expo

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/prefork-exporter/prefork_exporter/multiproc"
	"github.com/prefork-exporter/prefork_exporter/multiproc/fixture"
)

func TestTextEqualsWhatClientGolangRenders(t *testing.T) {
	dirs := map[string]string{}
	for _, path := range fixture.Scenarios(t) {
		dirs[filepath.Dir(path)] = unpack(t, path)
	}
	root := fixture.Unpack(t, "corrupt/cases.tar.gz")
	m, _ := filepath.Glob(filepath.Join(root, "*", "db*"))
	for _, d := range m {
		r, _ := filepath.Rel(root, d)
		dirs[r] = d
	}
	for name, dir := range dirs {
		t.Run(name, func(t *testing.T) {
			s := merge(t, multiproc.Source{Path: dir})
			for _, o := range []Options{
				{Escaping: model.NoEscaping}, {Escaping: model.UnderscoreEscaping},
				{OpenMetrics: true, Escaping: model.NoEscaping}, {OpenMetrics: true, Escaping: model.UnderscoreEscaping},
			} {
				if o.OpenMetrics && !OpenMetrics(s.Layout) {
					fmt.Println("NO OM", name)
					continue
				}
				text, dropped := render(t, s, o)
				if dropped > 0 {
					t.Errorf("dropped %d", dropped)
				}
				families, lost := Families(s, Options{Escaping: model.NoEscaping})
				if lost > 0 {
					t.Errorf("lost %d", lost)
				}
				got := mustScrape(t, text, format(o))
				want := mustScrape(t, encode(t, families, format(o)), format(o))
				if diff := cmp.Diff(want, got, cmpopts.EquateNaNs()); diff != "" {
					t.Errorf("%v differs (-client_golang +ours):\n%.1500s", o, diff)
				}
			}
		})
	}
	_ = expfmt.FmtText
}
