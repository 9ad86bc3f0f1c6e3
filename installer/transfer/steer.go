package transfer

import (
	"context"
	"errors"
	"time"

	"imgbuild/image/plan"
	"imgbuild/installer/control"
	"imgbuild/installer/fetch"
	"imgbuild/installer/report"
	"imgbuild/installer/spill"
)

// Limits of what waits for the server, or for others.
const (
	firstAnswer  = 3 * time.Second // to hear from whom to read before the origin is asked
	answerLimit  = 5 * time.Second // for each question after it
	torrentQuiet = 5 * time.Second // without a byte by BitTorrent, until the origin is asked too
	patience     = 3 * time.Minute // without a byte by BitTorrent where nobody else is left
	lingerLimit  = 2 * time.Minute // to stay for others
	// lingerAlone is how long to stay after the last reader where the server does not answer: whoever waits for another machine
	// that has got stuck asks this one within half of it.
	lingerAlone = 30 * time.Second
	stayAlone   = 15 * time.Minute // of a machine that stays, without an answer of the server
)

// ask tells the server how it goes and does what it answers. It reports whether there was an answer.
func (t *Transfer) ask(ctx context.Context, limit time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var u plan.Upstreams
	err := t.o.Server.Post(ctx, plan.SwarmPath, t.o.Token, t.state(), &u)
	if err == nil {
		err = u.Validate()
	}
	if err != nil {
		t.unanswered(err)
		return false
	}
	t.mu.Lock()
	if len(u.Upstreams) == 0 {
		u.Upstreams = t.plan.Upstreams // it is to go on as it does
	}
	t.plan, t.silent = u, false
	t.mu.Unlock()
	t.apply(u)
	return true
}

// unanswered says once what is wrong with the server.
func (t *Transfer) unanswered(err error) {
	t.mu.Lock()
	said := t.silent
	t.silent = true
	t.mu.Unlock()
	var refused *control.Refused
	switch {
	case said:
	case errors.As(err, &refused):
		t.o.Report.Warn("ask the server from whom to read the root file system: %v; going on with what is known", err)
	default:
		t.o.Report.Warn("ask the server from whom to read the root file system: it does not answer (%v); going on with what is known, and asking again", err)
	}
}

// state is what the server is told.
func (t *Transfer) state() plan.Swarm {
	s := t.b.Stats()
	t.mu.Lock()
	done, stays := t.done, t.stays
	t.mu.Unlock()
	t.meter.Set(s.Arrived)
	out := plan.Swarm{
		Schema: plan.Schema, Total: s.Size, Got: s.Arrived, Held: s.Held, Rate: t.meter.Progress().Rate, Full: s.Full,
		Done: done || s.Arrived == s.Size, Stays: stays, Sources: t.Sources(),
	}
	if t.relay != nil {
		r := t.relay.Stats()
		out.Port, out.Sent, out.SendRate = t.relay.Port(), r.Sent, r.Rate
	}
	if t.torrent != nil {
		out.PeerPort, out.PeerID = t.torrent.PeerPort(), t.torrent.PeerID()
	}
	if out.Sources == nil {
		out.Sources = []plan.SwarmSource{}
	}
	return out
}

// apply does what the server plans.
func (t *Transfer) apply(u plan.Upstreams) {
	if t.relay != nil {
		if len(u.Secret) > 0 {
			t.relay.SetSecret(u.Secret)
		}
		t.relay.SetRate(u.SendRate)
	}
	t.fetch.SetRate(u.Rate)
	if t.torrent != nil {
		t.torrent.SetPeers(u.Peers)
		t.torrent.SetRates(u.Rate, u.SendRate)
	}
	t.keep(u.Keep)
	t.use()
}

// keep makes what memory does not hold stay on the disk, or no longer.
func (t *Transfer) keep(wanted bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.spill != nil && wanted:
		t.b.Keep(t.spill)
		return
	case t.spill != nil:
		t.b.Keep(nil)
		return
	case !wanted || t.o.Spill == "" || t.o.Memory >= t.o.Size || t.b.Err() != nil:
		return
	}
	store, err := spill.New(spill.Options{Dir: t.o.Spill, Size: t.o.Size, Chunks: t.o.Chunks, Reserve: t.o.SpillReserve, Report: t.o.Report})
	if err != nil {
		t.o.Report.Warn("%v; other machines read from this one only what its memory holds", err)
		t.o.Spill = ""
		return
	}
	t.spill = store
	t.b.Keep(store)
}

