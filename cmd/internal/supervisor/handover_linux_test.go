package supervisor

import (
	"encoding/json"
	"math"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestWhatIsNoBequest(t *testing.T) {
	for left, want := range map[string]string{
		"":                               "EOF",
		"{":                              "unexpected EOF",
		`{"version":1}`:                  "EOF", // without the signals
		`{"version":2} []`:               "it speaks version 2, want 1",
		`{"version":"one"} []`:           "cannot unmarshal",
		`{"version":1,"estate":7} []`:    "cannot unmarshal",
		`{"version":1} {"not":"a list"}`: "cannot unmarshal",
		`{"version":1,"estate":{"target":-1}} []`: "a number that cannot be",
	} {
		if b, err := parseBequest([]byte(left)); b != nil || err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want %q", left, err, want)
		}
	}
}

func TestWhereNothingWasLeft(t *testing.T) {
	for value, want := range map[string]string{
		"":     "",
		"x":    `PREFORK_HANDOVER_FD: "x": want a descriptor`,
		"2":    `PREFORK_HANDOVER_FD: "2": want a descriptor`,
		"9999": `PREFORK_HANDOVER_FD: "9999": bad file descriptor`,
	} {
		t.Setenv(HandoverVariable, value)
		err := CheckHandover()
		if got := strings.TrimSpace(errorText(err)); got != want {
			t.Errorf("%q: %q, want %q", value, got, want)
		}
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// Half a line of each of many workers is a lot.
func TestMuchMayBeLeft(t *testing.T) {
	b := bequest{Version: handoverVersion}
	for range 200 {
		b.Relays = append(b.Relays, relayBequest{Pending: make([]byte, maxLine)})
	}
	var keep keepsakes
	defer keep.close()
	left := keep.memory()
	keep.json(left, b)
	keep.json(left, []syscall.Signal{syscall.SIGHUP})
	if err := keep.check(left); err != nil {
		t.Error(err)
	}
	keep.json(left, "nothing that anybody has asked for")
	broken := keep.memory()
	keep.json(broken, 7)
	if err := keep.check(broken); err == nil {
		t.Error("nobody could read it, and it is left")
	}
}

// As those that come while one program takes the place of another, with all of them blocked.
func TestSignalsThatWaitComeFirst(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	mask(unix.SIG_BLOCK)
	defer mask(unix.SIG_UNBLOCK)
	want := []os.Signal{syscall.SIGUSR1, syscall.SIGTTIN}
	for _, s := range want {
		if err := unix.Tgkill(os.Getpid(), unix.Gettid(), s.(syscall.Signal)); err != nil {
			t.Fatal(err)
		}
	}
	signals, stop := CatchMasterSignals()
	defer stop()
	if len(signals) != len(want) {
		t.Fatalf("%d signals, want %v", len(signals), want)
	}
	for range want {
		if got := <-signals; !slices.Contains(want, got) {
			t.Errorf("%v, want one of %v", got, want)
		}
	}
}

// A check leaves what was left for whoever takes it over.
func TestWhatWasLeftIsReadAgainAndTakenOnce(t *testing.T) {
	f, err := memoryFile()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	values := json.NewEncoder(f)
	for _, v := range []any{bequest{Version: handoverVersion, Dir: "/metrics"}, []syscall.Signal{syscall.SIGHUP}} {
		if err := values.Encode(v); err != nil {
			t.Fatal(err)
		}
	}
	fd, err := unix.Dup(int(f.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv(HandoverVariable, strconv.Itoa(fd))
	if err := CheckHandover(); err != nil {
		t.Error(err)
	}
	b, err := takeOver()
	if err != nil || b.Dir != "/metrics" || len(b.signals) != 1 {
		t.Fatalf("took %+v, %v", b, err)
	}
	if value, is := os.LookupEnv(HandoverVariable); is {
		t.Errorf("others find it, too: %s", value)
	}
	if again, err := takeOver(); again != nil || err != nil {
		t.Errorf("took again %+v, %v", again, err)
	}
}

func TestSocketsThatWerePassedAreForUsOnly(t *testing.T) {
	for name, tc := range map[string]struct {
		fds, pid, names string
		want            int
	}{
		"for another process": {"1", "1", "", 0},
		"no number":           {"one", strconv.Itoa(os.Getpid()), "", 0},
		"more than can be":    {strconv.Itoa(math.MaxInt), strconv.Itoa(os.Getpid()), "", 0},
		"what is no socket":   {"1", strconv.Itoa(os.Getpid()), "web", 0}, // whatever 3 is here
	} {
		t.Setenv("LISTEN_FDS", tc.fds)
		t.Setenv("LISTEN_PID", tc.pid)
		t.Setenv("LISTEN_FDNAMES", tc.names)
		if files, _ := passedSockets(); len(files) != tc.want {
			t.Errorf("%s: %d sockets, want %d", name, len(files), tc.want)
		}
		if _, is := os.LookupEnv("LISTEN_FDS"); is {
			t.Errorf("%s: others find them, too", name)
		}
	}
}
