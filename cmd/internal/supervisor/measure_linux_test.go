package supervisor

import (
	"os"
	"path/filepath"
	"testing"
)

func TestMemoryOfAProcess(t *testing.T) {
	if n, ok := ResidentMemory(os.Getpid()); !ok || n < 1<<20 {
		t.Errorf("this process has %d bytes, %v", n, ok)
	}
	if n, ok := ResidentMemory(1 << 30); ok {
		t.Errorf("a process that is not there has %d bytes", n)
	}
}

func TestWhereOOMKillsAreCounted(t *testing.T) {
	root := t.TempDir()
	write := func(path, text string) {
		t.Helper()
		path = filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("two/memory.events", "low 0\noom 4\noom_kill 3\noom_group_kill 0\n")
	write("memory/one/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 5\n")
	write("broken/memory.events", "oom_kill many\n")
	for groups, want := range map[string]int64{
		"0::/two\n": 3, "12:cpu,memory:/one\n1:name=systemd:/x\n": 5, "3:memory:/one\n0::/none\n": 5, "0::/none\n": -1, "": -1, "0::/broken\n": -1,
	} {
		n, ok := readOOMKills(memoryEvents(groups, root))
		if ok != (want >= 0) || ok && n != want {
			t.Errorf("%q: %d, %v; want %d", groups, n, ok, want)
		}
	}
}

func TestWhichPagesNobodyHasWritten(t *testing.T) {
	for line, want := range map[string]bool{
		"00400000-00c00000 r-xp 00000000 08:01 7 /bin/x\n": true,
		"00c00000-01000000 r--p 00800000 08:01 7 /bin/x\n": true,
		"01000000-01100000 rw-p 00c00000 08:01 7 /bin/x\n": false,
		"01000000-01100000 r--p 00c00000 08:01 7 /bin/y\n": false,
		"c000000000-c000400000 rw-p 00000000 00:00 0\n":    false,
		"01100000-01000000 r--p 00c00000 08:01 7 /bin/x\n": false,
		"zz-yy r--p 00c00000 08:01 7 /bin/x\n":             false,
		"":                                                 false,
	} {
		if from, to, ok := unwritten(line, "/bin/x"); ok != want || ok && to <= from {
			t.Errorf("%q: %x to %x, %v; want %v", line, from, to, ok, want)
		}
	}
	forgetProgram() // and go on
}
