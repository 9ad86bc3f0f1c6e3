package blob

import "imgbuild/image"

// The order in which chunks give way to others. Only the first two give way to a chunk that is merely fetched ahead;
// the rest give way to chunks that a reader waits for.
const (
	released   = iota // all bytes were released
	consumed          // all bytes were read: a reader that never releases must not stop the transfer
	unread            // fetched ahead; the one that is furthest ahead goes first
	halfRead          // some bytes were read; the one that was read the longest time ago goes first
	keepAlways        // somebody waits for it or copies from it
)

func (b *Blob) class(i int) int {
	c := &b.chunks[i]
	_, length := image.Chunk(b.size, i)
	switch {
	case c.pins > 0:
		return keepAlways
	case int64(c.released) == length:
		return released
	case int64(c.read) == length:
		return consumed
	case c.read == 0:
		return unread
	default:
		return halfRead
	}
}

// room says whether one more chunk may be claimed, after evicting one if need be. For a chunk in demand (needed), any
// chunk that nobody holds at the moment gives way.
func (b *Blob) room(needed bool) bool {
	if b.reserve < b.limit {
		return true
	}
	last := consumed
	if needed {
		last = halfRead
	}
	victim, victimClass := -1, keepAlways
	for i := range b.here {
		switch class := b.class(i); {
		case class > last || class > victimClass:
		case class < victimClass || b.before(i, victim, class):
			victim, victimClass = i, class
		}
	}
	if victim < 0 {
		return false
	}
	b.evict(victim, victimClass)
	return true
}

// before says which of two chunks of the same class goes first.
func (b *Blob) before(i, j, class int) bool {
	if class == unread {
		return i > j
	}
	return b.chunks[i].used < b.chunks[j].used
}

func (b *Blob) evict(i, class int) {
	c := &b.chunks[i]
	b.recycle(c.data)
	c.state, c.data = missing, nil
	delete(b.here, i)
	b.reserve--
	if class == released || class == consumed {
		c.cold = true
	} else {
		b.cursor = min(b.cursor, i)
	}
}

// recycle keeps a buffer for the next chunk, within the allowance.
func (b *Blob) recycle(buffer []byte) {
	if len(b.here)+len(b.free) < b.limit {
		b.free = append(b.free, buffer[:0])
	}
}
