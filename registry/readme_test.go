package registry_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/prefork-exporter/prefork_exporter/registry"
)

// TestReadmeListsAllMetrics compares the README's table with the catalogue,
// without what is planned.
func TestReadmeListsAllMetrics(t *testing.T) {
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	listed := 0
	for _, d := range registry.Definitions() {
		if d.Stability == registry.Planned {
			continue
		}
		listed++
		row := fmt.Sprintf("| %#q | %s | %s | %s |", d.Name, d.Type, strings.Join(d.Labels, " "), d.Help)
		if !strings.Contains(string(readme), row+"\n") {
			t.Errorf("the README's table lacks this row:\n%s", row)
		}
	}
	if rows := strings.Count(string(readme), "\n| `prefork_") - strings.Count(string(readme), "\n| `prefork_exporter "); rows != listed {
		t.Errorf("the README has %d metrics, the catalogue %d", rows, listed)
	}
}
