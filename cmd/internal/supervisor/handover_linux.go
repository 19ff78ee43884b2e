package supervisor

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// HandoverVariable is the variable that tells a master from which descriptor it takes
// over what the program before it had.
const HandoverVariable = "PREFORK_HANDOVER_FD"

// handoverVersion is the form of bequests that this program writes and reads.
const handoverVersion = 1

// bequest is all that a master leaves to the program that takes its place, as the same
// process: descriptors stay open, and children stay its children.
type bequest struct {
	Version  int             `json:"version"`
	Asks     bool            `json:"asks,omitempty"` // only whether anybody could take over
	Estate   Estate          `json:"estate"`
	Private  string          `json:"private"` // the directory of our own
	Dir      string          `json:"dir"`     // of metric files
	Ear      int             `json:"ear"`     // descriptor
	Sockets  []socketBequest `json:"sockets"`
	Relays   []relayBequest  `json:"relays"`
	Children []int           `json:"children"` // that are no workers
	Groups   []groupBequest  `json:"groups"`

	signals []syscall.Signal // that nobody has looked at; a value of its own, which comes last
}

// groupBequest is a process group that has to end, and until when.
type groupBequest struct {
	ID       int       `json:"id"`
	Deadline time.Time `json:"deadline"`
}

type socketBequest struct {
	place
	Files map[int]int `json:"files"` // descriptors by slot
}

type relayBequest struct {
	FD      int    `json:"fd"`
	Slot    int    `json:"slot"`
	Stream  int    `json:"stream"`
	Pending []byte `json:"pending,omitempty"`
}

// CheckHandover returns what is wrong with what the program before this one has left, if
// there was one. If that asks, it is told that this program can take over.
func CheckHandover() error {
	b, err := readBequest()
	if b == nil || err != nil || !b.Asks {
		return err
	}
	f, err := leftFile()
	if err != nil {
		return err
	}
	_, err = f.WriteString(canTakeOver)
	return errors.Join(err, f.Close())
}

// canTakeOver is what a program answers that can: another one that ends well does not.
const canTakeOver = "this program can take over\n"

// readBequest returns what the program before this one has left; nil if there was none.
func readBequest() (*bequest, error) {
	f, err := leftFile()
	if f == nil || err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	return decodeBequest(f)
}

// decodeBequest reads a file from its beginning, and leaves it at its end.
func decodeBequest(f *os.File) (*bequest, error) {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, fmt.Errorf("take over from the program before: %w", err)
	}
	all, err := io.ReadAll(f)
	if err != nil {
		return nil, fmt.Errorf("take over from the program before: %w", err)
	}
	return parseBequest(all)
}

// leftFile returns a copy of the file that the program before this one has left; nil if
// it has left none.
func leftFile() (*os.File, error) {
	value := os.Getenv(HandoverVariable)
	if value == "" {
		return nil, nil
	}
	fd, err := strconv.Atoi(value)
	if err != nil || fd < firstExtra {
		return nil, fmt.Errorf("%s: %q: want a descriptor", HandoverVariable, value)
	}
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("%s: %q: %w", HandoverVariable, value, err)
	}
	return os.NewFile(uintptr(dup), "handover"), nil
}

func parseBequest(left []byte) (*bequest, error) {
	var b bequest
	values := json.NewDecoder(bytes.NewReader(left))
	if err := errors.Join(values.Decode(&b), values.Decode(&b.signals)); err != nil {
		return nil, fmt.Errorf("take over from the program before: %w", err)
	}
	if b.Version != handoverVersion {
		return nil, fmt.Errorf("take over from the program before: it speaks version %d, want %d", b.Version, handoverVersion)
	}
	if err := b.Estate.check(); err != nil {
		return nil, fmt.Errorf("take over from the program before: %w", err)
	}
	return &b, nil
}

// takeOver returns what the program before this one has left, once: nobody else finds it.
func takeOver() (*bequest, error) {
	b, err := readBequest()
	if b == nil || err != nil {
		return nil, err
	}
	if fd, err := strconv.Atoi(os.Getenv(HandoverVariable)); err == nil {
		_ = unix.Close(fd)
	}
	return b, os.Unsetenv(HandoverVariable)
}

// household takes over what a master has beside its workers.
func (b *bequest) household(output *Output, reusePort bool) (h household, err error) {
	h = household{private: b.Private, dir: b.Dir, output: output, sockets: &Sockets{reusePort: reusePort}}
	if h.ear, err = adoptEar(h.notifyPath(), inherited(b.Ear, "ear")); err != nil {
		return h, err
	}
	for _, one := range b.Sockets {
		files := map[int]*os.File{}
		for slot, fd := range one.Files {
			files[slot] = inherited(fd, one.Name)
		}
		h.sockets.all = append(h.sockets.all, &socket{one.place, files})
	}
	for _, one := range b.Relays {
		output.relay(inherited(one.FD, "pipe"), one.Slot, one.Stream, one.Pending)
	}
	return h, nil
}

