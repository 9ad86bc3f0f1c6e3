package client

import (
	"bufio"
	"bytes"
	"errors"
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
	lines *bufio.Scanner
	first bool
	// retry is the pause that the server last asked for, 0 if it never did.
	retry time.Duration
}

func newStream(r io.Reader) *eventStream {
	s := &eventStream{lines: bufio.NewScanner(r), first: true}
	s.lines.Buffer(make([]byte, 0, 64<<10), maxLine)
	s.lines.Split(splitLines)
	return s
}

// splitLines ends a line at CR LF, LF or CR.
func splitLines(data []byte, atEOF bool) (int, []byte, error) {
	i := bytes.IndexAny(data, "\r\n")
	switch {
	case i < 0:
		return 0, nil, nil // a line without an end is not one: at the end of the stream it is thrown away
	case data[i] == '\n':
		return i + 1, data[:i], nil
	case i+1 < len(data) && data[i+1] == '\n':
		return i + 2, data[:i], nil
	case i+1 < len(data) || atEOF:
		return i + 1, data[:i], nil
	}
	return 0, nil, nil // CR, and LF may follow
}

// next returns the next message that has data; io.EOF is the end of the stream. A message that the end cuts off is lost, as
// the standard wants it.
func (s *eventStream) next() (message, error) {
	var m message
	var has bool
	for s.lines.Scan() {
		line := s.lines.Bytes()
		if s.first {
			line = bytes.TrimPrefix(line, []byte("\xef\xbb\xbf"))
			s.first = false
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
	if err := s.lines.Err(); err != nil {
		return message{}, err
	}
	return message{}, io.EOF
}
