package blob

import (
	"context"
	"fmt"

	"imgbuild/image"
)

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
		if first, n = b.next(most); n > 0 {
			b.mu.Unlock()
			return first, n, nil
		}
		changed := b.change()
		b.mu.Unlock()
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
	if b.demanded() {
		i := b.demand[0]
		if !b.room(true) {
			return 0, 0
		}
		b.claim(i)
		return i, 1 + b.extend(i+1, most-1)
	}
	if !b.forward() {
		return 0, 0
	}
	first = b.cursor
	return first, b.extend(first, most)
}

// demanded takes what is here, or on its way, from the front of the demand queue, and says whether something is left.
func (b *Blob) demanded() bool {
	for len(b.demand) > 0 {
		c := &b.chunks[b.demand[0]]
		if c.state == missing && !c.stored {
			return true
		}
		c.queued = false
		b.demand = b.demand[1:]
	}
	return false
}

// forward moves the cursor to the next chunk that is to be fetched ahead of its readers, and says whether there is one.
func (b *Blob) forward() bool {
	for b.cursor < len(b.chunks) && !b.ahead(b.cursor) {
		b.cursor++
	}
	return b.cursor < len(b.chunks)
}

// ahead says whether chunk i is to be fetched ahead of its readers.
func (b *Blob) ahead(i int) bool {
	c := &b.chunks[i]
	return c.state == missing && !c.cold && !c.stored
}

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
	b.look()
}

// ClaimOne promises chunk i to the caller if it is wanted ahead of its readers and there is room, or if a reader waits
// for it. It does not wait.
func (b *Blob) ClaimOne(i int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err != nil || i < 0 || i >= len(b.chunks) || b.chunks[i].state != missing || b.chunks[i].stored {
		return false
	}
	c := &b.chunks[i]
	if c.cold && !c.asked || !b.room(c.pins > 0) {
		return false
	}
	b.claim(i)
	return true
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
		b.unreserve(i)
		b.cursor = min(b.cursor, i)
		if c.pins > 0 && !c.queued {
			// Somebody has waited for it all along: in front of the queue.
			c.queued = true
			b.demand = append([]int{i}, b.demand...)
		}
	}
	b.wake()
}

// unreserve makes chunk i, which was on its way, missing.
func (b *Blob) unreserve(i int) {
	b.chunks[i].state = missing
	b.reserve--
	b.drop(i)
	b.wake()
}

// Put hands in the bytes of chunk i. They are copied. An error that wraps image.ErrChunk means that they are not those
// that were signed: nothing was kept, and the caller still has its claim. A chunk that is already here is passed over.
func (b *Blob) Put(i int, data []byte) error {
	b.mu.Lock()
	buffer := b.buffer()
	b.mu.Unlock()
	if buffer == nil {
		buffer = make([]byte, 0, image.ChunkSize)
	}
	spare, err := b.Give(i, append(buffer[:0], data[:min(len(data), image.ChunkSize+1)]...))
	b.mu.Lock()
	defer b.mu.Unlock()
	b.recycle(spare)
	return err
}

// Give is Put without the copy: the data, which want a capacity of image.ChunkSize, belong to the blob from the call on, and
// nobody else may touch them again. Whatever the outcome, the caller gets another buffer for them, or nil if there is none
// now.
func (b *Blob) Give(i int, data []byte) (spare []byte, err error) {
	if i < 0 || i >= len(b.chunks) {
		return data, fmt.Errorf("put chunk %d: there are only %d", i, len(b.chunks))
	}
	b.mu.Lock()
	err, skip := b.err, b.chunks[i].state == present
	b.mu.Unlock()
	if err != nil || skip {
		return data, err
	}
	if len(data) > image.ChunkSize {
		err = fmt.Errorf("check chunk %d: it has %d bytes or more: %w", i, len(data), image.ErrChunk)
	} else {
		err = b.table.Verify(i, data)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if err != nil {
		b.stats.Bad++
		return data, err
	}
	if b.err != nil {
		return data, b.err
	}
	kept, err := b.install(i, data)
	if !kept {
		return data, err
	}
	return b.buffer(), nil
}

// install makes chunk i present with verified data that came from a fetcher. It reports whether it kept the buffer.
func (b *Blob) install(i int, data []byte) (bool, error) {
	c := &b.chunks[i]
	// One that was released on its way here is kept for others only.
	unwanted := c.cold && !c.asked && !b.keeping
	switch c.state {
	case present:
		return false, nil
	case missing: // not claimed, or no longer
		if unwanted || c.stored {
			return false, nil
		}
		if !b.room(c.pins > 0) {
			return false, fmt.Errorf("put chunk %d: %w", i, ErrFull)
		}
		b.reserve++
	case claimed:
		if unwanted {
			b.unreserve(i)
			return false, nil
		}
	}
	b.settle(i, data)
	if c.arrived {
		b.stats.Refetched += int64(len(data))
	} else {
		c.arrived = true
		b.stats.Arrived += int64(len(data))
	}
	return true, nil
}

// settle makes chunk i, for which there is room, present.
func (b *Blob) settle(i int, data []byte) {
	c := &b.chunks[i]
	c.state, c.data, c.read, c.asked = present, data, 0, false
	b.here[i] = struct{}{}
	b.clock++
	c.used = b.clock
	if !c.stored {
		b.stats.Held += int64(len(data))
		b.bare++
		if b.keeping {
			b.toStore = append(b.toStore, i)
			b.look()
		}
	}
	b.tell(i)
	b.offer(i)
	b.wake() // it may give way to one that a reader waits for
}
