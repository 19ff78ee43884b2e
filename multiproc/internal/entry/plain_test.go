package entry

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestPlain(t *testing.T) {
	ab := []Label{{"a", "1"}, {"b", "2"}}
	for name, tc := range map[string]struct {
		raw   string
		want  Key
		shape Shape
		ok    bool
	}{
		"two lists":                   {`["f","s",["a","b"],["1","2"]]`, Key{Family: "f", Sample: "s", Labels: ab}, TwoLists, true},
		"two lists of nothing":        {`["f","s",[],[]]`, Key{Family: "f", Sample: "s", Labels: []Label{}}, TwoLists, true},
		"an object":                   {`["f", "s", {"a": "1", "b": "2"}]`, Key{Family: "f", Sample: "s", Labels: ab}, Object, true},
		"an object of nothing":        {`["f", "s", {}]`, Key{Family: "f", Sample: "s"}, Object, true},
		"an object and help":          {`["f", "s", {"a": "1", "b": "2"}, "h"]`, Key{Family: "f", Sample: "s", Labels: ab, Help: "h"}, ObjectHelp, true},
		"blanks everywhere":           {" [ \"f\"\n,\t\"s\" , { \"a\" : \"1\" , \"b\" : \"2\" } , \"h\" ] \r", Key{Family: "f", Sample: "s", Labels: ab, Help: "h"}, ObjectHelp, true},
		"text of many bytes":          {`["ü", "日本", {}]`, Key{Family: "ü", Sample: "日本"}, Object, true},
		"an escape":                   {`["f", "s", {"a": "\n"}]`, Key{}, 0, false},
		"an escaped quote":            {`["f\"", "s", {}]`, Key{}, 0, false},
		"a control character":         {"[\"f\x01\", \"s\", {}]", Key{}, 0, false},
		"bytes that are no text":      {"[\"f\xff\", \"s\", {}]", Key{}, 0, false},
		"a number":                    {`["f", "s", {"a": 1}]`, Key{}, 0, false},
		"a label twice":               {`["f", "s", {"a": "1", "a": "2"}]`, Key{}, 0, false},
		"a list that is longer":       {`["f","s",["a"],["1","2"]]`, Key{}, 0, false},
		"a comma too many":            {`["f", "s", {"a": "1",}]`, Key{}, 0, false},
		"a comma too many in a list":  {`["f","s",["a",],["1"]]`, Key{}, 0, false},
		"a comma too many at the end": {`["f", "s", {},]`, Key{}, 0, false},
		"an item too many":            {`["f", "s", {}, "h", "i"]`, Key{}, 0, false},
		"something behind it":         {`["f", "s", {}] x`, Key{}, 0, false},
		"no end":                      {`["f", "s", {}`, Key{}, 0, false},
		"no end of a string":          {`["f", "s`, Key{}, 0, false},
		"one name":                    {`["f", {}]`, Key{}, 0, false},
		"no list":                     {`{}`, Key{}, 0, false},
		"nothing":                     {``, Key{}, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			got, shape, ok := Plain([]byte(tc.raw))
			if ok != tc.ok {
				t.Fatalf("Plain says %v, want %v", ok, tc.ok)
			}
			if !ok {
				return
			}
			if diff := cmp.Diff(tc.want, got); diff != "" || shape != tc.shape {
				t.Errorf("shape %d, want %d; key (-want +got):\n%s", shape, tc.shape, diff)
			}
		})
	}
}
