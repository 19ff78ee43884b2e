package gunicorn

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"
)

// golden returns an answer that real gunicorn gave, with its length in front.
func golden(tb testing.TB, name string) []byte {
	tb.Helper()
	b, err := os.ReadFile("testdata/" + name + ".frame")
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// decode does with an answer what Stats, Workers and Config do.
func decode(b []byte) (s Stats, w []ControlWorker, c Settings, errs [3]error) {
	var statsAnswer statsAnswer
	var workersAnswer workersAnswer
	var configAnswer configAnswer
	if errs[0] = decodeAnswer(b, &statsAnswer); errs[0] == nil {
		s, errs[0] = statsAnswer.stats()
	}
	if errs[1] = decodeAnswer(b, &workersAnswer); errs[1] == nil {
		w, errs[1] = workersAnswer.list()
	}
	if errs[2] = decodeAnswer(b, &configAnswer); errs[2] == nil {
		c, errs[2] = configAnswer.settings()
	}
	return s, w, c, errs
}

// ok is an answer with such data.
func ok(data string) []byte { return []byte(`{"id":1,"status":"ok","data":` + data + `}`) }

func TestWorkersAsTheirMasterSeesThem(t *testing.T) {
	sign := func(d time.Duration) Setting[time.Duration] { return Setting[time.Duration]{d, true} }
	for name, tc := range map[string]struct {
		data string
		want []ControlWorker
		err  string
	}{
		"none":                       {`{"workers":[]}`, []ControlWorker{}, ""},
		"with a sign of life":        {`{"workers":[{"pid":7,"age":1,"aborted":false,"last_heartbeat":1.5}]}`, []ControlWorker{{7, 1, false, sign(1500 * time.Millisecond)}}, ""},
		"with one right now":         {`{"workers":[{"pid":7,"age":1,"aborted":true,"last_heartbeat":-0.01}]}`, []ControlWorker{{7, 1, true, sign(0)}}, ""},
		"that boots":                 {`{"workers":[{"pid":7,"age":1,"aborted":false,"last_heartbeat":-1795247283.1}]}`, []ControlWorker{{PID: 7, Age: 1}}, ""},
		"whose file is closed":       {`{"workers":[{"pid":7,"age":1,"aborted":false,"last_heartbeat":null}]}`, []ControlWorker{{PID: 7, Age: 1}}, ""},
		"with a sign before all":     {`{"workers":[{"pid":7,"age":1,"aborted":false,"last_heartbeat":1e300}]}`, []ControlWorker{{PID: 7, Age: 1}}, ""},
		"no list":                    {`{}`, nil, "want a list"},
		"no data":                    {`null`, nil, "want a list"},
		"without a process id":       {`{"workers":[{"age":1,"aborted":false}]}`, nil, "without pid"},
		"with one that cannot be":    {`{"workers":[{"pid":0,"age":1,"aborted":false}]}`, nil, "without pid"},
		"without an age":             {`{"workers":[{"pid":7,"aborted":false}]}`, nil, "without pid"},
		"with an age that cannot be": {`{"workers":[{"pid":7,"age":-1,"aborted":false}]}`, nil, "without pid"},
		"perhaps aborted":            {`{"workers":[{"pid":7,"age":1}]}`, nil, "without pid"},
		"something else":             {`{"workers":3}`, nil, "decode the answer"},
	} {
		t.Run(name, func(t *testing.T) {
			_, got, _, errs := decode(ok(tc.data))
			if !reflect.DeepEqual(got, tc.want) || !says(errs[1], tc.err) {
				t.Errorf("%+v, %v; want %+v, %q", got, errs[1], tc.want, tc.err)
			}
		})
	}
}

// says says whether an error has the text, or there is none.
func says(err error, text string) bool {
	return err == nil && text == "" || err != nil && text != "" && strings.Contains(err.Error(), text)
}

func TestStatsThatArePartlyToldAreNone(t *testing.T) {
	whole := `{"uptime":2.5,"pid":1,"workers_current":2,"workers_target":3,"workers_spawned":4,"workers_killed":5,"reloads":6}`
	want := Stats{Uptime: 2500 * time.Millisecond, PID: 1, Workers: 2, Target: 3, Spawned: 4, Killed: 5, Reloads: 6}
	noUptime := want
	noUptime.Uptime = 0
	for name, tc := range map[string]struct {
		data string
		want Stats
		err  string
	}{
		"all":                       {whole, want, ""},
		"no uptime":                 {strings.Replace(whole, "2.5", "null", 1), noUptime, ""},
		"no workers spawned":        {strings.Replace(whole, "spawned", "made", 1), Stats{}, "workers_spawned: want"},
		"fewer than no reloads":     {strings.Replace(whole, `"reloads":6`, `"reloads":-6`, 1), Stats{}, "reloads: want"},
		"a number that is no whole": {strings.Replace(whole, `"reloads":6`, `"reloads":6.5`, 1), Stats{}, "decode the answer"},
		"no data":                   {`null`, Stats{}, "want a number"},
	} {
		t.Run(name, func(t *testing.T) {
			got, _, _, errs := decode(ok(tc.data))
			if got != tc.want || !says(errs[0], tc.err) {
				t.Errorf("%+v, %v; want %+v, %q", got, errs[0], tc.want, tc.err)
			}
		})
	}
}

func TestConfigOfAnAnswer(t *testing.T) {
	for name, tc := range map[string]struct {
		data string
		want values
		err  string
	}{
		"nothing":                 {`{}`, values{}, ""},
		"no pidfile":              {`{"pidfile":null}`, values{"pidfile": ""}, ""},
		"a pidfile":               {`{"pidfile":"/run/p"}`, values{"pidfile": "/run/p"}, ""},
		"something as a pidfile":  {`{"pidfile":3}`, values{}, "pidfile: "},
		"threads":                 {`{"worker_class":"<class 'gunicorn.workers.gthread.ThreadWorker'>"}`, values{"worker_class": "gthread"}, ""},
		"another class":           {`{"worker_class":"<class 'uvicorn.workers.UvicornWorker'>"}`, values{"worker_class": "uvicorn.workers.UvicornWorker"}, ""},
		"a timeout that is none":  {`{"timeout":0}`, values{"timeout": "0"}, ""},
		"a timeout that can't be": {`{"timeout":-1,"graceful_timeout":99999999999}`, values{}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, got, errs := decode(ok(tc.data))
			if !says(errs[2], tc.err) {
				t.Errorf("error %v, want %q", errs[2], tc.err)
			}
			same(t, got, tc.want)
		})
	}
}