// use gives the fetcher the sources that are to be read from now.
func (t *Transfer) use() {
	t.mu.Lock()
	u := t.plan
	t.mu.Unlock()
	if t.torrent != nil && t.torrentSilence(time.Now()) < torrentQuiet {
		t.fetch.Use(nil)
		return
	}
	t.fetch.Use(sources(u.Upstreams, t.origins(), t.o.Transport))
}

// sources are what the server plans, in its order, the origin and its mirrors together; and the release's own addresses where it
// names none. Machines that it names after the origin may read from this one, so they come after it in any case: also where it sends
// whole files only, which otherwise come last.
func sources(planned []plan.Upstream, own []fetch.Source, transport plan.Transport) []fetch.Source {
	var list []fetch.Source
	origin := -1 // the tier
	for i, u := range planned {
		s := fetch.Source{ID: u.ID, URL: u.URL, Ticket: u.Ticket, Kind: u.Kind, Rate: u.Rate, Tier: i}
		switch {
		case u.Kind == plan.SourceOrigin:
			if origin < 0 {
				origin = i
			}
			s.Tier, s.Ordered = origin, transport == plan.TransportRelay
		case transport != plan.TransportRelay:
			continue
		case origin >= 0:
			s.Tier += fetch.LastResort
		}
		list = append(list, s)
	}
	if origin < 0 {
		list = append(list, own...)
	}
	return list
}

// torrentSilence is how long BitTorrent has brought nothing; 0 where nothing is missing.
func (t *Transfer) torrentSilence(now time.Time) time.Duration {
	got := int64(0)
	for _, s := range t.torrent.Sources() {
		got += s.Got
	}
	s := t.b.Stats()
	t.mu.Lock()
	defer t.mu.Unlock()
	if got > t.byTorrent || s.Arrived == s.Size {
		t.byTorrent, t.torrentAt = got, now
	}
	return now.Sub(t.torrentAt)
}

// steer asks the server from time to time, and changes the sources when BitTorrent falls silent or is back.
func (t *Transfer) steer(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	next, quiet := time.Now(), false
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := time.Now()
		if t.torrent != nil && t.torrentSilence(now) >= torrentQuiet != quiet {
			quiet = !quiet
			t.use()
		}
		if t.o.Server == nil || now.Before(next) {
			continue
		}
		t.ask(ctx, answerLimit)
		t.mu.Lock()
		pause := time.Duration(t.plan.AskSeconds * float64(time.Second))
		t.mu.Unlock()
		if pause <= 0 {
			pause = plan.SwarmSeconds * time.Second
		}
		next = now.Add(pause)
	}
}

// Linger says that this machine needs nothing more, and stays while the server says that others need it, or, where the server does
// not answer, until nobody has read from it for a while: for two minutes at most. It returns early when ctx ends.
func (t *Transfer) Linger(ctx context.Context) {
	t.mu.Lock()
	t.done = true
	t.mu.Unlock()
	if t.o.Server == nil || t.relay == nil {
		return
	}
	begun, said := time.Now(), false
	t.ask(ctx, firstAnswer) // now, as its last answer is from before the end
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for read := begun; ; {
		now, r := time.Now(), t.relay.Stats()
		if r.Readers > 0 {
			read = now
		}
		t.mu.Lock()
		stay := t.plan.Linger
		if t.silent {
			stay = t.plan.Keep && now.Sub(read) < lingerAlone
		}
		t.mu.Unlock()
		if !stay || now.Sub(begun) >= lingerLimit {
			break
		}
		if !said {
			t.o.Report.Info("other machines may still read from this one, which stays for them for %s at most; %d read now", report.Duration(lingerLimit), r.Readers)
			said = true
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
	if said {
		t.o.Report.Info("no other machine needs this one any more: it passed on %s", report.Bytes(t.relay.Stats().Sent))
	}
}

// Stay says that this machine needs nothing more and has all of it for as long as it runs, and serves others until the server says
// that none needs it, or has not answered for a quarter of an hour, or ctx ends.
func (t *Transfer) Stay(ctx context.Context) {
	t.mu.Lock()
	t.done, t.stays = true, true
	t.mu.Unlock()
	if t.o.Server == nil || t.relay == nil {
		return
	}
	t.ask(ctx, answerLimit)
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for heard := time.Now(); ; {
		t.mu.Lock()
		keep := t.plan.Keep
		if !t.silent {
			heard = time.Now()
		}
		t.mu.Unlock()
		if !keep && t.relay.Stats().Readers == 0 || time.Since(heard) > stayAlone {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
