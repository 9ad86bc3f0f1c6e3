// Package blob is a file that grows while it is read: a size, a chunk table and the chunks that are there now. Fetchers
// ask with Claim which chunks are wanted next and hand them in with Put; readers call ReadAt, which waits for what it
// needs and puts it in front of everything else.
//
// It never holds more memory than it was allowed, never hands out a byte that its chunk's SHA-256 does not vouch for,
// and never does I/O.
//
// Memory is counted in chunks: those present and those promised to a fetcher. Chunks are fetched ahead in the order of
// the file until the allowance is used up. When a reader waits for a chunk and there is no room, chunks that nobody needs
// any more go first (see evict), then those that were fetched furthest ahead; what is evicted is fetched again when it is
// needed. A chunk that a reader waits for is never evicted before that reader has copied it, so every wait ends as long
// as somebody fetches.
package blob

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"imgbuild/image"
)

// ErrClosed is what Claim, Put and ReadAt return after Close.
var ErrClosed = errors.New("the transfer was closed")

// ErrFull is what Put returns for a chunk that was not claimed and for which there is no room.
var ErrFull = errors.New("there is no memory for a chunk that nobody asked for")

// MinMemory is the least allowance that DefaultMemory gives, in bytes.
const MinMemory = 64 << 20

// DefaultMemory is an eighth of the machine's memory, and at least MinMemory; both in bytes.
func DefaultMemory(memoryBytes int64) int64 { return max(memoryBytes/8, MinMemory) }

type state byte

const (
	missing state = iota
	claimed       // promised to a fetcher; its memory is reserved
	present
)

type chunk struct {
	state   state
	arrived bool // it was present at least once
	cold    bool // not to be fetched ahead: it was released, or evicted after it had been read
	queued  bool // it is in the demand queue
	asked   bool // a reader wanted it since it was here last
	pins    int32
	// Bytes read and bytes released, both at most the chunk's length. Ranges are summed up and not remembered: a reader
	// that reads or releases a range twice makes the chunk go early, and it would be fetched again.
	read, released int32
	used           uint64        // when it was read last, by Blob.clock
	data           []byte        // if present
	ready          chan struct{} // closed on arrival; nil while nobody waits
}

// Blob is a growing, verified file. All methods may be called from any goroutine.
type Blob struct {
	size  int64
	table *image.ChunkTable
	limit int // chunks

	mu      sync.Mutex
	chunks  []chunk
	demand  []int            // chunks that readers asked for, first come first served
	cursor  int              // no chunk before it is to be fetched ahead
	reserve int              // chunks present or claimed
	here    map[int]struct{} // chunks present
	free    [][]byte         // buffers of ChunkSize capacity
	clock   uint64
	stats   Stats
	changed chan struct{} // closed when Claim might succeed, then replaced
	ended   chan struct{} // closed by Close and Fail
	err     error         // why ended
}

// Stats are counters for reports; all in bytes but Bad.
type Stats struct {
	Size      int64
	Arrived   int64 // distinct bytes that have been here and were good
	Refetched int64 // bytes that came more than once because they had been evicted
	Held      int64 // memory in use or promised
	Limit     int64 // memory allowed
	Bad       int   // chunks refused for a wrong SHA-256
}

// New returns an empty blob of size bytes that holds at most maxMemory bytes, and at least one chunk.
func New(size int64, table *image.ChunkTable, maxMemory int64) (*Blob, error) {
	if table == nil || table.Size != image.ChunkSize || size <= 0 || size > image.MaxFileSize ||
		int64(len(table.Digests)) != (size+image.ChunkSize-1)/image.ChunkSize {
		return nil, fmt.Errorf("prepare the transfer of %d bytes: the chunk table does not fit that size", size)
	}
	limit := int(min(max(maxMemory/image.ChunkSize, 1), int64(len(table.Digests))))
	return &Blob{
		size: size, table: table, limit: limit, chunks: make([]chunk, len(table.Digests)), here: map[int]struct{}{},
		changed: make(chan struct{}), ended: make(chan struct{}),
	}, nil
}

// Size is the number of bytes of the complete file.
func (b *Blob) Size() int64 { return b.size }

// Stats returns the counters as they are now.
func (b *Blob) Stats() Stats {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.stats
	s.Size, s.Held, s.Limit = b.size, int64(b.reserve)*image.ChunkSize, int64(b.limit)*image.ChunkSize
	return s
}

// Fail ends the transfer: every reader and fetcher that waits, or comes later, gets err. Only the first end counts.
func (b *Blob) Fail(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err != nil {
		return
	}
	b.err = err
	close(b.ended)
	for i := range b.here {
		if b.chunks[i].pins == 0 {
			b.chunks[i].data, b.chunks[i].state = nil, missing
			delete(b.here, i)
		}
	}
	b.free = nil
}

