package bridge

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/prefork-exporter/prefork_exporter/multiproc/writer"
)

// Options say how a [Bridge] writes. All may be left out.
type Options struct {
	// Interval is how often it writes. A process that is killed with SIGKILL loses
	// what it counted since the last write. Zero or less: a second.
	Interval time.Duration

	// Mode says how a gauge of several processes becomes one. It is asked once for
	// each gauge. Nil, and where it returns none: [writer.ModeLiveAll].
	Mode func(name string) writer.Mode

	// Skip says which families are not to be carried. Nil: none.
	Skip func(name string) bool

	// OnLoss is told once for each family and reason what is not carried. It may be
	// called by several goroutines at once. Nil: it is logged with [slog.Default] as
	// a warning, but those of client_golang's own collectors (go_*, process_*) and those
	// that it gives to many metrics by itself, created timestamps and units, for
	// debugging only.
	OnLoss func(Loss)

	// OnError is told what the writes of the bridge's own goroutine return, once for
	// each text, whatever numbers are in it. Nil: it is logged with [slog.Default].
	OnError func(error)
}

// Bridge writes what a gatherer returns into metric files. Its methods are safe for
// concurrent use.
type Bridge struct {
	gatherer prometheus.Gatherer
	w        *writer.Writer
	o        Options

	once sync.Once // closes stop
	stop chan struct{}
	done chan struct{} // closed by the goroutine

	// writing is held from before a gathering until all of it is written: two that
	// overtook each other would look like counters that begin anew.
	writing  sync.Mutex
	round    uint64    // counts writes
	gathered time.Time // when this one had gathered
	families map[string]*family
	stems    map[string]dto.MetricType // of families that are carried
	losses   []Loss                    // of this write
	key      []byte                    // of the series last looked for
}

// New returns a bridge from g to w, and starts its goroutine, which runs until
// Close. w stays the caller's, to be
// closed after the bridge: live gauges end then.
func New(w *writer.Writer, g prometheus.Gatherer, o Options) *Bridge {
	b := &Bridge{
		gatherer: g, w: w, o: o.withDefaults(),
		stop: make(chan struct{}), done: make(chan struct{}),
		families: map[string]*family{}, stems: map[string]dto.MetricType{},
	}
	go b.run()
	return b
}

func (o Options) withDefaults() Options {
	if o.Interval <= 0 {
		o.Interval = time.Second
	}
	if o.Mode == nil {
		o.Mode = func(string) writer.Mode { return "" }
	}
	if o.OnLoss == nil {
		o.OnLoss = logLoss
	}
	if o.OnError == nil {
		o.OnError = func(err error) { slog.Default().Error("metrics are not written whole", "err", err) }
	}
	return o
}

// Close stops the goroutine, waits for it, and writes a last time: it returns what
// [Bridge.Write] does. A gatherer that hangs makes it hang.
func (b *Bridge) Close() error {
	b.once.Do(func() { close(b.stop) })
	<-b.done
	return b.Write()
}

// Write gathers and writes now. The error joins what the gatherer returned or
// panicked with, and what broke single families: all others are written.
func (b *Bridge) Write() error { return errors.Join(b.writeAndTell()...) }

func (b *Bridge) writeAndTell() []error {
	losses, errs := b.write()
	for _, l := range losses { // without the lock: who is told may write
		b.o.OnLoss(l)
	}
	return errs
}

// run writes until the bridge is closed.
func (b *Bridge) run() {
	defer close(b.done)
	tick := time.NewTicker(b.o.Interval)
	defer tick.Stop()
	told := map[string]bool{}
	for {
		select {
		case <-b.stop:
			return
		case <-tick.C:
			b.tell(told, b.writeAndTell())
		}
	}
}

// maxTold bounds what is remembered of errors whose texts never are the same.
const maxTold = 1000

// tell tells OnError of the errors that it was not told before.
func (b *Bridge) tell(told map[string]bool, errs []error) {
	for _, err := range apart(errs) {
		text := gist(err)
		if told[text] {
			continue
		}
		if len(told) >= maxTold {
			clear(told)
		}
		told[text] = true
		b.o.OnError(err)
	}
}

// apart takes apart the errors that client_golang makes one.
func apart(errs []error) (out []error) {
	for _, err := range errs {
		var several prometheus.MultiError
		if errors.As(err, &several) {
			out = append(out, apart(several)...)
		} else {
			out = append(out, err)
		}
	}
	return out
}

// gist returns the first line of the text without its digits: values, addresses and
// goroutines make one error many.
func gist(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' {
			return -1
		}
		return r
	}, line)
}

