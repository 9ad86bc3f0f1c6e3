//go:build !notorrent

package torrent

import (
	"context"
	"slices"
	"time"

	library "github.com/anacrolix/torrent"
	pp "github.com/anacrolix/torrent/peer_protocol"

	"imgbuild/image"
	metafile "imgbuild/image/torrent"
)

// How pieces are asked for.
//
// The library sends requests to a peer when none is outstanding, or when the peer, or the state of a piece that the peer
// has, is news; each time at most twice as many as it added the last time, less those outstanding, and none at all after a time when
// it added none. Peers of this library serve the blocks of all outstanding requests in random order. So a sequential reader with a long readahead gets
// whole windows in random order, with a pause after each, and its successors in a chain wait for each; a have message for a
// piece that is already wanted makes it worse.
//
// Therefore, where one connected peer has a piece, pieces are wanted a few at a time: the next ones shortly before the last have
// come, and not before the peer has them; and one of them is made news, so that their requests are sent while others are
// outstanding, and no fewer than those. How shortly before is measured: too late leaves the pipe empty until the requests
// get through, too early mixes blocks of more pieces than needed. Where several peers have it, the library shares the work between
// them better when it may choose from some.
const (
	// leastAhead and mostAhead bound how many bytes are outstanding when the next pieces are asked for. The most is for machines
	// whose processors are all busy with unpacking.
	leastAhead = 1 << 14
	mostAhead  = 8 * metafile.PieceSize
	// window is how many pieces are wanted when several peers have them.
	window = 8
	// patience is how long nothing may come before the library is made to look again whom to ask: longer than other clients take to
	// answer (transmission does it twice a second).
	patience = 2 * time.Second
)

// late notes that the pipe was empty before the next piece came though that could have been asked for earlier. The caller holds the lock.
func (c *Client) late() { c.ahead = min(c.ahead+c.ahead/2, mostAhead) }

// early notes that it was not. The caller holds the lock.
func (c *Client) early() { c.ahead = max(c.ahead-c.ahead/32, leastAhead) }

// demand is the priority of all wanted pieces: with it the library takes them in the order of the file.
const demand = library.PiecePriorityReadahead

// want makes the library ask for pieces of claimed chunks, the oldest claim first.
func (c *Client) want(peers []peer) {
	list, news := c.choose(peers)
	for n, k := range list {
		p := c.torrent.Piece(k)
		if n < len(list)-1 || !news {
			p.SetPriority(demand)
			continue
		}
		c.tell(k, func() { p.SetPriority(demand) })
	}
}

// tell makes a piece news: the library does not know whether it is here, and then it does. In between, change is called.
func (c *Client) tell(k int, change func()) {
	p := c.torrent.Piece(k)
	for _, unknown := range []int{k, -1} {
		c.mu.Lock()
		c.unknown = unknown
		c.mu.Unlock()
		p.UpdateCompletion()
		if unknown == k {
			change()
		}
	}
}

// nudge makes the library look again whom to ask when nothing comes any more: after a peer refused something, it would wait for news.
func (c *Client) nudge() {
	c.mu.Lock()
	first := -1
	since := time.Since(c.nudged)
	if c.missing > 0 && (c.refused || time.Since(c.lastByte) > patience && since > patience) {
		c.nudged, c.refused = time.Now(), false
		for _, j := range c.order {
			for n := 0; n < j.pieces && first < 0; n++ {
				if k := j.i*chunkPieces + n; c.pieces[k] == wanted {
					first = k
				}
			}
		}
	}
	c.mu.Unlock()
	if first >= 0 {
		c.tell(first, func() {})
	}
}

// pokes are how long nothing may come before peers are poked, at first and at most.
const firstPoke, lastPoke = 25 * time.Millisecond, time.Second

// clientName and seedName are what imgbuild's clients and imgserve's seed call themselves (BEP 10).
const clientName, seedName = "imgbuild", "imgserve"

// pokeMessage asks for a part of the metainfo that is far beyond its end (BEP 9): whoever gets it answers that there is none.
const pokeMessage = "d8:msg_typei0e5:piecei1048576ee"

// untilPoke is how long from now on peers are to be poked, and 0 if nothing is expected of them.
func (c *Client) untilPoke() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.missing == 0 {
		return 0
	}
	if c.lastByte.After(c.poked) {
		c.pause = firstPoke
	}
	since := c.lastByte
	if c.poked.After(since) {
		since = c.poked
	}
	return max(time.Until(since.Add(c.pause)), time.Millisecond)
}

// poke sends peers a message that makes them answer. The library's goroutine that writes to a peer can miss that there is something to be
// written, when it is told so just before it falls asleep; it then sleeps on until it is told of something else. This wakes
// it on both sides. Other clients than those of imgbuild do not have that fault, and some end the connection when they are asked so.
func (c *Client) poke(peers []peer) {
	c.mu.Lock()
	due := c.missing > 0 && time.Since(c.lastByte) >= c.pause && time.Since(c.poked) >= c.pause
	if due {
		c.poked, c.pause = time.Now(), min(2*c.pause, lastPoke)
	}
	c.mu.Unlock()
	if !due {
		return
	}
	for _, p := range peers {
		if name, _ := p.conn.PeerClientName.Load().(string); name != clientName && name != seedName {
			continue
		}
		_ = p.conn.WriteExtendedMessage(pp.ExtensionNameMetadata, []byte(pokeMessage)) // a peer without that extension cannot be poked
	}
}