// inherited returns a descriptor that was left to us, which goes to nobody else.
func inherited(fd int, name string) *os.File {
	unix.CloseOnExec(fd)
	return os.NewFile(uintptr(fd), name)
}

// upgrade puts this program anew in the place of this process.
type upgrade struct {
	household
	spawner *Spawner
	check   []string       // arguments with which the program only says whether it could
	signals chan os.Signal // of the operator
	flush   func()         // writes what was logged
}

// verify asks the program that would come next whether it could take over.
func (u *upgrade) verify(ctx context.Context) error {
	path, err := ourProgram()
	if err != nil {
		return err
	}
	left, err := memoryFile()
	if err != nil {
		return err
	}
	said, err := memoryFile()
	if err != nil {
		return errors.Join(err, left.Close())
	}
	defer func() { _, _ = left.Close(), said.Close() }()
	values := json.NewEncoder(left)
	if err := errors.Join(values.Encode(bequest{Version: handoverVersion, Asks: true}), values.Encode([]syscall.Signal{})); err != nil {
		return err
	}
	p, err := u.spawner.start(&exec.Cmd{
		Path: path, Args: slices.Concat(os.Args[:1], u.check), Stdout: said, Stderr: said, ExtraFiles: []*os.File{left},
		Env:         append(os.Environ(), HandoverVariable+"="+strconv.Itoa(firstExtra)),
		SysProcAttr: &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL},
	})
	if err != nil {
		return err
	}
	const enough = 30 * time.Second
	ctx, cancel := context.WithTimeout(ctx, enough)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { p.Signal(syscall.SIGKILL) })
	p.group = true // of which nothing is to be left
	status := p.Wait()
	stop()
	p.Reap()
	if left, _ := io.ReadAll(io.NewSectionReader(left, 0, maxWords)); status == (Status{}) && bytes.HasSuffix(left, []byte(canTakeOver)) {
		return nil
	}
	words, _ := io.ReadAll(io.NewSectionReader(said, 0, maxWords)) // what it said is all that we can tell
	return fmt.Errorf("%s could not take over: %v: %s", path, status, strings.TrimSpace(string(words)))
}

// ourProgram returns the path of this program by the name that it was started with: a
// link may lead to a newer one.
func ourProgram() (string, error) {
	if path, err := exec.LookPath(os.Args[0]); err == nil {
		return filepath.Abs(path)
	}
	return os.Executable()
}

func memoryFile() (*os.File, error) {
	fd, err := unix.MemfdCreate("prefork", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make a file in memory: %w", err)
	}
	return os.NewFile(uintptr(fd), "memory"), nil
}

// run has the program take over. It returns when it has not, and all goes on; with the
// signals that have come meanwhile.
func (u *upgrade) run(s *Supervisor) (missed []syscall.Signal, err error) {
	if u.output != nil {
		defer u.output.Resume()
		if err := u.output.Pause(); err != nil {
			return nil, err
		}
	}
	u.ear.Pause() // what was heard before is ahead of us
	defer u.ear.Resume()
	err = s.Handover(func(e Estate) error {
		return u.spawner.do(func() (err error) { // on the thread whose children they are
			missed, err = u.replace(e)
			return err
		})
	})
	return missed, err
}

// waiting returns the signals that nobody has looked at.
func waiting(signals <-chan os.Signal) (all []syscall.Signal) {
	flush := make(chan os.Signal, 1)
	signal.Notify(flush, masterSignals()...)
	signal.Stop(flush) // which waits until what has come is with everybody
	for {
		select {
		case one := <-signals:
			all = append(all, one.(syscall.Signal))
		default:
			return all
		}
	}
}

// replace becomes the program anew. It returns when it has not, with the signals that
// nobody has looked at.
func (u *upgrade) replace(e Estate) (missed []syscall.Signal, err error) {
	if unix.Gettid() != os.Getpid() {
		return nil, errors.New("this process does not run on its first thread, with which workers would end") // it did not begin so
	}
	path, err := ourProgram()
	if err != nil {
		return nil, err
	}
	var keep keepsakes
	defer keep.close()
	b := bequest{Version: handoverVersion, Estate: e, Private: u.private, Dir: u.dir}
	b.Children, b.Groups = u.spawner.others(e)
	b.Ear = keep.socket(u.ear.conn)
	for _, one := range u.sockets.all {
		files := map[int]int{}
		for slot, f := range one.files {
			files[slot] = keep.file(f)
		}
		b.Sockets = append(b.Sockets, socketBequest{one.place, files})
	}
	if u.output != nil {
		b.Relays = u.output.bequests(&keep)
	}
	left := keep.memory()
	keep.json(left, b)
	env := append(os.Environ(), HandoverVariable+"="+strconv.Itoa(left))
	u.flush()
	// While the program starts, signals wait. But Go takes HUP, INT, QUIT and TERM before
	// it has a handler, and TTIN and TTOU may come just then: better lost than the end of
	// all workers, or a master that stands still.
	mask(unix.SIG_BLOCK)
	defer mask(unix.SIG_UNBLOCK)
	missed = waiting(u.signals) // as late as can be: what comes now may be lost
	keep.json(left, missed)
	if err := keep.check(left); err != nil {
		return missed, err
	}
	harmful := []os.Signal{syscall.SIGHUP, syscall.SIGTTIN, syscall.SIGTTOU}
	signal.Ignore(harmful...)
	defer signal.Notify(u.signals, harmful...)
	return missed, syscall.Exec(path, os.Args, env)
}

