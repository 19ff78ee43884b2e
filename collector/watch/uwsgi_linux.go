package watch

import (
	"fmt"
	"maps"
	"slices"

	"github.com/prefork-exporter/prefork_exporter/collector/internal/sockdiag"
)

// listeners tell uWSGI's workers from its helpers, unless they call themselves something:
// workers have the application's listening socket. Mules and spoolers have none, a router
// has another one, which is opened before that of the application.
type listeners struct{ kernel *sockdiag.Kernel }

// mostFiles is how many descriptors of a process are looked at: those that listen are low.
const mostFiles = 256

// helpers returns those of the processes that are no workers; none where nobody knows.
func (l *listeners) helpers(pids []int) (all []int) {
	listening, err := l.kernel.Listening()
	if err != nil {
		return nil
	}
	known := map[uint64]bool{}
	for _, s := range listening.Sockets {
		known[s.ID.Inode] = true
	}
	has, count := map[int]string{}, map[string]int{}
	for _, pid := range pids {
		var held []uint64
		_, err := l.kernel.Sockets(pid, mostFiles, func(_ string, inode uint64) {
			if known[inode] {
				held = append(held, inode)
			}
		})
		if err != nil {
			return nil // it may not be looked at, or has ended
		}
		slices.Sort(held)
		if key := fmt.Sprintf("%20d", held); len(held) > 0 {
			has[pid] = key
			count[key]++
		}
	}
	if len(count) == 0 {
		return nil // they are those of another network
	}
	workers := slices.MaxFunc(slices.Sorted(maps.Keys(count)), func(a, b string) int { return count[a] - count[b] })
	for key, n := range count {
		if n == count[workers] && key > workers {
			workers = key
		}
	}
	return slices.DeleteFunc(slices.Clone(pids), func(pid int) bool { return has[pid] == workers })
}
