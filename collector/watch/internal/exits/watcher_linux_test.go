package exits

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/prefork-exporter/prefork_exporter/collector/internal/procfs"
)

// byOneWay is every way alone that tells statuses.
var byOneWay = map[string]ways{
	"pidfd":     connectors | zombies,
	"connector": infos | zombies,
	"zombie":    infos | connectors,
	"polling":   pidfds | infos | connectors,
}

// endings are scripts that end in every way there is.
func endings() []string {
	var scripts []string
	for code := range 256 {
		scripts = append(scripts, "exit "+strconv.Itoa(code))
	}
	for _, s := range []int{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 24, 25, 26, 27, 29, 30, 31, 34, 50, 64} {
		scripts = append(scripts, fmt.Sprintf("kill -%d $$", s))
	}
	return scripts
}

func TestStatusIsWhatTheParentIsTold(t *testing.T) {
	for name, without := range byOneWay {
		t.Run(name, func(t *testing.T) {
			w, m := open(t, without), newMaster(t)
			zombies := w.ways&zombies != 0
			for _, script := range endings() {
				add(t, w, m.start(request{Script: "read x; " + script, AtOnce: !zombies}))
			}
			m.release()
			signals, cores := 0, 0
			for range endings() {
				d := next(t, w)
				want := m.reap(d.Process)
				if !d.Known || d.Status != want {
					t.Errorf("told %s, known %t; the parent was told %s", text(d.Status), d.Known, text(want))
				}
				if zombies && d.Stat == nil {
					t.Error("nothing was told of what the zombie had")
				}
				if want.Signaled() {
					signals++
				}
				if want.CoreDump() {
					cores++
				}
			}
			if signals != 26 || cores == 0 {
				t.Errorf("%d deaths by signals, %d core dumps: want 26, and some", signals, cores)
			}
			if f := w.Feature(); (f.Reason != "") != (name == "polling") || f.How == "" {
				t.Errorf("the feature is %+v", f)
			}
		})
	}
}

// A zombie's death is told at once where its status may be believed.
func TestDeathIsToldBeforeTheParentHasWaited(t *testing.T) {
	w, m := open(t, 0), newMaster(t)
	p := m.script("i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; exit 7")
	add(t, w, p)
	m.release()
	d := next(t, w)
	if !d.Known || d.Status.ExitStatus() != 7 || d.Stat == nil || d.Stat.User == 0 || d.Process != p {
		t.Errorf("told %+v", d)
	}
	m.reap(p) // it would hang had somebody else waited
}

// It is told once its parent has waited where it may not, however late that is.
func TestDeathIsToldOnceTheParentHasWaited(t *testing.T) {
	w, m := open(t, zombies|connectors), newMaster(t)
	late := m.script("exit 7")
	add(t, w, late)
	m.release()
	awaitZombie(t, late)
	prompt := m.start(request{Script: "read x; exit 8", AtOnce: true})
	add(t, w, prompt)
	m.release()
	if d := next(t, w); d.Process != prompt || d.Status.ExitStatus() != 8 {
		t.Errorf("told first of %+v, want process %d", d, prompt.PID)
	}
	m.reap(late)
	if d := next(t, w); d.Process != late || !d.Known || d.Status.ExitStatus() != 7 || d.Stat == nil {
		t.Errorf("told then of %+v, want process %d", d, late.PID)
	}
}

func TestZombieIsAddedAsAnyOther(t *testing.T) {
	for name, without := range byOneWay {
		t.Run(name, func(t *testing.T) {
			w, m := open(t, without), newMaster(t)
			p := m.script("exit 7")
			m.release()
			awaitZombie(t, p)
			add(t, w, p)
			if w.ways&infos != 0 {
				m.reap(p)
			}
			d := next(t, w)
			if d.Process != p || d.Known == (name == "connector") || d.Known && d.Status.ExitStatus() != 7 {
				t.Errorf("told %+v", d)
			}
		})
	}
}

func TestWhoIsNotThereIsNotAdded(t *testing.T) {
	for name, without := range byOneWay {
		t.Run(name, func(t *testing.T) {
			w, m := open(t, without), newMaster(t)
			p := m.script("exit 0")
			stranger := Process{p.PID, p.Start - 1}
			if err := w.Add(stranger); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("Add of who has the id no more = %v", err)
			}
			m.release()
			m.reap(p)
			if err := w.Add(p); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("Add of who has ended = %v", err)
			}
			if err := w.Add(Process{}); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("Add of nobody = %v", err)
			}
			if len(w.watched) != 0 {
				t.Errorf("%d processes are watched", len(w.watched))
			}
		})
	}
}