// CatchMasterSignals returns what the operator sends, those signals first that have
// waited since the program before this one; and what ends it.
func CatchMasterSignals() (signals chan os.Signal, stop func()) {
	const room = 1000 // for who is in the middle of an upgrade
	signals = make(chan os.Signal, room)
	for _, one := range held() {
		signals <- one
	}
	signal.Notify(signals, masterSignals()...)
	return signals, func() { signal.Stop(signals) }
}

// held takes the signals that wait because they are blocked, by signalfd(2).
func held() (all []os.Signal) {
	fd, err := unix.Signalfd(-1, masterSet(), unix.SFD_NONBLOCK|unix.SFD_CLOEXEC)
	if err != nil {
		return nil // and whoever sent them sends them again
	}
	defer func() { _ = unix.Close(fd) }()
	info := make([]byte, unsafe.Sizeof(unix.SignalfdSiginfo{}))
	for range masterSignals() { // each waits no more than once
		if n, err := unix.Read(fd, info); err != nil || n != len(info) {
			break
		}
		all = append(all, syscall.Signal(binary.NativeEndian.Uint32(info)))
	}
	return all
}

// others returns the children that are no workers of an estate, and the groups that have
// to end.
func (s *Spawner) others(e Estate) (children []int, groups []groupBequest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for pid := range s.ours {
		if !slices.ContainsFunc(e.Workers, func(w WorkerEstate) bool { return w.PID == pid }) {
			children = append(children, pid)
		}
	}
	for id, deadline := range s.groups {
		groups = append(groups, groupBequest{id, deadline})
	}
	return children, groups
}

// mask lets the signals of a master wait, with unix.SIG_BLOCK, or come.
func mask(how int) {
	_ = unix.PthreadSigmask(how, masterSet(), nil)
}

// masterSet returns the signals of a master as the kernel has them.
func masterSet() *unix.Sigset_t {
	var set unix.Sigset_t
	for _, s := range masterSignals() {
		const bits = 64
		n := int(s.(syscall.Signal)) - 1
		set.Val[n/bits] |= 1 << (n % bits)
	}
	return &set
}

// keepsakes are copies of descriptors that outlive this program.
type keepsakes struct {
	all []int
	err error
}

func (k *keepsakes) file(f *os.File) int {
	raw, err := f.SyscallConn()
	return k.control(raw, err)
}

func (k *keepsakes) socket(conn syscall.Conn) int {
	raw, err := conn.SyscallConn()
	return k.control(raw, err)
}

func (k *keepsakes) control(raw syscall.RawConn, err error) (fd int) {
	if err == nil {
		controlErr := raw.Control(func(open uintptr) { fd, err = unix.FcntlInt(open, unix.F_DUPFD, firstExtra) })
		err = errors.Join(controlErr, err)
	}
	return k.keep(fd, err)
}

// memory returns a file in memory.
func (k *keepsakes) memory() int {
	fd, err := unix.MemfdCreate("handover", 0)
	return k.keep(fd, err)
}

// json writes a value to a file.
func (k *keepsakes) json(fd int, value any) {
	b, err := json.Marshal(value)
	for err == nil && len(b) > 0 {
		var n int
		n, err = unix.Write(fd, b)
		b = b[max(n, 0):]
	}
	k.fail(err)
}

func (k *keepsakes) keep(fd int, err error) int {
	if fd > 0 {
		k.all = append(k.all, fd)
	}
	if err != nil {
		k.fail(err)
	}
	return fd
}

// fail keeps the first error.
func (k *keepsakes) fail(err error) {
	if k.err == nil && err != nil {
		k.err = fmt.Errorf("keep what the next program needs: %w", err)
	}
}

// check returns what is wrong with what is kept, as who comes next would find it.
func (k *keepsakes) check(left int) error {
	if k.err != nil {
		return k.err
	}
	dup, err := unix.FcntlInt(uintptr(left), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("keep what the next program needs: %w", err)
	}
	f := os.NewFile(uintptr(dup), "handover")
	defer func() { _ = f.Close() }()
	_, err = decodeBequest(f)
	return err
}

func (k *keepsakes) close() {
	for _, fd := range k.all {
		_ = unix.Close(fd)
	}
}
