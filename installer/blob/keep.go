package blob

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"imgbuild/image"
)

// ErrWaiting is what View returns for a chunk that is to come and has not come in time.
var ErrWaiting = errors.New("the chunk has not come yet")

// ErrGone is what View returns for a chunk that was dropped, or is not to be fetched.
var ErrGone = errors.New("the chunk is not here and is not to come")

// Store takes verified chunks that memory has no place for, so that they need not come over the network again. Its methods
// may be called from several goroutines, Put from one at a time.
type Store interface {
	// Put keeps the bytes of chunk i. After an error it is not called again.
	Put(i int, data []byte) error
	// Has reports whether chunk i was kept.
	Has(i int) bool
	// ReadChunk reads chunk i into p, which has room for any, and returns its length. The caller verifies the bytes.
	ReadChunk(i int, p []byte) (int, error)
}

// Keep keeps chunks for others, who get them with View, from now on: what half of the memory cannot hold is put into s, and
// nothing that s has not taken gives way to what is fetched ahead, or to what a reader waits for while s is at work. Chunks in s come
// back from there when a reader needs them again. When s returns an error, chunks are dropped again as if Keep had not been called, and those in s stay there.
//
// Keep(nil) does the same, and a later Keep with the first store goes on with it; there is no other store for a blob.
// The store may be closed after the blob, and after the last View.
func (b *Blob) Keep(s Store) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err != nil {
		return
	}
	if s == nil || b.refused {
		b.stopKeeping()
		return
	}
	if b.store == nil {
		b.store = s
		b.keeper.Go(b.keep)
	}
	if b.keeping {
		return
	}
	b.keeping, b.toStore = true, b.toStore[:0]
	for i := range b.here {
		if !b.chunks[i].stored {
			b.toStore = append(b.toStore, i)
		}
	}
	slices.Sort(b.toStore)
	b.look()
}

// stopKeeping lets chunks that nobody needs here give way to others again.
func (b *Blob) stopKeeping() {
	b.keeping, b.toStore = false, nil
	for i := range b.here {
		b.offer(i)
	}
	b.wake()
}

// look makes the keeper look whether there is something to be stored.
func (b *Blob) look() {
	if !b.keeping {
		return
	}
	select {
	case b.more <- struct{}{}:
	default:
	}
}

