package tftp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Operations (RFC 1350, 5; RFC 2347).
const (
	opRead uint16 = iota + 1
	opWrite
	opData
	opAck
	opError
	opOAck
)

// Error codes (RFC 1350, 5; RFC 2347).
const (
	codeOther     uint16 = 0
	codeNotFound  uint16 = 1
	codeAccess    uint16 = 2
	codeIllegal   uint16 = 4
	codeUnknownID uint16 = 5
	codeOptions   uint16 = 8
)

// asked is a request to read a file.
type asked struct {
	name  string
	ascii bool // mode netascii; else octet
	// options are in the order in which they came; names are in small letters.
	options []option
}

type option struct{ name, value string }

// refusal is an error that the client is told, with its code.
type refusal struct {
	code uint16
	text string
}

func (r *refusal) Error() string { return r.text }

func refuse(code uint16, format string, a ...any) error {
	return &refusal{code, fmt.Sprintf(format, a...)}
}

var errNoRequest = errors.New("it is no request")

// parseRequest reads a read request. Anything else is a *refusal, or errNoRequest for what deserves no answer.
func parseRequest(b []byte) (*asked, error) {
	if len(b) < 4 {
		return nil, errNoRequest
	}
	switch binary.BigEndian.Uint16(b) {
	case opRead:
	case opWrite:
		return nil, refuse(codeAccess, "files can be read only")
	case opData, opAck:
		return nil, refuse(codeUnknownID, "there is no such transfer")
	default:
		return nil, errNoRequest
	}
	fields := bytes.Split(b[2:], []byte{0})
	// What follows the last zero byte is padding, or the rest of a request that was cut off.
	fields = fields[:len(fields)-1]
	if len(fields) < 2 || len(fields[0]) == 0 {
		return nil, refuse(codeIllegal, "the request has no file name or no mode")
	}
	r := &asked{name: string(fields[0])}
	switch mode := strings.ToLower(string(fields[1])); mode {
	case "octet":
	case "netascii":
		r.ascii = true
	default:
		return nil, refuse(codeIllegal, "there is no mode %.20q, only octet and netascii", mode)
	}
	for o := fields[2:]; len(o) >= 2; o = o[2:] {
		r.options = append(r.options, option{strings.ToLower(string(o[0])), string(o[1])})
	}
	return r, nil
}

// terms are what a transfer is done by.
type terms struct {
	block  int // bytes
	window int // blocks that are sent before an acknowledgement is waited for
	// seconds between repetitions, if the client wants a number; 0 if it does not.
	seconds int
	// sizeOnly is true when the client asks for the size: often that is all it wants.
	sizeOnly bool
	accepted []option
}

// negotiate answers a request's options for a file of a size. What is unknown is left out of the answer (RFC 2347), and a
// value that cannot be is too.
func negotiate(r *asked, size, maxBlock, maxWindow int) terms {
	t := terms{block: 512, window: 1}
	seen := map[string]bool{}
	for _, o := range r.options {
		n, err := strconv.ParseUint(o.value, 10, 63)
		if err != nil || seen[o.name] {
			continue
		}
		seen[o.name] = true
		accept := func(v int) int {
			t.accepted = append(t.accepted, option{o.name, strconv.Itoa(v)})
			return v
		}
		switch {
		case o.name == "blksize" && n >= 8: // RFC 2348: to 65464; the server may answer with less
			t.block = accept(int(min(n, uint64(maxBlock))))
		case o.name == "tsize": // RFC 2349
			t.sizeOnly = true
			accept(size)
		case o.name == "timeout" && n >= 1 && n <= 255: // RFC 2349: to be taken as it is
			t.seconds = accept(int(n))
		case o.name == "windowsize" && n >= 1: // RFC 7440: to 65535; the server may answer with less
			t.window = accept(int(min(n, uint64(maxWindow))))
		}
	}
	return t
}

func (t *terms) oack() []byte {
	b := binary.BigEndian.AppendUint16(nil, opOAck)
	for _, o := range t.accepted {
		b = append(append(b, o.name...), 0)
		b = append(append(b, o.value...), 0)
	}
	return b
}

func errorPacket(code uint16, text string) []byte {
	b := binary.BigEndian.AppendUint16(nil, opError)
	b = binary.BigEndian.AppendUint16(b, code)
	return append(append(b, text...), 0)
}

// netascii turns a file into the form that mode netascii has on the wire: a line ends with CR LF, and a CR is CR NUL
// (RFC 764).
func netascii(b []byte) []byte {
	out := make([]byte, 0, len(b)+len(b)/16)
	for _, c := range b {
		switch c {
		case '\n':
			out = append(out, '\r', '\n')
		case '\r':
			out = append(out, '\r', 0)
		default:
			out = append(out, c)
		}
	}
	return out
}
