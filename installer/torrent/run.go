//go:build !notorrent

package torrent

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/RoaringBitmap/roaring"
	library "github.com/anacrolix/torrent"

	"imgbuild/image"
	metafile "imgbuild/image/torrent"
	"imgbuild/installer/blob"
)

// extraJobs bounds the chunks that are claimed out of order, because no peer has those that are wanted first.
const extraJobs = 4

// tick is how often what no event tells of is looked at.
const tick = 250 * time.Millisecond

// peer is a connection, and the pieces that it has.
type peer struct {
	conn *library.PeerConn
	has  *roaring.Bitmap
}

// Run feeds the blob, and serves it, until ctx ends, the client is closed or the blob ends; it returns why. It goes on to serve
// when the blob wants nothing more.
func (c *Client) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := context.AfterFunc(c.ctx, func() { cancel(errClosed) })
	defer stop()
	var parts sync.WaitGroup
	parts.Go(func() { c.claim(ctx) })
	parts.Go(func() { c.take(ctx) })
	parts.Go(func() {
		select {
		case <-c.o.Blob.Ended():
			cancel(c.o.Blob.Err())
		case <-ctx.Done():
		}
	})
	c.work(ctx)
	parts.Wait()
	c.mu.Lock()
	c.dropAll()
	c.mu.Unlock()
	c.settle()
	return context.Cause(ctx)
}

// work is the loop that decides, until ctx ends.
func (c *Client) work(ctx context.Context) {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	quiet := time.NewTimer(tick)
	defer quiet.Stop()
	var peers []peer
	c.dial()
	// Not before: a server that plans has heard of this client by now, and the library asks for no peers while it wants no piece.
	c.beckon(nil)
	c.torrent.AddTrackers([][]string{c.trackers})
	for {
		if d := c.untilPoke(); d > 0 {
			quiet.Reset(d)
		}
		select {
		case <-quiet.C:
			c.poke(peers)
			continue
		case <-c.woken:
		case <-c.dialing:
			c.dial()
		case <-ticker.C:
			c.find(ctx)
			c.dial()
			c.stale()
			c.nudge()
		case <-ctx.Done():
			return
		}
		c.settle()
		peers = c.watch()
		c.want(peers)
		c.beckon(peers)
	}
}

// watch looks at the peers: whether one has something that is not here.
func (c *Client) watch() []peer {
	var peers []peer
	for _, conn := range c.torrent.PeerConns() {
		peers = append(peers, peer{conn, conn.PeerPieces()})
	}
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.peers = len(peers)
	for _, p := range peers {
		if p.has.AndCardinality(c.good) < p.has.GetCardinality() {
			c.useful = now
			break
		}
	}
	// A predecessor in a chain has at times what we have, and not more.
	c.ready = c.down == nil && len(peers) > 0 && now.Sub(c.useful) < 2*time.Second && now.After(c.holdOff)
	switch {
	case !c.ready && c.stopClaim != nil:
		c.stopClaim()
	case c.ready && len(c.order) < c.most:
		signal(c.claiming)
	}
	return peers
}

// dialled reports whether a connection was made from here to a peer that has to be among the planned ones: those that a tracker names
// need not be while none are planned. The caller holds the lock.
func (c *Client) dialled(conn *library.PeerConn) bool {
	return conn.Discovery == library.PeerSourceDirect || conn.Discovery == library.PeerSourceTracker && len(c.planned) > 0
}

// dial sees to it that there are connections to the planned peers, and none to those that were planned before, or that a tracker
// named before any were.
func (c *Client) dial() {
	conns := c.torrent.PeerConns()
	c.mu.Lock()
	open := map[netip.AddrPort]bool{}
	var superfluous []*library.PeerConn
	for _, conn := range conns {
		a, err := netip.ParseAddrPort(conn.RemoteAddr.String())
		if err != nil {
			continue
		}
		a = netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
		open[a] = true
		open[netip.AddrPortFrom(a.Addr(), uint16(c.listens[conn]))] = true
		if c.dialled(conn) && !slices.Contains(c.planned, a) {
			superfluous = append(superfluous, conn)
		}
	}
	var wanted []library.PeerInfo
	again := time.Since(c.dialed) >= time.Second
	for _, a := range c.planned {
		if !open[a] && again {
			c.dialed = time.Now()
			wanted = append(wanted, library.PeerInfo{Addr: net.TCPAddrFromAddrPort(a), Source: library.PeerSourceDirect})
		}
	}
	c.mu.Unlock()
	for _, conn := range superfluous {
		conn.Close()
	}
	if len(wanted) > 0 {
		c.torrent.AddPeers(wanted)
	}
}

// take puts chunks that are complete into the blob.
func (c *Client) take(ctx context.Context) {
	for {
		c.mu.Lock()
		var j *job
		if len(c.complete) > 0 {
			j, c.complete = c.complete[0], c.complete[1:]
			if c.jobs[j.i] != j { // it was dropped
				c.mu.Unlock()
				continue
			}
		}
		c.mu.Unlock()
		if j == nil {
			select {
			case <-c.taking:
				continue
			case <-ctx.Done():
				return
			}
		}
		err := c.o.Blob.Put(j.i, j.data)
		c.mu.Lock()
		switch {
		case err == nil:
			c.got += int64(len(j.data))
			c.count(j.i)
			c.finish(j)
			c.remember(j.i, j.data)
			signal(c.claiming)
		case errors.Is(err, image.ErrChunk):
			// Its pieces are those of the metainfo: no other peer would send better ones.
			c.badChunks++
			c.down = errDown(err)
			c.dropAll()
		default:
			c.drop(j)
		}
		down := c.down
		c.mu.Unlock()
		if errors.Is(err, image.ErrChunk) {
			c.o.Report.Warn("BitTorrent is not used any more: %v", down)
		}
		c.look()
	}
}