// choose returns the pieces that are to be asked for now, and whether the library has to be told that this is news.
func (c *Client) choose(peers []peer) (list []int, news bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	most, busy := 0, c.missing > 0
	if c.missing <= c.ahead {
		most = (c.ahead + metafile.PieceSize - 1) / metafile.PieceSize
	}
	missing := 0
	for _, k := range c.candidates() {
		owners := 0
		for _, p := range peers {
			if p.has.Contains(uint32(k)) {
				owners++
			}
		}
		if owners > 1 && c.missing+missing <= (window-1)*metafile.PieceSize || owners == 1 && len(list) < most {
			news = news || owners == 1
			list = append(list, k)
			missing += c.pieceLength(k)
		} else if owners > 0 {
			break
		}
	}
	if len(list) == 0 {
		c.due = c.due && most == 0 // it is not us who is late
		return nil, false
	}
	if c.due && !busy {
		c.late()
	}
	c.due, c.fresh = false, nil
	if !busy {
		c.lastByte = time.Now()
	} else if news {
		c.fresh = list
	}
	for _, k := range list {
		c.set(k, wanted)
	}
	c.missing += missing
	return list, busy && news
}

// candidates are the pieces of claimed chunks that are not wanted yet. The caller holds the lock.
func (c *Client) candidates() (list []int) {
	for _, j := range c.order {
		for n := range j.pieces {
			if k := j.i*chunkPieces + n; c.pieces[k] == idle {
				list = append(list, k)
			}
		}
	}
	return list
}

func (c *Client) pieceLength(k int) int {
	return int(min(metafile.PieceSize, c.size-int64(k)*metafile.PieceSize))
}

// settle tells the library of pieces whose state is no longer what it knows.
func (c *Client) settle() {
	c.mu.Lock()
	list := c.settled
	c.settled = nil
	c.mu.Unlock()
	for _, k := range list {
		c.mu.Lock()
		is := c.pieces[k]
		c.mu.Unlock()
		if is != wanted {
			c.torrent.Piece(k).SetPriority(library.PiecePriorityNone)
		}
		c.torrent.Piece(k).UpdateCompletion()
	}
}

// beckon makes the library look for peers, and take them, while it has nothing and wants nothing: it would not otherwise. The piece
// that it wants for show is one that no peer has. Should it come all the same, it is not kept.
func (c *Client) beckon(peers []peer) {
	last := len(c.pieces) - 1
	there := slices.ContainsFunc(peers, func(p peer) bool { return p.has.Contains(uint32(last)) })
	c.mu.Lock()
	lure := c.good.IsEmpty() && c.missing == 0 && !there
	changed := lure != c.lure && c.pieces[last] != wanted
	if changed {
		c.lure = lure
	}
	c.mu.Unlock()
	if !changed {
		return
	}
	priority := library.PiecePriorityNone
	if lure {
		priority = library.PiecePriorityNormal
	}
	c.torrent.Piece(last).SetPriority(priority)
}

// claim takes chunks from the blob while there are peers that have something, until ctx ends.
func (c *Client) claim(ctx context.Context) {
	for {
		c.mu.Lock()
		free := c.most - len(c.order)
		may := c.ready && free > 0 && c.down == nil
		claimCtx, stop := context.WithCancel(ctx)
		c.stopClaim = stop
		c.mu.Unlock()
		if !may {
			stop()
			select {
			case <-c.claiming:
				continue
			case <-ctx.Done():
				return
			}
		}
		first, n, err := c.o.Blob.Claim(claimCtx, free)
		stop()
		if err != nil && claimCtx.Err() == nil || ctx.Err() != nil {
			if err == nil {
				c.o.Blob.Unclaim(first, n)
			}
			return
		}
		if err != nil {
			continue
		}
		c.mu.Lock()
		down := c.down != nil
		for i := first; i < first+n && !down; i++ {
			c.begin(i)
		}
		c.mu.Unlock()
		if down {
			c.o.Blob.Unclaim(first, n)
		}
		c.look()
	}
}

// begin starts the job of a claimed chunk. The caller holds the lock.
func (c *Client) begin(i int) {
	_, n := image.Chunk(c.size, i)
	j := &job{i: i, begun: time.Now(), pieces: int((n + metafile.PieceSize - 1) / metafile.PieceSize)}
	c.jobs[i], c.order = j, append(c.order, j)
	for n := range j.pieces {
		if k := i*chunkPieces + n; c.pieces[k] == have { // it was evicted from the blob
			c.set(k, idle)
			c.settled = append(c.settled, k)
		}
	}
}