// keep stores chunks until the transfer ends or the store fails.
func (b *Blob) keep() {
	for {
		b.mu.Lock()
		i, data := b.nextToStore()
		if data == nil {
			b.wake() // nobody waits for it any more
		}
		b.mu.Unlock()
		if data == nil {
			select {
			case <-b.more:
			case <-b.ended:
				return
			}
			continue
		}
		err := b.store.Put(i, data)
		b.mu.Lock()
		b.storing = false
		if err == nil {
			b.markStored(i)
		} else {
			b.refused = true
			b.stopKeeping()
		}
		b.unview(i, data)
		b.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// nextToStore takes the chunk that came first of those that are to be stored, with its bytes, which it holds on to. There
// is none as long as half of the memory holds all that is not stored.
func (b *Blob) nextToStore() (int, []byte) {
	for b.storeDue() {
		i := b.toStore[0]
		b.toStore = b.toStore[1:]
		if c := &b.chunks[i]; c.state == present && !c.stored {
			c.views++
			b.storing = true
			return i, c.data
		}
	}
	return 0, nil
}

// storeDue says whether there is a chunk that is to be stored now.
func (b *Blob) storeDue() bool {
	onTheWay := b.reserve - len(b.here)
	return len(b.toStore) > 0 && b.limit < len(b.chunks) && b.bare+onTheWay > b.limit/2
}

func (b *Blob) markStored(i int) {
	c := &b.chunks[i]
	if b.err != nil || c.stored {
		return
	}
	c.stored = true
	if c.state == present {
		b.bare--
	} else {
		b.stats.Held += b.length(i)
		b.tell(i)
	}
}

// lost notes that the store did not give chunk i back.
func (b *Blob) lost(i int) {
	c := &b.chunks[i]
	if b.err != nil || !c.stored {
		return
	}
	c.stored = false
	if c.state == present {
		b.bare++ // and it is not tried again
		b.look()
		return
	}
	b.stats.Held -= b.length(i)
	b.cursor = min(b.cursor, i)
	b.drop(i)
	b.wake()
}

// fromStore reads chunk i from the store and verifies it. The lock is not held.
func (b *Blob) fromStore(i int, buffer []byte) ([]byte, error) {
	if cap(buffer) < image.ChunkSize {
		buffer = make([]byte, image.ChunkSize)
	}
	buffer = buffer[:image.ChunkSize]
	n, err := b.store.ReadChunk(i, buffer)
	if err == nil && n > len(buffer) {
		err = fmt.Errorf("read chunk %d: the store says that it has %d bytes", i, n)
	}
	if err != nil {
		return buffer[:0], err
	}
	return buffer[:n], b.table.Verify(i, buffer[:n])
}

// load brings chunk i, for which there is room, from the store into memory. If that fails, the store is not asked for it again.
// The lock is held before and after, and not meanwhile.
func (b *Blob) load(i int) {
	c := &b.chunks[i]
	c.state = loading
	b.reserve++
	buffer := b.buffer()
	b.mu.Unlock()
	data, err := b.fromStore(i, buffer)
	b.mu.Lock()
	switch {
	case b.err != nil:
	case c.state != loading: // a fetcher was faster
		b.recycle(data)
	case err != nil:
		b.recycle(data)
		b.unreserve(i)
		b.lost(i)
		b.tell(i)
	default:
		b.settle(i, data)
	}
}

// View calls use with the bytes of chunk i, which are valid, and not to be changed, until it returns, and returns its error. It waits for a
// chunk that is to come no longer than hold, and then returns ErrWaiting. It makes nothing be fetched and nothing be evicted. A
// chunk that will not come is ErrGone.
func (b *Blob) View(ctx context.Context, i int, hold time.Duration, use func(data []byte) error) error {
	if i < 0 || i >= len(b.chunks) {
		return fmt.Errorf("view chunk %d: there are only %d", i, len(b.chunks))
	}
	var late <-chan time.Time
	for {
		b.mu.Lock()
		c := &b.chunks[i]
		switch {
		case b.err != nil:
			defer b.mu.Unlock()
			return b.err
		case c.state == present:
			c.views++
			data := c.data
			b.mu.Unlock()
			defer func() {
				b.mu.Lock()
				b.unview(i, data)
				b.mu.Unlock()
			}()
			return use(data)
		case c.stored && c.state == missing:
			b.mu.Unlock()
			buffer, ok := b.copies.Get().(*[image.ChunkSize]byte)
			if !ok {
				buffer = new([image.ChunkSize]byte)
			}
			data, err := b.fromStore(i, buffer[:])
			if err == nil {
				err = use(data)
				b.copies.Put(buffer)
				return err
			}
			b.mu.Lock()
			b.lost(i)
			b.mu.Unlock()
			continue
		case b.gone(i):
			b.mu.Unlock()
			return ErrGone
		}
		ready := b.arrival(i)
		b.mu.Unlock()
		if late == nil {
			timer := time.NewTimer(hold)
			defer timer.Stop()
			late = timer.C
		}
		select {
		case <-ready:
		case <-b.ended:
		case <-late:
			return ErrWaiting
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// unview ends a view of data. If chunk i was evicted meanwhile, data is not in it any more.
func (b *Blob) unview(i int, data []byte) {
	c := &b.chunks[i]
	if c.state != present || &c.data[0] != &data[0] {
		return
	}
	if c.views--; c.views == 0 {
		b.offer(i)
		b.wake()
	}
}
