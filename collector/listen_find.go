package collector

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/prefork-exporter/prefork_exporter/collector/internal/sockdiag"
)

// ListenAddress is where somebody may listen: an address of TCP, of one host or of any,
// or the path of a Unix socket.
type ListenAddress struct {
	host netip.Addr // not valid: any
	port uint16
	path string // empty: TCP
}

// ParseListenAddress reads IP:PORT, :PORT for whatever host, or unix:/PATH. An
// abstract name is unix:@NAME.
func ParseListenAddress(text string) (ListenAddress, error) {
	if path, ok := strings.CutPrefix(text, "unix:"); ok {
		if !filepath.IsAbs(path) && (len(path) < 2 || path[0] != '@') {
			return ListenAddress{}, errors.New("want unix: and an absolute path, or @ and an abstract name")
		}
		return ListenAddress{path: path}, nil
	}
	if number, ok := strings.CutPrefix(text, ":"); ok {
		port, err := strconv.ParseUint(number, 10, 16)
		if err != nil || port == 0 {
			return ListenAddress{}, fmt.Errorf("port %q: want a number from 1 to 65535", number)
		}
		return ListenAddress{port: uint16(port)}, nil
	}
	at, err := netip.ParseAddrPort(text)
	if err != nil || at.Port() == 0 {
		return ListenAddress{}, errors.New("want IP:PORT, :PORT or unix:/PATH")
	}
	return ListenAddress{host: at.Addr().Unmap(), port: at.Port()}, nil
}

// matches says whether the socket of that address is meant.
func (l ListenAddress) matches(a sockdiag.Address) bool {
	if a.Family == sockdiag.Unix {
		return l.path != "" && l.path == a.Path
	}
	return l.path == "" && l.port == a.TCP.Port() && (!l.host.IsValid() || l.host == a.TCP.Addr().Unmap())
}

// finder finds out which listening sockets are watched: those of given addresses, and
// those that a process or its descendants have opened. Who opens one does not tell, so
// they are searched for among the descriptors.
type finder struct {
	named   []ListenAddress
	process func() int // nil: none; 0: it is not there for now

	searched time.Time
	pause    time.Duration        // before the next search for a socket that is new
	known    map[sockdiag.ID]bool // that were there in the last search: true for those that are ours
	denied   bool                 // descriptors could not be read
	absent   bool                 // the process was not there
}

// hopeless says that nothing will ever be found.
func (f *finder) hopeless() bool { return f.process == nil && len(f.named) == 0 }

// A search reads the state and the descriptors of the server's processes. It is due when a
// socket is there that was not, and now and then, for a socket may be handed on. While
// those that come are always others', it is due less often.
const (
	searchEvery = 10 * time.Second
	searchPause = time.Second
)

// watched returns those of the sockets that are watched.
func (f *finder) watched(kernel acceptQueues, now time.Time, sockets []sockdiag.Socket) []sockdiag.Socket {
	if f.process != nil && f.isDue(now, sockets) {
		f.search(kernel, sockets)
		f.searched = now
	}
	var ours []sockdiag.Socket
	for _, s := range sockets {
		if f.known[s.ID] || f.isNamed(s.Address) {
			ours = append(ours, s)
		}
	}
	return ours
}

func (f *finder) isDue(now time.Time, sockets []sockdiag.Socket) bool {
	since := now.Sub(f.searched)
	if since >= searchEvery {
		return true
	}
	for _, s := range sockets {
		if _, known := f.known[s.ID]; !known {
			return since >= f.pause
		}
	}
	return false
}

// search finds the sockets of the process. One that was found once is ours until it is
// closed, whether or not all descriptors could be read this time.
func (f *finder) search(kernel acceptQueues, sockets []sockdiag.Socket) {
	pid := f.process()
	if f.absent = pid == 0; f.absent {
		return // what is there now may be its later
	}
	held, err := kernel.Held(pid)
	f.denied = err != nil
	known := make(map[sockdiag.ID]bool, len(sockets))
	strange, found := false, false
	for _, s := range sockets {
		known[s.ID] = f.known[s.ID] || held[s.ID.Inode]
		if _, old := f.known[s.ID]; !old {
			found = found || known[s.ID]
			strange = strange || !known[s.ID]
		}
	}
	f.known = known
	f.pause = min(2*max(f.pause, searchPause), searchEvery)
	if found || !strange {
		f.pause = searchPause
	}
}

func (f *finder) isNamed(a sockdiag.Address) bool {
	for _, l := range f.named {
		if l.matches(a) {
			return true
		}
	}
	return false
}

// whyNone returns why no socket was found.
func (f *finder) whyNone() string {
	switch {
	case f.hopeless():
		return "no listener is known: --listen.address names one"
	case f.denied:
		return "the server's descriptors may not be read"
	case f.process == nil:
		return "nobody listens at --listen.address"
	case f.absent:
		return "the server is not there"
	}
	return "the server does not listen"
}
