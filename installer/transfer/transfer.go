// Package transfer brings the root file system to this machine, and passes it on to others. The release's chunk table and
// addresses come in, and what a server plans while it goes on; a blob that grows goes out, and chunks to machines that show
// a ticket.
//
// The three transports are HTTP from the origin and its mirrors, relay from machines that install too, and BitTorrent; they
// feed one blob, mixed as the server plans, each takes over from the others, and the origin is the last resort. A server
// that falls silent holds up nothing: what it planned last stays in force.
//
// It never decides who is read from where there is a server, and never hands a byte to anybody that the blob has not verified.
package transfer

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"imgbuild/image"
	"imgbuild/image/plan"
	metainfo "imgbuild/image/torrent"
	"imgbuild/installer/blob"
	"imgbuild/installer/control"
	"imgbuild/installer/fetch"
	"imgbuild/installer/relay"
	"imgbuild/installer/report"
	"imgbuild/installer/spill"
	"imgbuild/installer/torrent"
)

// Options say what to bring, and how. Report, Fetcher, Size, Chunks and URLs are required.
type Options struct {
	Report  report.Reporter
	Fetcher *fetch.Fetcher
	Size    int64 // bytes
	Chunks  *image.ChunkTable
	// URLs are the file's addresses: the origin, then its mirrors.
	URLs []string
	// Transport is the way that was asked for. Without a server, TransportRelay is TransportHTTP.
	Transport plan.Transport
	// Memory is how much of the file is held at a time, in bytes.
	Memory int64
	// Spill is a directory of a file system that chunks go to when there are others that need them and memory does not hold
	// them; empty for none. SpillReserve bytes are left free there.
	Spill        string
	SpillReserve int64
	// Store is where all chunks are kept in any case, in place of Spill; nil for none. It is the caller's to close.
	Store blob.Store
	// Server plans, and is told how it goes, with Token; nil without one.
	Server *control.Client
	Token  string
	// Metainfo is rootfs.torrent, which TransportTorrent needs.
	Metainfo []byte
	Ceiling  Ceiling
}

// tierOrigin is the tier of the origin and its mirrors, after all machines that the server may name.
const tierOrigin = 1000

// Transfer is one root file system on its way.
type Transfer struct {
	o       Options
	b       *blob.Blob
	fetch   *fetch.Transfer
	relay   *relay.Server   // nil without a server
	torrent *torrent.Client // nil but with TransportTorrent
	meter   *report.Meter
	ceiling *ceiling

	mu     sync.Mutex
	spill  *spill.Store // nil until others need chunks
	plan   plan.Upstreams
	done   bool
	stays  bool
	silent bool // the server, when it was asked last
	// byTorrent is how many bytes BitTorrent had brought at torrentAt, when it brought some last.
	byTorrent int64
	torrentAt time.Time

	cancel context.CancelFunc
	ended  chan struct{} // closed when Run has returned; nil before it
}

// New prepares a transfer. Run begins it.
func New(o Options) (*Transfer, error) {
	b, err := blob.New(o.Size, o.Chunks, o.Memory)
	if err != nil {
		return nil, err
	}
	if len(o.URLs) == 0 {
		return nil, errors.New("get the root file system: there is no address to get it from")
	}
	if o.Store != nil {
		b.Keep(o.Store)
		o.Spill = ""
	}
	now := time.Now()
	o.Ceiling.Size = o.Size
	t := &Transfer{
		o: o, b: b, fetch: o.Fetcher.NewTransfer(b), meter: report.NewMeter("rootfs", o.Size), ceiling: newCeiling(o.Ceiling, now),
		torrentAt: now,
	}
	if o.Server == nil && o.Transport != plan.TransportTorrent {
		return t, nil
	}
	if o.Server != nil {
		if t.relay, err = relay.New(relay.Options{Blob: b, Report: o.Report}); err != nil {
			o.Report.Warn("%v; this machine passes nothing on", err)
		}
	}
	if o.Transport == plan.TransportTorrent {
		to := torrent.Options{Blob: b, Metainfo: o.Metainfo, Report: o.Report}
		if o.Server != nil {
			to.Trackers = []string{o.Server.Server + metainfo.AnnouncePath}
		}
		if t.torrent, err = torrent.New(to); err != nil {
			o.Report.Warn("%v; the root file system comes over HTTP", err)
			t.torrent = nil
		}
	}
	return t, nil
}

// Blob is what the transfer feeds.
func (t *Transfer) Blob() *blob.Blob { return t.b }

// origins are the release's own addresses.
func (t *Transfer) origins() []fetch.Source {
	list := make([]fetch.Source, len(t.o.URLs))
	for i, u := range t.o.URLs {
		list[i] = fetch.Source{ID: "mirror-" + strconv.Itoa(i), URL: u, Kind: plan.SourceOrigin, Tier: tierOrigin, Ordered: t.o.Transport == plan.TransportRelay}
	}
	list[0].ID = "origin"
	return list
}

