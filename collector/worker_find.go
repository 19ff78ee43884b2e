package collector

import (
	"errors"
	"io/fs"
	"maps"
	"slices"
	"time"

	"github.com/prefork-exporter/prefork_exporter/collector/internal/sockdiag"
	"github.com/prefork-exporter/prefork_exporter/collector/watch"
)

// listenerSearch finds the listening sockets of a server: those that its workers or its
// master hold. So the ports are known without being named, whoever else listens, and
// whether or not [Listen] is switched on. To list who listens costs next to nothing.
type listenerSearch struct {
	ours   map[sockdiag.ID]serverListener
	looked map[identity]bool // whose descriptors were read: true where they may not be
	turn   int               // who of them is read anew next

	searched time.Time
	master   int    // that was there then
	reason   string // why not all were known; empty: they were
}

type serverListener struct {
	sockdiag.Socket
	byWorker bool // not by the master alone
	seen     time.Time
}

// How many descriptors are looked at: those that listen have low numbers. Of all workers
// one in so many is looked at anew now and then, for a socket may be opened or handed on.
const (
	mostListenerFiles = 256
	listenerEvery     = 5 * time.Second
	listenerShare     = 2
	listenerForget    = time.Minute // the kernel may leave one out while others come and go
)

// find returns the listening sockets of TCP, or the reason why not all are known.
func (l *listenerSearch) find(kernel connectionTable, s watch.State, now time.Time) (tcp []sockdiag.Socket, reason string) {
	if l.isDue(s, now) {
		l.reason = l.search(kernel, s, now)
		l.searched, l.master = now, s.Master
	}
	if l.reason != "" {
		return nil, l.reason
	}
	tcp, l.reason = l.found()
	return tcp, l.reason
}

// isDue says whether to search: when somebody is new, as long as something is missing, and
// now and then.
func (l *listenerSearch) isDue(s watch.State, now time.Time) bool {
	return l.reason != "" || s.Master != l.master || now.Sub(l.searched) >= listenerEvery ||
		slices.ContainsFunc(s.Workers, func(w watch.Worker) bool { _, known := l.looked[identityOf(w)]; return !known })
}

// search looks who listens, and returns why that cannot be known.
func (l *listenerSearch) search(kernel connectionTable, s watch.State, now time.Time) (reason string) {
	all, err := kernel.Listening()
	if err != nil {
		return withNumber("listening sockets cannot be read", err)
	}
	byInode := make(map[uint64]sockdiag.Socket, len(all.Sockets))
	for _, socket := range all.Sockets {
		byInode[socket.ID.Inode] = socket
		if known, ok := l.ours[socket.ID]; ok {
			known.seen = now
			l.ours[socket.ID] = known
		}
	}
	for _, w := range l.due(s.Workers) {
		l.looked[identityOf(w)] = errors.Is(l.look(kernel, w.PID, true, byInode, now), fs.ErrPermission)
	}
	if s.Master != 0 {
		_ = l.look(kernel, s.Master, false, byInode, now) // it may be of another user than its workers
	}
	maps.DeleteFunc(l.ours, func(_ sockdiag.ID, o serverListener) bool { return now.Sub(o.seen) > listenerForget })
	return ""
}

// due returns the workers whose descriptors are to be read: new ones, and some others.
func (l *listenerSearch) due(workers []watch.Worker) (due []watch.Worker) {
	looked := make(map[identity]bool, len(workers))
	var others []watch.Worker
	for _, w := range workers {
		if denied, ok := l.looked[identityOf(w)]; ok {
			looked[identityOf(w)] = denied
			others = append(others, w)
		} else {
			due = append(due, w)
		}
	}
	l.looked = looked
	for range (len(others) + listenerShare - 1) / listenerShare {
		l.turn++
		due = append(due, others[l.turn%len(others)])
	}
	return due
}

// look adds what one process holds.
func (l *listenerSearch) look(kernel connectionTable, pid int, worker bool, byInode map[uint64]sockdiag.Socket, now time.Time) error {
	_, err := kernel.Sockets(pid, mostListenerFiles, func(_ string, inode uint64) {
		if socket, ok := byInode[inode]; ok {
			l.ours[socket.ID] = serverListener{socket, worker || l.ours[socket.ID].byWorker, now}
		}
	})
	return err
}

