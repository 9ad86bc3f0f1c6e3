// Package blob is a file that grows while it is read: a size, a chunk table and the chunks that are there now. Fetchers
// ask with Claim which chunks are wanted next and hand them in with Put; readers call ReadAt, which waits for what it
// needs and puts it in front of everything else; whoever serves the file to others calls View, which waits too, and asks
// for nothing.
//
// It never holds more memory than it was allowed, but for one chunk for each View that goes on, and never hands out a
// byte that its chunk's SHA-256 does not vouch for. It does no I/O but through the Store that Keep gave it, and none under
// its lock.
//
// Memory is counted in chunks: those present and those promised to a fetcher. Chunks are fetched ahead in the order of
// the file until the allowance is used up. When a reader waits for a chunk and there is no room, chunks that nobody needs
// any more go first (see evict), then those that were fetched furthest ahead; what is evicted is fetched again when it is
// needed, from the store if it has it. A chunk that a reader waits for is never evicted before that reader has copied it,
// so every wait ends as long as somebody fetches.
package blob

import (
	"errors"
	"fmt"
	"sync"

	"imgbuild/image"
)

// ErrClosed is what Claim, Put, ReadAt and View return after Close.
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
	loading       // on its way from the store; its memory is reserved
	present
)

type chunk struct {
	state   state
	arrived bool // it was present at least once
	cold    bool // not to be fetched ahead: it was released, or evicted after it had been read
	queued  bool // it is in the demand queue
	asked   bool // a reader wanted it since it was here last
	stored  bool // the store has it
	offered byte // the spare lists that it is in, a bit each
	pins    int32
	views   int32 // of data, by View and by the keeper
	// Bytes read and bytes released, both at most the chunk's length. Ranges are summed up and not remembered: a reader
	// that reads or releases a range twice makes the chunk go early, and it would be fetched again.
	read, released int32
	used           uint64        // when it was read last, by Blob.clock
	data           []byte        // if present
	ready          chan struct{} // closed when it comes, and when it will not; nil while nobody waits
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
	reserve int              // chunks present, claimed or loading
	here    map[int]struct{} // chunks present
	bare    int              // chunks present that the store has not
	spares  [spareClasses]list
	free    [][]byte // buffers of ChunkSize capacity
	clock   uint64
	stats   Stats
	waiting bool          // somebody waits for changed
	changed chan struct{} // closed when Claim might succeed, then replaced
	ended   chan struct{} // closed by Close and Fail
	err     error         // why ended

	store   Store
	keeping bool          // what comes is to be stored
	refused bool          // the store failed: it takes no more
	toStore []int         // chunks for the keeper, in the order in which they came
	storing bool          // the keeper puts a chunk into the store
	more    chan struct{} // holds a token when the keeper has to look
	copies  sync.Pool     // buffers for those who view what only the store has
	keeper  sync.WaitGroup
}

// Stats are counters for reports; all in bytes but Bad.
type Stats struct {
	Size      int64
	Arrived   int64 // distinct bytes that have been here and were good
	Refetched int64 // bytes that came more than once because they had been evicted
	Held      int64 // bytes that View can serve now, from memory or from the store
	InMemory  int64 // memory in use or promised
	Limit     int64 // memory allowed
	Bad       int   // chunks refused for a wrong SHA-256
	// Full is true if more would be fetched but for want of memory: the readers, or the store, are what the transfer waits for.
	Full bool
}

// New returns an empty blob of size bytes that holds at most maxMemory bytes, and at least one chunk.
func New(size int64, table *image.ChunkTable, maxMemory int64) (*Blob, error) {
	if table == nil || table.Size != image.ChunkSize || size <= 0 || size > image.MaxFileSize ||
		int64(len(table.Digests)) != (size+image.ChunkSize-1)/image.ChunkSize {
		return nil, fmt.Errorf("prepare the transfer of %d bytes: the chunk table does not fit that size", size)
	}
	limit := len(table.Digests)
	if maxMemory < size {
		limit = int(max(maxMemory/image.ChunkSize, 1))
	}
	return &Blob{
		size: size, table: table, limit: limit, chunks: make([]chunk, len(table.Digests)), here: map[int]struct{}{},
		changed: make(chan struct{}), ended: make(chan struct{}), more: make(chan struct{}, 1),
	}, nil
}

// Size is the number of bytes of the complete file.
func (b *Blob) Size() int64 { return b.size }

// Stats returns the counters as they are now.
func (b *Blob) Stats() Stats {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.stats
	s.Size, s.InMemory, s.Limit = b.size, int64(b.reserve)*image.ChunkSize, int64(b.limit)*image.ChunkSize
	s.Full = b.full()
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
	b.free, b.keeping, b.stats.Held = nil, false, 0
}

// Close ends the transfer with ErrClosed and frees its memory; nothing is put into the store after it has returned. It
// returns the error that ended the transfer before, if any.
func (b *Blob) Close() error {
	b.Fail(ErrClosed)
	b.keeper.Wait()
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

// wake makes everybody who waits for room or for work look again.
func (b *Blob) wake() {
	if b.waiting {
		close(b.changed)
		b.changed, b.waiting = make(chan struct{}), false
	}
}

// change returns what wake closes.
func (b *Blob) change() <-chan struct{} {
	b.waiting = true
	return b.changed
}

// arrival returns what is closed when chunk i comes, or will not.
func (b *Blob) arrival(i int) <-chan struct{} {
	c := &b.chunks[i]
	if c.ready == nil {
		c.ready = make(chan struct{})
	}
	return c.ready
}

// tell makes everybody who waits for chunk i look at it.
func (b *Blob) tell(i int) {
	if c := &b.chunks[i]; c.ready != nil {
		close(c.ready)
		c.ready = nil
	}
}

// length is that of chunk i, in bytes.
func (b *Blob) length(i int) int64 {
	_, n := image.Chunk(b.size, i)
	return n
}