func TestRemovedProcessIsNotTold(t *testing.T) {
	w, m := open(t, 0), newMaster(t)
	removed, kept := m.script("exit 1"), m.script("exit 2")
	add(t, w, removed)
	add(t, w, kept)
	w.Remove(Process{kept.PID, kept.Start - 1}) // somebody else
	w.Remove(removed)
	m.release()
	awaitZombie(t, removed)
	if d := next(t, w); d.Process != kept {
		t.Errorf("told of %+v", d)
	}
	if err := w.Add(removed); err != nil { // a zombie may come back
		t.Error(err)
	}
	if d := next(t, w); d.Process != removed || d.Status.ExitStatus() != 1 {
		t.Errorf("told of %+v", d)
	}
}

// Who does not receive deaths hinders nobody.
func TestDeathsAreHeld(t *testing.T) {
	w, m := open(t, 0), newMaster(t)
	const many = 300 // more than fit in one wake-up
	for range many {
		add(t, w, m.script("exit 1"))
	}
	m.release()
	await(t, "all deaths to be noticed", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return len(w.watched) == 0
	})
	add(t, w, m.script("exit 1"))
	m.release()
	told := map[Process]bool{}
	for range many + 1 {
		d := next(t, w)
		if told[d.Process] {
			t.Errorf("told twice of %+v", d)
		}
		told[d.Process] = true
	}
}

// An id that is another's at once takes away no death, nor gives it to another.
func TestIDsThatAreUsedAgain(t *testing.T) {
	if inside(t, &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS}, false) {
		return
	}
	mountProc(t)
	for name, without := range byOneWay {
		if name == "connector" {
			continue // there is none in this namespace
		}
		t.Run(name, func(t *testing.T) {
			w, m := open(t, without), newMaster(t)
			first := m.script("exit 7")
			add(t, w, first)
			m.release()
			var d Death
			told := false
			if name == "zombie" || name == "polling" { // else the status is lost, which is not the matter here
				d, told = next(t, w), true
			}
			m.reap(first)
			second := m.again(first)
			if err := w.Add(first); told && !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("Add of who had the id = %v", err)
			}
			add(t, w, second)
			if !told {
				d = next(t, w)
			}
			if d.Process != first || !d.Known || d.Status.ExitStatus() != 7 {
				t.Errorf("told first %+v, want exit 7 of %+v", d, first)
			}
			m.release()
			if name == "pidfd" {
				m.reap(second)
			}
			if d := next(t, w); d.Process != second || !d.Known || d.Status.ExitStatus() != 9 {
				t.Errorf("told then %+v, want exit 9 of %+v", d, second)
			}
		})
	}
}

// The id may be another's before the death was noticed.
func TestIDThatIsUsedAgainTooSoon(t *testing.T) {
	if inside(t, &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS}, false) {
		return
	}
	mountProc(t)
	w, err := Open(Options{Poll: time.Hour, without: pidfds | infos | connectors})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = w.Close() }()
	m := newMaster(t)
	first := m.script("exit 7")
	add(t, w, first)
	m.release()
	m.reap(first)
	add(t, w, m.again(first))
	if d := next(t, w); d.Process != first || d.Known {
		t.Errorf("told %+v, want the end of %+v, and no status", d, first)
	}
	second := w.watched[first.PID]
	second.close() // so that only its name is left, as where descriptors have run out
	m.release()
	m.reap(second.Process)
	m.again(second.Process)
	w.mu.Lock()
	w.tick()
	w.mu.Unlock()
	if d := next(t, w); d.Process != second.Process || d.Known {
		t.Errorf("told %+v, want the end of %+v, and no status", d, second.Process)
	}
}

// again starts a process with the id of one that has ended.
func (m *master) again(old Process) Process {
	m.t.Helper()
	for range 1000 {
		err := os.WriteFile("/proc/sys/kernel/ns_last_pid", []byte(strconv.Itoa(old.PID-1)), 0)
		if err != nil {
			m.t.Fatal(err)
		}
		p := m.script("exit 9")
		if p.PID == old.PID && p.Start != old.Start {
			return p
		}
		_ = unix.Kill(p.PID, unix.SIGKILL) // it has another id, or is of the same tick, which nobody can tell apart
		m.reap(p)
	}
	m.t.Fatal("the id was not given again")
	panic("unreachable")
}

