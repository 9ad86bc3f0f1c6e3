package tftp

import (
	"encoding/binary"
	"strings"
)

// transfer is one file on its way to one client: packets of the client come in, packets for it go out. It has no socket
// and no clock.
type transfer struct {
	data  []byte
	terms terms
	total int // blocks, the last of which is shorter than the others, and may be empty
	// oack is true while the answer to the options has not been acknowledged.
	oack  bool
	base  int // first block, from 1, that has not been acknowledged
	next  int // block that is sent next
	again int // acknowledgements in a row that acknowledged nothing new
	buf   []byte
}

// outcome is what a packet of the client did.
type outcome byte

const (
	ignored  outcome = iota // it is of no use
	progress                // send what is due, and begin to wait anew
	resend                  // blocks were lost: send again what is due
	finished                // the client has all of it
	aborted                 // the client wants no more
)

func newTransfer(data []byte, t terms) *transfer {
	return &transfer{data: data, terms: t, total: len(data)/t.block + 1, oack: len(t.accepted) > 0, base: 1, next: 1, buf: make([]byte, 4+t.block)}
}

// due sends what may be sent now.
func (t *transfer) due(send func([]byte) error) error {
	if t.oack {
		return send(t.terms.oack())
	}
	for t.next < t.base+t.terms.window && t.next <= t.total {
		lo := (t.next - 1) * t.terms.block
		hi := min(lo+t.terms.block, len(t.data))
		binary.BigEndian.PutUint16(t.buf, opData)
		binary.BigEndian.PutUint16(t.buf[2:], uint16(t.next)) // after 65535 comes 0
		n := copy(t.buf[4:], t.data[lo:hi])
		if err := send(t.buf[:4+n]); err != nil {
			return err
		}
		t.next++
	}
	return nil
}

// rewind makes due send again all that has not been acknowledged.
func (t *transfer) rewind() { t.next = t.base }

// take reads a packet of the client. text is what it says of an error.
func (t *transfer) take(b []byte) (o outcome, code uint16, text string) {
	if len(b) < 4 {
		return ignored, 0, ""
	}
	n := binary.BigEndian.Uint16(b[2:])
	switch binary.BigEndian.Uint16(b) {
	case opError:
		text, _, _ := strings.Cut(string(b[4:]), "\x00")
		return aborted, n, text
	case opAck:
		return t.ack(n), 0, ""
	}
	return ignored, 0, ""
}

func (t *transfer) ack(n uint16) outcome {
	if t.oack {
		if n != 0 {
			return ignored
		}
		t.oack = false
		return progress
	}
	// Which of the blocks that are on their way has this number? base-1 is the one before them.
	block := t.base - 1 + int(n-uint16(t.base-1))
	switch {
	case block >= t.next: // an old block, or one that was not sent
		return ignored
	case block == t.base-1:
		// Nothing new. A client with a window of one repeats an acknowledgement when it gets a block twice, and to answer that
		// would double every block from then on (RFC 1123, 4.2.3.1). With a larger window it says that a block was lost.
		if t.again++; t.terms.window == 1 || t.again > 3 {
			return ignored
		}
		t.rewind()
		return resend
	case block == t.total:
		return finished
	}
	t.again = 0
	lost := block+1 < t.next
	t.base = block + 1
	if lost { // the client has not got the rest of the window (RFC 7440, 3)
		t.rewind()
		return resend
	}
	t.next = max(t.next, t.base)
	return progress
}