// Run feeds the blob until Close, or until that failed for good, which the blob then knows too.
func (t *Transfer) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	t.mu.Lock()
	t.cancel, t.ended = cancel, make(chan struct{})
	ended := t.ended
	t.mu.Unlock()
	defer close(ended)
	if t.o.Server == nil || !t.ask(ctx, firstAnswer) {
		t.use()
	}
	// These end with ctx, and their failures are no reason to stop.
	beside := []func(context.Context){t.show, t.steer}
	if t.relay != nil {
		beside = append(beside, t.serve)
	}
	if t.torrent != nil {
		beside = append(beside, t.swarm)
	}
	var wg sync.WaitGroup
	for _, f := range beside {
		wg.Go(func() { f(ctx) })
	}
	err := t.feed(ctx)
	if err != nil {
		t.b.Fail(err)
	}
	cancel()
	wg.Wait()
	if errors.Is(t.b.Err(), blob.ErrClosed) {
		return nil
	}
	return err
}

// feed fetches over HTTP until the blob ends, or until nobody can be asked any more and BitTorrent brings nothing either.
func (t *Transfer) feed(ctx context.Context) error {
	for said := false; ; said = true {
		err := t.fetch.Run(ctx)
		if err == nil || ctx.Err() != nil || t.b.Err() != nil || t.torrent == nil || t.torrentSilence(time.Now()) > patience {
			return err
		}
		if !said {
			t.o.Report.Warn("%v; BitTorrent goes on alone", err)
		}
		select {
		case <-ctx.Done():
		case <-t.b.Ended():
		case <-time.After(torrentQuiet):
		}
	}
}

// serve runs the relay.
func (t *Transfer) serve(ctx context.Context) {
	if err := t.relay.Run(ctx); err != nil && ctx.Err() == nil {
		t.o.Report.Warn("pass the root file system on to other machines: %v; they ask elsewhere", err)
	}
}

// swarm runs BitTorrent. Should it fail, steer gives the work to HTTP.
func (t *Transfer) swarm(ctx context.Context) {
	if err := t.torrent.Run(ctx); err != nil && ctx.Err() == nil && t.b.Err() == nil {
		t.o.Report.Warn("BitTorrent: %v; the root file system comes over HTTP", err)
	}
}

// Close ends the transfer and frees what it holds.
func (t *Transfer) Close() error {
	err := t.b.Close()
	t.mu.Lock()
	cancel, ended, store := t.cancel, t.ended, t.spill
	t.spill = nil
	t.mu.Unlock()
	if cancel != nil {
		cancel()
		<-ended
	}
	if t.relay != nil {
		err = errors.Join(err, t.relay.Close())
	}
	if t.torrent != nil {
		t.torrent.Close()
	}
	if store != nil {
		err = errors.Join(err, store.Close())
	}
	return err
}

// Sources are where bytes came from.
func (t *Transfer) Sources() []plan.SwarmSource {
	list := t.fetch.Sources()
	if t.torrent != nil {
		list = append(list, t.torrent.Sources()...)
	}
	return list
}

// show reports progress once a second, until all has come.
func (t *Transfer) show(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for complete := false; !complete; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		complete = t.progress(time.Now())
	}
}

// progress reports once, and whether everything has come.
func (t *Transfer) progress(now time.Time) bool {
	s := t.b.Stats()
	t.meter.Set(s.Arrived)
	p := t.meter.Progress()
	p.Limit, p.LimitBy, _ = t.ceiling.percent(s.Arrived, now)
	p.Mix = mix(t.Sources())
	t.o.Report.Progress(p)
	return s.Arrived == s.Size
}

// mix sums sources up by their kind, the largest first.
func mix(sources []plan.SwarmSource) []report.Share {
	var list []report.Share
	for _, kind := range []plan.SourceKind{plan.SourceRelay, plan.SourceTorrent, plan.SourceOrigin} {
		share := report.Share{From: string(kind)}
		for _, s := range sources {
			if s.Kind == kind {
				share.Bytes += s.Got
			}
		}
		if share.Bytes > 0 {
			list = append(list, share)
		}
	}
	for i := 1; i < len(list); i++ {
		for j := i; j > 0 && list[j].Bytes > list[j-1].Bytes; j-- {
			list[j], list[j-1] = list[j-1], list[j]
		}
	}
	return list
}

// Summary is one sentence of where the bytes came from.
func (t *Transfer) Summary() string {
	s := t.b.Stats()
	text := fmt.Sprintf("%s of %s came", report.Bytes(s.Arrived), report.Bytes(s.Size))
	for i, m := range mix(t.Sources()) {
		sep := ", "
		if i == 0 {
			sep = ": "
		}
		text += fmt.Sprintf("%s%s by %s", sep, report.Bytes(m.Bytes), m.From)
	}
	if s.Bad > 0 {
		text += fmt.Sprintf("; %d chunks were wrong and came again", s.Bad)
	}
	return text
}