// Close ends the transfer with ErrClosed and frees its memory. It returns the error that ended it before, if any.
func (b *Blob) Close() error {
	b.Fail(ErrClosed)
	if err := b.Err(); err != ErrClosed {
		return err
	}
	return nil
}

// Err is nil while the transfer goes on, then what ended it.
func (b *Blob) Err() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.err
}

// Ended is closed when the transfer has ended.
func (b *Blob) Ended() <-chan struct{} { return b.ended }

// ReadAt implements io.ReaderAt. It waits for the chunks it needs, one after the other, until the transfer ends.
func (b *Blob) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("read at offset %d: it is negative", off)
	}
	if off >= b.size {
		return 0, io.EOF
	}
	var eof error
	if int64(len(p)) > b.size-off {
		p, eof = p[:b.size-off], io.EOF
	}
	n := 0
	for n < len(p) {
		i := int((off + int64(n)) / image.ChunkSize)
		start := off + int64(n) - int64(i)*image.ChunkSize
		data, err := b.acquire(i, int64(len(p)-n)+start)
		if err != nil {
			return n, err
		}
		k := copy(p[n:], data[start:])
		b.unpin(i, k)
		n += k
	}
	return n, eof
}

// acquire waits for chunk i and pins it. The reader will read up to want bytes from the chunk's start on, so the chunks
// that follow are put in demand too.
func (b *Blob) acquire(i int, want int64) ([]byte, error) {
	b.mu.Lock()
	if b.err != nil {
		defer b.mu.Unlock()
		return nil, b.err
	}
	c := &b.chunks[i]
	c.pins++
	if c.state != present {
		if c.ready == nil {
			c.ready = make(chan struct{})
		}
		ready := c.ready
		b.ask(i, i+int((want-1)/image.ChunkSize))
		b.mu.Unlock()
		select {
		case <-ready:
		case <-b.ended:
		}
		b.mu.Lock()
	}
	defer b.mu.Unlock()
	if c.state != present {
		c.pins--
		return nil, b.err
	}
	return c.data, nil
}

func (b *Blob) unpin(i, read int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	c := &b.chunks[i]
	c.pins--
	_, length := image.Chunk(b.size, i)
	c.read = int32(min(int64(c.read)+int64(read), length))
	b.clock++
	c.used = b.clock
	if c.pins == 0 {
		b.wake()
	}
}

// ask puts the missing chunks from first to last in demand. What lies beyond a quarter of the memory waits for its turn.
func (b *Blob) ask(first, last int) {
	last = min(last, len(b.chunks)-1, first+b.limit/4)
	for i := first; i <= last; i++ {
		c := &b.chunks[i]
		if c.state == present {
			continue
		}
		c.asked = true
		if c.state == missing && !c.queued {
			c.queued = true
			b.demand = append(b.demand, i)
		}
	}
	b.wake()
}