// finish ends a job. The caller holds the lock.
func (c *Client) finish(j *job) {
	delete(c.jobs, j.i)
	c.order = slices.DeleteFunc(c.order, func(other *job) bool { return other == j })
}

// drop gives up a job, and what came of it. Its data is not used again, as somebody may be hashing it. The caller holds the lock.
func (c *Client) drop(j *job) {
	c.finish(j)
	for n := range j.pieces {
		k := j.i*chunkPieces + n
		if c.pieces[k] == wanted {
			c.missing -= c.pieceLength(k) - j.came[n]
		}
		if c.pieces[k] != idle {
			c.set(k, idle)
			c.settled = append(c.settled, k)
		}
	}
	c.o.Blob.Unclaim(j.i, 1)
}

func (c *Client) dropAll() {
	for len(c.order) > 0 {
		c.drop(c.order[0])
	}
}

// stale looks at what does not go on: chunks that do not come are given back, so that others can fetch them.
func (c *Client) stale() {
	stats := c.torrent.Stats()
	bannedNow := c.client.BadPeerIPs()
	peers := c.watch()
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sent = stats.BytesWrittenData.Int64()
	c.out.Set(c.sent)
	if n := len(bannedNow); n > c.banned {
		c.o.Report.Warn("a BitTorrent peer sent wrong bytes and is not asked any more; there are %d like that now: %v", n, bannedNow)
		c.banned = n
	}
	if len(c.order) == 0 {
		return
	}
	alone := c.o.Silence / 3
	limit := c.o.Silence
	if len(peers) == 0 {
		limit = alone
	}
	since := c.lastByte
	if last := c.order[0].begun; last.After(since) {
		since = last
	}
	if now.Sub(since) > limit {
		c.stalls++
		c.dropAll()
		c.holdOff = now.Add(time.Second)
		return
	}
	for _, j := range slices.Clone(c.order) {
		if now.Sub(j.begun) > alone && !c.owned(j, peers) {
			c.drop(j)
			c.holdOff = now.Add(time.Second)
		}
	}
	if c.missing == 0 {
		c.extra(peers)
	}
}

// owned reports whether each piece of a job is here or at a peer, or was asked for. The caller holds the lock.
func (c *Client) owned(j *job, peers []peer) bool {
	for n := range j.pieces {
		k := j.i*chunkPieces + n
		if c.pieces[k] != have && !slices.ContainsFunc(peers, func(p peer) bool { return p.has.Contains(uint32(k)) }) {
			return false
		}
	}
	return true
}

// extra claims a chunk that peers have, when they have none of those that come first. The caller holds the lock.
func (c *Client) extra(peers []peer) {
	all := roaring.New()
	for _, p := range peers {
		all.Or(p.has)
	}
	all.AndNot(c.good)
	for it := all.Iterator(); it.HasNext() && len(c.order) < c.most+extraJobs; {
		i := int(it.Next()) / chunkPieces
		it.AdvanceIfNeeded(uint32((i + 1) * chunkPieces))
		_, n := image.Chunk(c.size, i)
		j := &job{i: i, pieces: int((n + metafile.PieceSize - 1) / metafile.PieceSize)}
		if c.jobs[i] == nil && c.owned(j, peers) && c.o.Blob.ClaimOne(i) {
			c.begin(i)
			c.look()
			return
		}
	}
}

// find looks for chunks that others put into the blob, so that peers hear of them.
func (c *Client) find(ctx context.Context) {
	arrived := c.o.Blob.Stats().Arrived
	c.mu.Lock()
	var look []int
	for i := 0; arrived > c.known && i*chunkPieces < len(c.pieces); i++ {
		if c.pieces[i*chunkPieces] == idle && c.jobs[i] == nil {
			look = append(look, i)
		}
	}
	c.mu.Unlock()
	for _, i := range look {
		err := c.o.Blob.View(ctx, i, 0, func([]byte) error { return nil })
		if errors.Is(err, blob.ErrWaiting) || errors.Is(err, blob.ErrGone) {
			continue
		}
		if err != nil {
			return
		}
		c.mu.Lock()
		for k := i * chunkPieces; k < min((i+1)*chunkPieces, len(c.pieces)) && c.jobs[i] == nil; k++ {
			if c.pieces[k] == idle {
				c.set(k, have)
				c.settled = append(c.settled, k)
			}
		}
		c.count(i)
		more := arrived > c.known
		c.mu.Unlock()
		if !more {
			return
		}
	}
}

// count notes that chunk i has been in the blob. The caller holds the lock.
func (c *Client) count(i int) {
	if !c.counted[i] {
		_, n := image.Chunk(c.size, i)
		c.counted[i], c.known = true, c.known+n
	}
}
