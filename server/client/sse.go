package client

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"
)

// maxLine bounds a line of a stream, maxData the data of one message.
const (
	maxLine = 1 << 20
	maxData = 4 << 20
)

// message is one message of a stream of server-sent events.
type message struct {
	id   string
	data []byte
}

// eventStream takes a stream of server-sent events apart (WHATWG HTML, 9.2.5 and 9.2.6).
type eventStream struct {
	r      *bufio.Reader
	buf    []byte
	wasCR  bool // the last line ended with CR: a LF that follows belongs to it
	behind bool // the first line is behind us
	// retry is the pause that the server last asked for, 0 if it never did.
	retry time.Duration
}

func newStream(r io.Reader) *eventStream { return &eventStream{r: bufio.NewReaderSize(r, 32<<10)} }

// line returns the next line, which ends at CR LF, LF or CR, without its end. What the end of the stream cuts off is no line.
func (s *eventStream) line() ([]byte, error) {
	s.buf = s.buf[:0]
	for {
		b, err := s.r.ReadByte()
		if err != nil {
			return nil, err
		}
		if b == '\n' && s.wasCR {
			s.wasCR = false
			continue
		}
		s.wasCR = b == '\r'
		if b == '\r' || b == '\n' {
			return s.buf, nil
		}
		if len(s.buf) == maxLine {
			return nil, fmt.Errorf("a line has more than %d bytes", maxLine)
		}
		s.buf = append(s.buf, b)
	}
}

// next returns the next message that has data; io.EOF is the end of the stream. A message that the end cuts off is lost, as
// the standard wants it.
func (s *eventStream) next() (message, error) {
	var m message
	var has bool
	for {
		line, err := s.line()
		if err != nil {
			return message{}, err
		}
		if !s.behind {
			line = bytes.TrimPrefix(line, []byte("\xef\xbb\xbf"))
			s.behind = true
		}
		if len(line) == 0 {
			if has {
				m.data = bytes.TrimSuffix(m.data, []byte("\n"))
				return m, nil
			}
			m = message{id: m.id}
			continue
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimPrefix(value, []byte(" "))
		switch string(name) {
		case "data":
			if len(m.data)+len(value) > maxData {
				return message{}, errors.New("a message is too long")
			}
			m.data = append(append(m.data, value...), '\n')
			has = true
		case "id":
			if !bytes.ContainsRune(value, 0) {
				m.id = string(value)
			}
		case "retry":
			if ms, err := strconv.ParseUint(string(value), 10, 31); err == nil {
				s.retry = time.Duration(ms) * time.Millisecond
			}
		}
	}
}