// Want says that the n bytes from off on will be read soon: they are fetched before what lies elsewhere. It does not wait.
func (b *Blob) Want(off, n int64) {
	off, end := max(off, 0), min(off+n, b.size)
	if off >= end {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ask(int(off/image.ChunkSize), int((end-1)/image.ChunkSize))
}

// Release says that the n bytes from off on will not be read again. A chunk of which all bytes were released gives up
// its memory when another needs it, and is not fetched if it is not here yet. Reading released bytes still works: they
// are fetched again if need be.
func (b *Blob) Release(off, n int64) {
	off, end := max(off, 0), min(off+n, b.size)
	if off >= end {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := int(off / image.ChunkSize); i <= int((end-1)/image.ChunkSize); i++ {
		at, length := image.Chunk(b.size, i)
		c := &b.chunks[i]
		c.released = int32(min(int64(c.released)+min(end, at+length)-max(off, at), length))
		if int64(c.released) == length {
			c.cold = true
		}
	}
	b.wake()
}

// Claim waits until chunks are wanted and there is room for them, and promises up to most of them, one after the other
// in the file, to the caller: first and the n-1 that follow. The caller then calls Put for each, and Unclaim for what it
// could not get.
func (b *Blob) Claim(ctx context.Context, most int) (first, n int, err error) {
	for {
		b.mu.Lock()
		if b.err != nil {
			defer b.mu.Unlock()
			return 0, 0, b.err
		}
		first, n = b.next(most)
		changed := b.changed
		b.mu.Unlock()
		if n > 0 {
			return first, n, nil
		}
		select {
		case <-changed:
		case <-b.ended:
		case <-ctx.Done():
			return 0, 0, context.Cause(ctx)
		}
	}
}

// next claims chunks if it can: those in demand first, then those ahead.
func (b *Blob) next(most int) (first, n int) {
	for len(b.demand) > 0 {
		i := b.demand[0]
		if b.chunks[i].state == missing {
			if !b.room(true) {
				return 0, 0
			}
			b.claim(i)
			return i, 1 + b.extend(i+1, most-1)
		}
		b.chunks[i].queued = false
		b.demand = b.demand[1:]
	}
	for b.cursor < len(b.chunks) && !b.ahead(b.cursor) {
		b.cursor++
	}
	if b.cursor == len(b.chunks) {
		return 0, 0
	}
	first = b.cursor
	return first, b.extend(first, most)
}

// ahead says whether chunk i is to be fetched ahead of its readers.
func (b *Blob) ahead(i int) bool { return b.chunks[i].state == missing && !b.chunks[i].cold }

// extend claims chunks from i on, as long as they are wanted and there is room.
func (b *Blob) extend(i, most int) (n int) {
	for n < most && i+n < len(b.chunks) && b.ahead(i+n) && b.room(false) {
		b.claim(i + n)
		n++
	}
	return n
}

func (b *Blob) claim(i int) {
	b.chunks[i].state = claimed
	b.reserve++
}

// Unclaim gives back those of the n chunks from first on that have not been put.
func (b *Blob) Unclaim(first, n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := first; i < first+n; i++ {
		c := &b.chunks[i]
		if c.state != claimed {
			continue
		}
		c.state = missing
		b.reserve--
		b.cursor = min(b.cursor, i)
		if c.pins > 0 && !c.queued {
			// Somebody has waited for it all along: in front of the queue.
			c.queued = true
			b.demand = append([]int{i}, b.demand...)
		}
	}
	b.wake()
}

// Put hands in the bytes of chunk i. They are copied. An error that wraps image.ErrChunk means that they are not those
// that were signed: nothing was kept, and the caller still has its claim. A chunk that is already here is passed over.
func (b *Blob) Put(i int, data []byte) error {
	if i < 0 || i >= len(b.chunks) {
		return fmt.Errorf("put chunk %d: there are only %d", i, len(b.chunks))
	}
	b.mu.Lock()
	err, skip := b.err, b.chunks[i].state == present
	var buffer []byte
	if k := len(b.free); k > 0 && err == nil && !skip {
		buffer, b.free = b.free[k-1], b.free[:k-1]
	}
	b.mu.Unlock()
	if err != nil || skip {
		return err
	}
	if buffer == nil {
		buffer = make([]byte, 0, image.ChunkSize)
	}
	// The copy is what is verified, outside the lock: whatever the caller does to data meanwhile cannot slip through.
	bad := len(data) > image.ChunkSize
	if !bad {
		buffer = append(buffer[:0], data...)
		err = b.table.Verify(i, buffer)
	} else {
		err = fmt.Errorf("check chunk %d: it has %d bytes: %w", i, len(data), image.ErrChunk)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	kept := false
	defer func() {
		if !kept && b.err == nil {
			b.recycle(buffer)
		}
	}()
	if err != nil {
		b.stats.Bad++
		return err
	}
	if b.err != nil {
		return b.err
	}
	kept, err = b.install(i, buffer)
	return err
}

// install makes chunk i present with verified data. It reports whether it kept the buffer.
func (b *Blob) install(i int, data []byte) (bool, error) {
	c := &b.chunks[i]
	switch c.state {
	case present:
		return false, nil
	case missing: // not claimed, or no longer
		if c.cold && !c.asked {
			return false, nil
		}
		if !b.room(c.pins > 0) {
			return false, fmt.Errorf("put chunk %d: %w", i, ErrFull)
		}
		b.reserve++
	case claimed:
		if c.cold && !c.asked { // released on its way here
			c.state = missing
			b.reserve--
			b.wake()
			return false, nil
		}
	}
	c.state, c.data, c.read, c.asked = present, data, 0, false
	b.here[i] = struct{}{}
	b.clock++
	c.used = b.clock
	if c.arrived {
		b.stats.Refetched += int64(len(data))
	} else {
		c.arrived = true
		b.stats.Arrived += int64(len(data))
	}
	if c.ready != nil {
		close(c.ready)
		c.ready = nil
	}
	b.wake()
	return true, nil
}

// wake makes every waiting Claim look again.
func (b *Blob) wake() {
	close(b.changed)
	b.changed = make(chan struct{})
}

// ClaimOne promises chunk i to the caller if it is wanted ahead of its readers and there is room, or if a reader waits
// for it. It does not wait.
func (b *Blob) ClaimOne(i int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err != nil || i < 0 || i >= len(b.chunks) || b.chunks[i].state != missing {
		return false
	}
	c := &b.chunks[i]
	if c.cold && !c.asked || !b.room(c.pins > 0) {
		return false
	}
	b.claim(i)
	return true
}
