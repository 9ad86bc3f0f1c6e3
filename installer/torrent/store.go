//go:build !notorrent

package torrent

import (
	"context"
	"errors"
	"io"
	"slices"
	"time"

	"github.com/anacrolix/torrent/metainfo"
	"github.com/anacrolix/torrent/storage"

	"imgbuild/image"
	metafile "imgbuild/image/torrent"
)

// chunkPieces are the pieces that make a chunk.
const chunkPieces = image.ChunkSize / metafile.PieceSize

// pieceState is what is known of a piece here.
type pieceState byte

const (
	idle   pieceState = iota // not here, and not asked for
	wanted                   // of a claimed chunk, and asked for
	have                     // its SHA-1 was right: in a claimed chunk, or in the blob
)

// job is a chunk that the blob promised to us.
type job struct {
	i      int
	begun  time.Time
	data   []byte           // the chunk, as far as it is here; nil before the first byte
	came   [chunkPieces]int // bytes of each piece that are in data
	pieces int              // how many it has
	here   int              // how many of them are good
}

// held is a chunk that is being read by peers.
type held struct {
	i    int
	data []byte
}

// store is the blob as the library sees it. Its methods are called by the library's goroutines, some with its lock held: they
// never call the library.
type store struct{ c *Client }

// OpenTorrent implements storage.ClientImpl.
func (s store) OpenTorrent(context.Context, *metainfo.Info, metainfo.Hash) (storage.TorrentImpl, error) {
	return storage.TorrentImpl{
		Piece: func(p metainfo.Piece) storage.PieceImpl { return piece{s.c, p.Index(), int(p.Length())} },
		Close: func() error { return nil },
	}, nil
}

// piece implements storage.PieceImpl.
type piece struct {
	c      *Client
	k      int
	length int
}

// where is the chunk that has the piece, and the piece's offset there.
func (p piece) where() (i, off int) {
	return p.k / chunkPieces, p.k % chunkPieces * metafile.PieceSize
}

// errTorn is a piece of which bytes are missing that the library thinks are here: those that came while the chunk was not
// claimed. The library then asks for all of it again, and blames nobody.
var errTorn = errors.New("a part of the piece was not kept")

// errGone is a piece that is no longer here.
var errGone = errors.New("the piece is not here any more")

// WriteAt takes a block. What comes for a chunk that is not claimed (any more) is dropped.
func (p piece) WriteAt(b []byte, off int64) (int, error) {
	i, start := p.where()
	c := p.c
	c.mu.Lock()
	defer c.mu.Unlock()
	j := c.jobs[i]
	if j == nil || c.pieces[p.k] != wanted {
		return len(b), nil
	}
	if j.data == nil {
		_, n := image.Chunk(c.size, i)
		j.data = c.buffer()[:n]
	}
	copy(j.data[start+int(off):], b)
	j.came[p.k%chunkPieces] += len(b)
	if slices.Contains(c.fresh, p.k) { // the first block of those asked for last
		others := c.missing
		for _, k := range c.fresh {
			others -= c.pieceLength(k)
		}
		if c.fresh = nil; others <= 0 {
			c.late()
		} else {
			c.early()
		}
	}
	before := c.missing
	c.missing -= len(b)
	c.raw += int64(len(b))
	c.in.Set(c.raw)
	c.lastByte = time.Now()
	if before > c.ahead && c.missing <= c.ahead {
		c.due = true
		c.look()
	}
	return len(b), nil
}

// WriteTo gives a complete piece to the one who hashes it.
func (p piece) WriteTo(w io.Writer) (int64, error) {
	i, start := p.where()
	p.c.mu.Lock()
	j := p.c.jobs[i]
	if j == nil || j.data == nil || j.came[p.k%chunkPieces] != p.length {
		p.c.mu.Unlock()
		return 0, errTorn
	}
	data := j.data[start : start+p.length] // nobody writes it any more, and no other uses it: see drop
	p.c.mu.Unlock()
	n, err := w.Write(data)
	return int64(n), err
}