// The kernel shows 0 for the status of who may not be traced, a crash or not.
func TestStatusThatIsNotShownIsUnknown(t *testing.T) {
	if inside(t, nobody, true) {
		return
	}
	m := newMaster(t)
	for name, tc := range map[string]struct {
		script  string
		uid     uint32
		without ways
		known   bool
	}{
		"a crash of another user's process":    {"kill -SEGV $$", 0, infos | connectors, false},
		"an exit of another user's process":    {"exit 0", 0, infos | connectors, false},
		"a crash of our user's process":        {"kill -SEGV $$", 65534, infos | connectors, true},
		"a clean end of our user's process":    {"exit 0", 65534, infos | connectors, true},
		"a crash of another's, with all ways":  {"kill -SEGV $$", 0, 0, true},
		"a clean end of another's, by a pidfd": {"exit 0", 0, zombies | connectors, true},
		"a crash of another's, by polling":     {"kill -SEGV $$", 0, pidfds | infos | connectors, false},
		"a crash of another's, by no way":      {"kill -SEGV $$", 0, infos | connectors | zombies, false},
		"a crash of another's, by a connector": {"kill -SEGV $$", 0, infos | zombies, true},
	} {
		t.Run(name, func(t *testing.T) {
			m.t = t
			w := open(t, tc.without)
			p := m.start(request{Script: "read x; " + tc.script, UID: tc.uid})
			awaitName(t, p, "sh")
			add(t, w, p)
			if f := w.Feature(); tc.known != (f.Reason == "") {
				t.Errorf("the feature is %+v", f)
			}
			m.release()
			awaitZombie(t, p)
			if w.ways&infos != 0 {
				m.reap(p)
			}
			d := next(t, w)
			if d.Known != tc.known || d.Stat == nil && w.ways&infos == 0 {
				t.Errorf("told %+v", d)
			}
			if w.ways&infos == 0 {
				if want := m.reap(p); d.Known && d.Status != want {
					t.Errorf("told %s; the parent was told %s", text(d.Status), text(want))
				}
			}
		})
	}
}

// What cannot be known is said for as long as it is so.
func TestFeatureFollowsTheProcesses(t *testing.T) {
	if inside(t, nobody, true) {
		return
	}
	w, m := open(t, infos|connectors), newMaster(t)
	ours, roots := m.start(request{Script: "read x; exit 1", UID: 65534}), m.script("exit 1")
	awaitName(t, ours, "sh")
	for _, step := range []struct {
		name    string
		do      func()
		missing bool
	}{
		{"nobody is watched", func() {}, false},
		{"ours is", func() { add(t, w, ours) }, false},
		{"root's is", func() { add(t, w, roots) }, true},
		{"root's is not any more", func() { w.Remove(roots) }, false},
		{"root's has ended", func() {
			w.Remove(ours)
			add(t, w, roots)
			m.release()
			next(t, w)
		}, true},
		{"ours has ended", func() { add(t, w, ours); next(t, w) }, false},
	} {
		step.do()
		if f := w.Feature(); (f.Reason != "") != step.missing {
			t.Errorf("when %s the feature is %+v", step.name, f)
		}
	}
}

// awaitName waits until a process runs its program, and is of the user that it will be of.
func awaitName(t *testing.T, p Process, name string) {
	t.Helper()
	await(t, "the program "+name, func() bool {
		s, err := procfs.New("/proc").Stat(p.PID)
		return err == nil && s.Name == name
	})
}

// A process that hides after it was added is not believed to have ended well.
func TestStatusThatIsNotShownAnyMore(t *testing.T) {
	if inside(t, nobody, true) {
		return
	}
	w, m := open(t, infos|connectors), newMaster(t)
	p := m.start(request{Program: "hiding", UID: 65534})
	await(t, "the process to be ours", func() bool { return (&process{Process: p}).shown(w.proc) })
	add(t, w, p)
	if f := w.Feature(); f.Reason != "" {
		t.Fatalf("the feature is %+v", f)
	}
	m.release()
	if d := next(t, w); d.Known || d.Stat == nil {
		t.Errorf("told %+v", d)
	}
	if status := m.reap(p); status.ExitStatus() != 7 {
		t.Fatalf("the parent was told %s: want exit 7", text(status))
	}
}