func TestAnswersOfRealGunicorn(t *testing.T) {
	payload := func(name string) []byte { return golden(t, name)[4:] }
	got, _, _, errs := decode(payload("show-stats"))
	if errs[0] != nil || got.PID == 0 || got.Uptime <= 0 {
		t.Errorf("stats %+v, %v", got, errs[0])
	}
	if got.PID, got.Uptime = 0, 0; got != (Stats{Workers: 2, Target: 2, Spawned: 2}) {
		t.Errorf("stats %+v, want two workers", got)
	}
	_, list, _, errs := decode(payload("show-workers"))
	if errs[1] != nil || len(list) != 2 || list[0].Age != 1 || list[1].Age != 2 || !list[1].LastSign.Known {
		t.Errorf("workers %+v, %v; want the first and the second", list, errs[1])
	}
	_, _, settings, errs := decode(payload("show-config"))
	if errs[2] != nil {
		t.Error(errs[2])
	}
	same(t, settings, defaults(values{"workers": "2", "timeout": "20", "max_requests": "1000", "control_socket": "ctl"}))
	if _, _, _, errs := decode(payload("error")); !says(errs[0], "Unknown show target: nonsense") {
		t.Errorf("error %v, want what gunicorn says", errs[0])
	}
}

func TestFramesThatAreNotRead(t *testing.T) {
	length := func(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }
	for name, tc := range map[string]struct {
		in   []byte
		want string
		is   error
	}{
		"nothing":                    {nil, "length of the answer", io.EOF},
		"half a length":              {length(8)[:2], "length of the answer", io.ErrUnexpectedEOF},
		"nothing after the length":   {length(8), "read the answer", io.ErrUnexpectedEOF},
		"half an answer":             {append(length(8), "half"...), "read the answer", io.ErrUnexpectedEOF},
		"one byte too long":          {length(mostBytes + 1), "want at most", nil},
		"sixteen mebibytes":          {append(length(16<<20), make([]byte, 16<<20)...), "want at most", nil},
		"as long as there can be":    {length(1<<32 - 1), "want at most", nil},
		"the length of another peer": {[]byte("HTTP/1.1 200 OK\r\n"), "want at most", nil},
	} {
		t.Run(name, func(t *testing.T) {
			b, err := readFrame(bytes.NewReader(tc.in))
			if b != nil || !says(err, tc.want) || tc.is != nil && !errors.Is(err, tc.is) {
				t.Errorf("readFrame = %d bytes, %v; want an error with %q", len(b), err, tc.want)
			}
		})
	}
	whole := bytes.Repeat([]byte("a"), mostBytes)
	if b, err := readFrame(bytes.NewReader(frame(string(whole)))); err != nil || !bytes.Equal(b, whole) {
		t.Errorf("readFrame of the longest = %d bytes, %v", len(b), err)
	}
}

func FuzzAnswer(f *testing.F) {
	for _, name := range []string{"show-stats", "show-workers", "show-config", "error"} {
		f.Add(golden(f, name))
	}
	f.Add(frame(`{"id":1,"status":"ok","data":{"workers":[{"pid":7,"age":1,"aborted":true,"last_heartbeat":-1e9}]}}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		b, err := readFrame(bytes.NewReader(in))
		if err != nil {
			return
		}
		if len(b) > len(in)-4 {
			t.Fatalf("an answer of %d bytes, out of %d", len(b), len(in))
		}
		s, list, settings, errs := decode(b)
		if errs[0] == nil && min(s.Workers, s.Target, s.Spawned, s.Killed, s.Reloads, int(s.Uptime)) < 0 {
			t.Errorf("a negative number: %+v", s)
		}
		for _, w := range list {
			if w.PID <= 0 || w.Age < 0 || w.LastSign.Value < 0 {
				t.Errorf("a negative number: %+v", w)
			}
		}
		if errs[2] == nil && min(settings.Timeout.Value, settings.GracefulTimeout.Value) < 0 {
			t.Errorf("a negative time: %+v", settings)
		}
	})
}

func FuzzSplitShell(f *testing.F) {
	f.Add(`-t 5 --pid '/tmp/a b' -n "a \" b" \x`)
	f.Fuzz(func(t *testing.T, in string) {
		words, err := splitShell(in)
		if err != nil && words != nil {
			t.Errorf("words %q with %v", words, err)
		}
		_ = SettingsOf(Start{Args: append([]string{"gunicorn"}, words...), Environ: true, CmdArgs: in, NoConfigFile: true})
		_ = SettingsOf(Start{Args: append([]string{"python"}, words...)})
	})
}