// MarkComplete notes that the SHA-1 was right.
func (p piece) MarkComplete() error {
	i, _ := p.where()
	c := p.c
	c.mu.Lock()
	defer c.mu.Unlock()
	j := c.jobs[i]
	if j == nil || c.pieces[p.k] != wanted {
		return nil
	}
	c.set(p.k, have)
	c.settled = append(c.settled, p.k)
	if j.here++; j.here == j.pieces {
		c.complete = append(c.complete, j)
		signal(c.taking)
	}
	c.look()
	return nil
}

// MarkNotComplete notes that the SHA-1 was wrong, or could not be made: the piece has to come again.
func (p piece) MarkNotComplete() error {
	i, _ := p.where()
	c := p.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if j := c.jobs[i]; j != nil && c.pieces[p.k] == wanted {
		came := &j.came[p.k%chunkPieces]
		c.missing += *came
		*came = 0
	}
	return nil
}

// Completion says whether the piece is here.
func (p piece) Completion() storage.Completion {
	p.c.mu.Lock()
	defer p.c.mu.Unlock()
	return storage.Completion{Ok: p.k != p.c.unknown, Complete: p.c.pieces[p.k] == have}
}

// ReadAt reads for a peer.
func (p piece) ReadAt(b []byte, off int64) (int, error) {
	i, start := p.where()
	start += int(off)
	c := p.c
	c.mu.Lock()
	if c.pieces[p.k] != have {
		c.mu.Unlock()
		return 0, errGone
	}
	data := c.near(i)
	if data != nil {
		n := copy(b, data[start:])
		c.mu.Unlock()
		return n, nil
	}
	buffer := c.buffer()
	c.mu.Unlock()
	// A peer asks for the blocks of a chunk one after the other: the blob is asked once.
	err := c.o.Blob.View(c.ctx, i, 0, func(chunk []byte) error {
		buffer = append(buffer[:0], chunk...)
		return nil
	})
	if err != nil {
		c.mu.Lock()
		c.spare = append(c.spare, buffer)
		c.forget(i)
		c.mu.Unlock()
		return 0, errGone
	}
	n := copy(b, buffer[start:])
	c.mu.Lock()
	c.remember(i, buffer)
	c.mu.Unlock()
	return n, nil
}

// near returns the bytes of chunk i if they need not be read from the blob. The caller holds the lock.
func (c *Client) near(i int) []byte {
	if j := c.jobs[i]; j != nil {
		return j.data
	}
	for _, h := range c.recent {
		if h.i == i {
			return h.data
		}
	}
	return nil
}

// recentChunks bounds how many chunks are at hand for peers that read, besides those in the blob.
const recentChunks = 4

// remember keeps verified bytes of chunk i for peers that read. The caller holds the lock, and gives the buffer away.
func (c *Client) remember(i int, data []byte) {
	if c.near(i) != nil {
		c.spare = append(c.spare, data)
		return
	}
	if len(c.recent) == recentChunks {
		c.spare = append(c.spare, c.recent[0].data)
		c.recent = slices.Delete(c.recent, 0, 1)
	}
	c.recent = append(c.recent, held{i, data})
}

// buffer returns room for a chunk. The caller holds the lock.
func (c *Client) buffer() []byte {
	if k := len(c.spare); k > 0 {
		b := c.spare[k-1]
		c.spare = c.spare[:k-1]
		return b[:cap(b)]
	}
	return make([]byte, image.ChunkSize)
}

// forget notes that the blob does not have chunk i any more. Peers that were told otherwise are refused, one by one. The
// library looks again after a read that failed. The caller holds the lock.
func (c *Client) forget(i int) {
	for k := i * chunkPieces; k < min((i+1)*chunkPieces, len(c.pieces)); k++ {
		if c.pieces[k] == have {
			c.set(k, idle)
			c.settled = append(c.settled, k)
		}
	}
	c.look()
}

// set changes what is known of a piece. The caller holds the lock.
func (c *Client) set(k int, s pieceState) {
	c.pieces[k] = s
	if s == have {
		c.good.Add(uint32(k))
	} else {
		c.good.Remove(uint32(k))
	}
}