// The end of the first thread is no end of the process, nor its status.
func TestFirstThreadThatEndsAlone(t *testing.T) {
	for name, without := range byOneWay {
		t.Run(name, func(t *testing.T) {
			w, m := open(t, without), newMaster(t)
			p := m.start(request{Program: "leaderless"})
			await(t, "the first thread to end", func() bool {
				s, err := procfs.New("/proc").Stat(p.PID)
				return err == nil && s.State == 'Z' && s.Threads > 1
			})
			add(t, w, p)
			w.mu.Lock()
			w.look(w.watched[p.PID], false)
			if len(w.watched) != 1 {
				t.Error("its death was told while others of its threads lived")
			}
			w.mu.Unlock()
			m.release()
			awaitZombie(t, p)
			if w.ways&infos != 0 {
				m.reap(p)
			}
			d := next(t, w)
			if d.Process != p || d.Known && d.Status.ExitStatus() != 7 || d.Known == (name == "connector") {
				t.Errorf("told %+v, want exit 7", d)
			}
		})
	}
}

func TestLivesOfAFewMilliseconds(t *testing.T) {
	for name, without := range byOneWay {
		t.Run(name, func(t *testing.T) {
			w, m := open(t, without), newMaster(t)
			want, missed := map[Process]unix.WaitStatus{}, 0
			for i := range 100 {
				p := m.start(request{Script: fmt.Sprintf("sleep 0.%03d; exit %d", i%20, i), AtOnce: i%2 == 0})
				switch err := w.Add(p); {
				case err == nil:
					want[p] = unix.WaitStatus(i << 8)
				case errors.Is(err, fs.ErrNotExist):
					missed++
				default:
					t.Fatal(err)
				}
				if w.ways&infos != 0 && i%2 == 1 {
					m.reap(p)
				}
			}
			known := 0
			for range want {
				d := next(t, w)
				if s, ok := want[d.Process]; !ok || d.Known && d.Status != s {
					t.Errorf("told %s of process %d, want %s", text(d.Status), d.PID, text(s))
				}
				if d.Known {
					known++
				}
			}
			t.Logf("%d were watched, %d statuses known, %d had ended before", len(want), known, missed)
			if name == "pidfd" && known != len(want) {
				t.Errorf("%d of %d statuses are known", known, len(want))
			}
		})
	}
}

// forkers have the shell fork so many processes that end with their number, and wait.
const forkers = `i=0; all=
while [ $i -lt %d ]; do (read x; exit $((i%%200))) & all="$all $!"; i=$((i+1)); done <&3
exec 3<&-; echo $all
for p in $all; do wait $p; done`

// crowd starts processes; to call what it returns ends them all.
func crowd(t *testing.T, n int) (pids []int, end func()) {
	t.Helper()
	gate, release := pipe(t)
	cmd := exec.Command("sh", "-c", strings.Replace(fmt.Sprintf(forkers, n), "& all", "<&3 & all", 1))
	cmd.ExtraFiles = []*os.File{gate}
	out, err := cmd.StdoutPipe()
	if err := errors.Join(err, cmd.Start()); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	_ = gate.Close()
	for _, field := range strings.Fields(line) {
		pid, err := strconv.Atoi(field)
		if err != nil {
			t.Fatal(err)
		}
		pids = append(pids, pid)
	}
	return pids, func() {
		_ = release.Close()
		_ = cmd.Wait()
	}
}

// Ten thousand deaths, five hundred at once, leave nothing behind.
func TestManyDeaths(t *testing.T) {
	for name, without := range map[string]ways{"pidfd": zombies | connectors, "zombie": infos | connectors} {
		t.Run(name, func(t *testing.T) {
			w := open(t, without)
			var files int
			var heap uint64
			for round := range 20 {
				manyDeaths(t, w, 500, name == "pidfd")
				if round == 1 {
					files, heap = descriptors(t), live()
				}
			}
			if got := descriptors(t); got != files {
				t.Errorf("%d descriptors are open, %d were after the first thousand", got, files)
			}
			if got := live(); got > heap+256<<10 {
				t.Errorf("%d bytes are in use, %d were after the first thousand", got, heap)
			}
			if len(w.watched) != 0 || len(w.slow) != 0 || w.hidden != 0 {
				t.Errorf("%d processes are watched yet", len(w.watched))
			}
		})
	}
}