func (l *listenerSearch) found() (tcp []sockdiag.Socket, reason string) {
	for _, denied := range l.looked {
		if denied {
			return nil, notReadable
		}
	}
	for _, o := range l.ours {
		switch {
		case o.Family != sockdiag.Unix:
			tcp = append(tcp, o.Socket)
		case o.byWorker:
			return nil, "the workers listen on a Unix socket, and the kernel tells no times of its connections"
		}
	}
	if len(tcp) == 0 {
		return nil, "the server does not listen"
	}
	return tcp, ""
}

// ownerSearch finds the worker that has a connection. That takes a look at descriptors,
// so who was found is remembered until the connection is gone.
type ownerSearch struct {
	kernel  connectionTable
	isThere func(w watch.Worker) bool

	of        map[sockdiag.ID]identity
	strangers map[sockdiag.ID]time.Time // when no worker was found to have them
	hot       map[identity][]string     // descriptors at which a worker had connections
}

// How many descriptors are looked at. A server has its connections at the same few
// descriptors mostly: these are looked at first.
const (
	mostHot             = 32
	mostConnectionFiles = 4096
	strangerFor         = 5 * time.Second
)

func (o *ownerSearch) knows(id sockdiag.ID) bool {
	_, owned := o.of[id]
	_, strange := o.strangers[id]
	return owned || strange
}

// keep forgets workers that are gone.
func (o *ownerSearch) keep(workers []watch.Worker) {
	there := make(map[identity]bool, len(workers))
	for _, w := range workers {
		there[identityOf(w)] = true
	}
	maps.DeleteFunc(o.of, func(_ sockdiag.ID, who identity) bool { return !there[who] })
	maps.DeleteFunc(o.hot, func(who identity, _ []string) bool { return !there[who] })
}

// forgetAllBut forgets connections that are gone.
func (o *ownerSearch) forgetAllBut(still map[sockdiag.ID]bool) {
	maps.DeleteFunc(o.of, func(id sockdiag.ID, _ identity) bool { return !still[id] })
	maps.DeleteFunc(o.strangers, func(id sockdiag.ID, _ time.Time) bool { return !still[id] })
}

// find returns of each worker whether it has one of the connections, which are by inode.
// Those of nobody are of the master, or of who listens at the same port.
func (o *ownerSearch) find(workers []watch.Worker, serving map[uint64]sockdiag.ID, now time.Time) map[identity]bool {
	wanted := maps.Clone(serving)
	maps.DeleteFunc(wanted, func(_ uint64, id sockdiag.ID) bool {
		_, owned := o.of[id]
		since, strange := o.strangers[id]
		return owned || strange && now.Sub(since) < strangerFor
	})
	o.search(workers, wanted, o.lookHot)
	o.search(workers, wanted, o.lookEverywhere)
	for _, id := range wanted {
		o.strangers[id] = now
	}
	busy := make(map[identity]bool, len(workers))
	for _, w := range workers {
		busy[identityOf(w)] = false
	}
	for _, id := range serving {
		if who, ok := o.of[id]; ok {
			busy[who] = true
		}
	}
	return busy
}

// search takes from wanted what it finds. A stranger that has a worker's id now owns nothing.
func (o *ownerSearch) search(workers []watch.Worker, wanted map[uint64]sockdiag.ID, look func(w watch.Worker, found func(fd string, inode uint64))) {
	for _, w := range workers {
		if len(wanted) == 0 {
			return
		}
		look(w, func(fd string, inode uint64) {
			id, ok := wanted[inode]
			if !ok || !o.isThere(w) {
				return
			}
			delete(wanted, inode)
			delete(o.strangers, id)
			o.of[id] = identityOf(w)
			o.heat(identityOf(w), fd)
		})
	}
}

func (o *ownerSearch) lookHot(w watch.Worker, found func(fd string, inode uint64)) {
	for _, fd := range slices.Clone(o.hot[identityOf(w)]) {
		if inode, ok := o.kernel.SocketAt(w.PID, fd); ok {
			found(fd, inode)
		}
	}
}

func (o *ownerSearch) lookEverywhere(w watch.Worker, found func(fd string, inode uint64)) {
	_, _ = o.kernel.Sockets(w.PID, mostConnectionFiles, found) // who may not be read was told
}

// heat moves a descriptor to the front of those that are looked at first.
func (o *ownerSearch) heat(who identity, fd string) {
	others := slices.DeleteFunc(o.hot[who], func(one string) bool { return one == fd })
	o.hot[who] = slices.Insert(others, 0, fd)[:min(len(others)+1, mostHot)]
}
