package blob

import (
	"fmt"
	"io"

	"imgbuild/image"
)

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

// Lend waits for the bytes from off on, and lends those of them that lie in one chunk, at most the given number. They stay as they
// are, and the chunk in memory, until give is called, once, with how many of them were read: a reader that holds many chunks is in
// the way of what comes.
func (b *Blob) Lend(off, most int64) (data []byte, give func(read int), err error) {
	if off < 0 || off >= b.size || most <= 0 {
		return nil, nil, fmt.Errorf("lend %d bytes at offset %d: there are only %d", most, off, b.size)
	}
	i := int(off / image.ChunkSize)
	start := off % image.ChunkSize
	if data, err = b.acquire(i, start+1); err != nil {
		return nil, nil, err
	}
	data = data[start:min(start+most, int64(len(data)))]
	return data, func(read int) { b.unpin(i, read) }, nil
}

// acquire waits for chunk i and pins it. The reader will read up to want bytes from the chunk's start on, so the chunks
// that follow are put in demand too.
func (b *Blob) acquire(i int, want int64) ([]byte, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	c := &b.chunks[i]
	c.pins++ // from now on, so that it stays when it comes
	for {
		var wait <-chan struct{}
		switch {
		case b.err != nil:
			c.pins--
			return nil, b.err
		case c.state == present:
			return c.data, nil
		case c.state != missing || !c.stored:
			b.ask(i, i+int((want-1)/image.ChunkSize))
			wait = b.arrival(i)
		case b.room(true):
			b.load(i)
			continue
		default:
			wait = b.change()
		}
		b.mu.Unlock()
		select {
		case <-wait:
		case <-b.ended:
		}
		b.mu.Lock()
	}
}

func (b *Blob) unpin(i, read int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	c := &b.chunks[i]
	c.pins--
	c.read = int32(min(int64(c.read)+int64(read), b.length(i)))
	b.clock++
	c.used = b.clock
	if c.pins == 0 {
		b.offer(i)
		b.wake() // it may give way to one that a reader waits for
	}
}

// ask puts the missing chunks from first to last in demand. What lies beyond a quarter of the memory waits for its turn.
func (b *Blob) ask(first, last int) {
	last = min(last, len(b.chunks)-1, first+b.limit/4)
	more := false
	for i := first; i <= last; i++ {
		c := &b.chunks[i]
		if c.state == present || c.state == loading || c.stored {
			continue
		}
		c.asked = true
		if c.state == missing && !c.queued {
			c.queued, more = true, true
			b.demand = append(b.demand, i)
		}
	}
	if more {
		b.wake()
	}
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
			b.offer(i)
			b.drop(i)
		}
	}
}