// write gathers and writes. The losses are for OnLoss.
func (b *Bridge) write() ([]Loss, []error) {
	b.writing.Lock()
	defer b.writing.Unlock()
	b.round++
	gathered, err := b.gather()
	b.gathered = time.Now()
	var errs []error
	if err != nil {
		errs = append(errs, err)
	}
	for _, mf := range gathered {
		if err := b.carryFamily(mf); err != nil {
			errs = append(errs, err)
		}
	}
	if err == nil {
		b.missGauges()
	}
	losses := b.losses
	b.losses = nil
	return losses, errs
}

func (b *Bridge) gather() (gathered []*dto.MetricFamily, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("gather: panic: %v\n%s", p, debug.Stack())
		}
	}()
	return b.gatherer.Gather()
}

// carryFamily writes one family. What panics, such as Options.Mode or a mode that
// there is not, costs this family only.
func (b *Bridge) carryFamily(mf *dto.MetricFamily) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("write family %q: panic: %v\n%s", mf.GetName(), p, debug.Stack())
		}
	}()
	if b.o.Skip != nil && b.o.Skip(mf.GetName()) {
		return nil
	}
	f := b.family(mf)
	switch {
	case mf.GetType() != f.typ:
		b.lose(f, lostType)
		return nil
	case f.kind == "":
		return nil // that was said when it was new
	case mf.GetUnit() != "":
		b.lose(f, lostUnit)
	}
	for _, m := range mf.GetMetric() {
		b.carryMetric(f, m)
	}
	return nil
}

// family returns the family of that name as it was gathered first.
func (b *Bridge) family(mf *dto.MetricFamily) *family {
	f := b.families[mf.GetName()]
	if f != nil {
		return f
	}
	f = &family{name: mf.GetName(), help: mf.GetHelp(), typ: mf.GetType(), series: map[string]*series{}}
	var lost losses
	switch f.kind, lost = f.file(b.o.Mode); {
	case f.kind == "":
	case b.w.Registered(f.name):
		f.kind, lost = "", lostWriters
	case !b.claim(f):
		f.kind, lost = "", lostClash
	}
	b.lose(f, lost)
	b.families[f.name] = f
	return f
}

// claim finds what the file calls the family, if readers take that for no other: a
// counter goes without its _total, as client_python's, unless another has that name.
func (b *Bridge) claim(f *family) bool {
	for _, stem := range []string{stemOf(f.name, f.typ), f.name} {
		if typ, taken := b.stems[stem]; !taken || typ == f.typ {
			b.stems[stem], f.stem = f.typ, stem
			return true
		}
	}
	return false
}

func (b *Bridge) carryMetric(f *family, m *dto.Metric) {
	s := b.series(f, m)
	switch {
	case s.carrier == nil:
		return // that was said when it was new
	case s.round == b.round:
		b.lose(f, lostDuplicate)
		return
	case m.TimestampMs != nil:
		b.lose(f, lostTimestamp)
	}
	s.round = b.round
	b.lose(f, s.carrier.carry(m, b.gathered))
}

// series returns the series of m, looked up without allocating.
func (b *Bridge) series(f *family, m *dto.Metric) *series {
	labels := sorted(m.GetLabel())
	b.key = appendLabels(b.key[:0], labels)
	s := f.series[string(b.key)]
	if s == nil {
		s = &series{}
		if lost := f.refuses(labels); lost != 0 {
			b.lose(f, lost)
		} else {
			s.carrier = newCarrier(place{b.w, f, labelMap(labels)})
		}
		f.series[string(b.key)] = s
	}
	return s
}

// missGauges reports gauges that this round has not.
func (b *Bridge) missGauges() {
	for _, f := range b.families {
		if f.typ != dto.MetricType_GAUGE || f.told&lostGauge != 0 {
			continue
		}
		for _, s := range f.series {
			if s.carrier != nil && s.round != b.round {
				b.lose(f, lostGauge)
			}
		}
	}
}

// lose keeps losses for OnLoss, those that are new.
func (b *Bridge) lose(f *family, l losses) {
	for _, reason := range (l &^ f.told).reasons() {
		b.losses = append(b.losses, Loss{f.name, reason})
	}
	f.told |= l
}

// sorted returns labels in the order of their names, as client_golang has them.
func sorted(labels []*dto.LabelPair) []*dto.LabelPair {
	byName := func(a, b *dto.LabelPair) int { return strings.Compare(a.GetName(), b.GetName()) }
	if slices.IsSortedFunc(labels, byName) {
		return labels
	}
	return slices.SortedFunc(slices.Values(labels), byName)
}

// appendLabels appends text that no other labels have.
func appendLabels(b []byte, labels []*dto.LabelPair) []byte {
	for _, l := range labels {
		for _, s := range [...]string{l.GetName(), l.GetValue()} {
			b = append(binary.AppendUvarint(b, uint64(len(s))), s...)
		}
	}
	return b
}

func labelMap(labels []*dto.LabelPair) writer.Labels {
	out := make(writer.Labels, len(labels))
	for _, l := range labels {
		out[l.GetName()] = l.GetValue()
	}
	return out
}
