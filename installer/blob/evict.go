package blob

import (
	"container/heap"

	"imgbuild/image"
)

// The order in which chunks give way to others. Those of the first four that are spare give way to a chunk that is merely
// fetched ahead; any but the last gives way to a chunk that a reader waits for.
const (
	released   = iota // all bytes were released
	consumed          // all bytes were read: a reader that never releases must not stop the transfer
	unread            // fetched ahead; the one that is furthest ahead goes first
	halfRead          // some bytes were read; the one that was read the longest time ago goes first
	viewed            // it is being served to somebody, or stored; who does so keeps the bytes
	keepAlways        // somebody waits for it or copies from it

	spareClasses = halfRead + 1
)

func (b *Blob) class(i int) int {
	c := &b.chunks[i]
	switch length := b.length(i); {
	case c.pins > 0:
		return keepAlways
	case c.views > 0:
		return viewed
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

// spare says whether chunk i is present and may give way to one that is fetched ahead: it comes back from the store, or
// nobody needs it, which is not known of any while chunks are kept for others.
func (b *Blob) spare(i, class int) bool {
	c := &b.chunks[i]
	return c.state == present && class < spareClasses && (c.stored || class <= consumed && !b.keeping)
}

// list holds chunks of a class that were spare when they were put there, each at most once: those of the class unread as
// a heap whose first chunk is the one furthest ahead, all others first come first served.
type list struct{ chunks []int }

func (l *list) Len() int           { return len(l.chunks) }
func (l *list) Less(i, j int) bool { return l.chunks[i] > l.chunks[j] }
func (l *list) Swap(i, j int)      { l.chunks[i], l.chunks[j] = l.chunks[j], l.chunks[i] }
func (l *list) Push(x any)         { l.chunks = append(l.chunks, x.(int)) }
func (l *list) Pop() any {
	last := l.chunks[len(l.chunks)-1]
	l.chunks = l.chunks[:len(l.chunks)-1]
	return last
}

// offer lists chunk i if it is spare. It is called whenever one may have become so.
func (b *Blob) offer(i int) {
	class := b.class(i)
	if !b.spare(i, class) {
		return
	}
	if c := &b.chunks[i]; c.offered&(1<<class) == 0 {
		c.offered |= 1 << class
		if class == unread {
			heap.Push(&b.spares[class], i)
		} else {
			b.spares[class].chunks = append(b.spares[class].chunks, i)
		}
	}
	b.wake()
}

// firstSpare is the spare chunk that goes first. What is no longer what it was listed as leaves its list.
func (b *Blob) firstSpare() (i int, ok bool) {
	for class := range spareClasses {
		l := &b.spares[class]
		for len(l.chunks) > 0 {
			i := l.chunks[0]
			if b.class(i) == class && b.spare(i, class) {
				return i, true
			}
			b.chunks[i].offered &^= 1 << class
			if class == unread {
				heap.Pop(l)
			} else {
				l.chunks = l.chunks[1:]
			}
		}
	}
	return 0, false
}

// room says whether one more chunk may be claimed, after evicting one if need be. For a chunk in demand (needed), any
// chunk that nobody holds at the moment gives way, unless one is about to be spare because it is being stored: what others need
// is not dropped because the own reader is faster than the store.
func (b *Blob) room(needed bool) bool {
	if b.reserve < b.limit {
		return true
	}
	if i, ok := b.firstSpare(); ok {
		b.evict(i)
		return true
	}
	if !needed || b.storing || b.storeDue() {
		return false
	}
	victim, victimClass := -1, keepAlways
	for i := range b.here {
		switch class := b.class(i); {
		case class >= keepAlways || class > victimClass:
		case class < victimClass || b.before(i, victim, class):
			victim, victimClass = i, class
		}
	}
	if victim < 0 {
		return false
	}
	b.evict(victim)
	return true
}

// before says which of two chunks of the same class goes first.
func (b *Blob) before(i, j, class int) bool {
	if class == unread {
		return i > j
	}
	return b.chunks[i].used < b.chunks[j].used
}

// full says whether more would be fetched but for want of memory, most of which is in use and not on its way.
func (b *Blob) full() bool {
	if b.err != nil || b.reserve < b.limit || len(b.here) <= b.limit/2 || !b.demanded() && !b.forward() {
		return false
	}
	_, ok := b.firstSpare()
	return !ok
}

func (b *Blob) evict(i int) {
	c := &b.chunks[i]
	delete(b.here, i)
	if c.views == 0 { // else the last who views it leaves it to the garbage collector
		b.recycle(c.data)
	}
	c.state, c.data, c.views = missing, nil, 0
	b.reserve--
	if c.cold = c.cold || int64(c.read) == b.length(i); !c.cold {
		b.cursor = min(b.cursor, i)
	}
	if !c.stored {
		b.bare--
		b.stats.Held -= b.length(i)
	}
}

// gone says whether chunk i will not come, as far as is known.
func (b *Blob) gone(i int) bool {
	c := &b.chunks[i]
	return c.state == missing && !c.stored && c.cold && !c.asked
}

// drop makes those who view chunk i look again if it will not come.
func (b *Blob) drop(i int) {
	if b.gone(i) {
		b.tell(i)
	}
}

// buffer returns a buffer that was used before, or nil.
func (b *Blob) buffer() []byte {
	k := len(b.free)
	if k == 0 {
		return nil
	}
	buffer := b.free[k-1]
	b.free = b.free[:k-1]
	return buffer
}

// recycle keeps a buffer for the next chunk, within the allowance.
func (b *Blob) recycle(buffer []byte) {
	if b.err == nil && cap(buffer) >= image.ChunkSize && len(b.here)+len(b.free) < b.limit {
		b.free = append(b.free, buffer[:0])
	}
}