func manyDeaths(t *testing.T, w *Watcher, n int, all bool) {
	t.Helper()
	pids, end := crowd(t, n)
	want := map[int]int{}
	for i, pid := range pids {
		s, err := procfs.New("/proc").Stat(pid)
		if err != nil {
			t.Fatal(err)
		}
		add(t, w, Process{pid, s.Start})
		want[pid] = i % 200
	}
	end()
	for range pids {
		d := next(t, w)
		if code, ok := want[d.PID]; !ok || d.Known && d.Status.ExitStatus() != code || all && !d.Known {
			t.Errorf("told %+v, want exit %d", d, code)
		}
		delete(want, d.PID)
	}
}

func live() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func descriptors(t *testing.T) int {
	t.Helper()
	names, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(names)
}

// Who finds no descriptor is watched nevertheless, and who is watched already stays so.
func TestDescriptorsRunOut(t *testing.T) {
	if inside(t, nil, true) {
		return
	}
	w, m := open(t, 0), newMaster(t)
	before := m.script("exit 1")
	add(t, w, before)
	without, late := m.script("exit 2"), m.script("exit 3")
	var taken []int
	for {
		fd, err := unix.Dup(0)
		if err != nil {
			break
		}
		taken = append(taken, fd)
		if len(taken) == 1 {
			limit := unix.Rlimit{Cur: uint64(fd) + 20, Max: uint64(fd) + 20}
			if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
				t.Fatal(err)
			}
		}
	}
	add(t, w, without)
	add(t, w, late)
	if f := w.Feature(); f.Reason == "" {
		t.Errorf("the feature is %+v", f)
	}
	if err := unix.Kill(without.PID, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	m.reap(without)
	if d := next(t, w); d.Process != without || d.Known {
		t.Errorf("told %+v, want what has no descriptor, and no status", d)
	}
	for _, fd := range taken {
		_ = unix.Close(fd)
	}
	await(t, "the other to be watched as usual", func() bool { return w.Feature().Reason == "" })
	m.release()
	want := map[Process]int{before: 1, late: 3}
	for range want {
		if d := next(t, w); !d.Known || want[d.Process] != d.Status.ExitStatus() {
			t.Errorf("told %+v", d)
		}
	}
}

// Ids in a proc of another namespace are not given to the kernel.
func TestProcOfAnotherNamespace(t *testing.T) {
	m := newMaster(t)
	p := m.script("exit 7")
	dir := t.TempDir()
	const theirs = 2 // which is not our process 2
	for name, target := range map[string]string{"self": "1", strconv.Itoa(theirs): "/proc/" + strconv.Itoa(p.PID)} {
		if err := os.Symlink(target, dir+"/"+name); err != nil {
			t.Fatal(err)
		}
	}
	w, err := Open(Options{Proc: procfs.New(dir), Poll: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = w.Close() }()
	add(t, w, Process{theirs, p.Start})
	m.release()
	if d := next(t, w); d.PID != theirs || !d.Known || d.Status.ExitStatus() != 7 {
		t.Errorf("told %+v", d)
	}
	if f := w.Feature(); f.Reason == "" {
		t.Errorf("the feature is %+v", f)
	}
}

func TestCloseLeavesNothingOpen(t *testing.T) {
	m := newMaster(t)
	for name, without := range byOneWay {
		t.Run(name, func(t *testing.T) {
			before := descriptors(t)
			w, err := Open(Options{without: without})
			if err != nil {
				t.Fatal(err)
			}
			untold := m.start(request{Script: "read x; exit 1", AtOnce: true})
			add(t, w, untold)
			m.release()
			add(t, w, m.script("exit 0")) // it lives
			for range 2 {
				if err := w.Close(); err != nil {
					t.Error(err)
				}
			}
			for range w.Deaths() { // it is closed, so this ends
			}
			if err := w.Add(untold); !errors.Is(err, os.ErrClosed) {
				t.Errorf("Add after Close = %v", err)
			}
			if after := descriptors(t); after != before {
				t.Errorf("%d descriptors are open, %d were", after, before)
			}
		})
	}
}
