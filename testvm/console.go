package testvm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
)

// maxConsole bounds the text kept in memory, in bytes. A boot writes some 100 KiB; a guest that shouts for ever loses
// what is oldest, and the transcript keeps it.
const maxConsole = 16 << 20

// Console is a machine's serial port: text comes out and is kept, and keys go in.
type Console struct {
	conn   net.Conn
	closed chan struct{} // no more will come
	out    multiWriter
	file   *os.File

	mu      sync.Mutex
	filter  textFilter
	text    []byte
	cursor  int // in text: where the next Expect begins
	changed chan struct{}
	ended   bool  // the last line will not grow any more
	err     error // of the transcript
}

// ErrConsoleClosed is returned, wrapped, when a console ended before what was expected came.
var ErrConsoleClosed = errors.New("the machine ended")

func newConsole(conn net.Conn, cc ConsoleConfig) (*Console, error) {
	c := &Console{conn: conn, closed: make(chan struct{}), changed: make(chan struct{})}
	if cc.Transcript != "" {
		if err := os.MkdirAll(filepath.Dir(cc.Transcript), 0o755); err != nil {
			return nil, fmt.Errorf("keep console transcript: %w", err)
		}
		f, err := os.OpenFile(cc.Transcript, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
		if err != nil {
			return nil, fmt.Errorf("keep console transcript: %w", err)
		}
		c.file = f
	}
	if cc.Raw != nil {
		c.out = append(c.out, cc.Raw)
	}
	go c.read(cc.Live)
	return c, nil
}

func (c *Console) read(live io.Writer) {
	defer close(c.closed)
	b := make([]byte, 16<<10)
	for {
		n, err := c.conn.Read(b)
		if n > 0 {
			if c.file != nil {
				if _, e := c.file.Write(b[:n]); e != nil {
					c.mu.Lock()
					c.err = e
					c.mu.Unlock()
				}
			}
			_, _ = c.out.Write(b[:n]) // multiWriter does not fail
			text := c.add(b[:n])
			if live != nil {
				_, _ = live.Write(text) // a display that cannot be written to is no reason to stop a machine
			}
		}
		if err != nil {
			c.mu.Lock()
			c.ended = true
			close(c.changed)
			c.changed = make(chan struct{})
			c.mu.Unlock()
			return
		}
	}
}

// add keeps what came and returns its text.
func (c *Console) add(b []byte) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	before := len(c.text)
	c.text = c.filter.append(c.text, b)
	text := bytes.Clone(c.text[before:])
	if n := len(c.text) - maxConsole; n > 0 {
		c.text = append([]byte(nil), c.text[n:]...)
		c.cursor = max(0, c.cursor-n)
	}
	close(c.changed)
	c.changed = make(chan struct{})
	return text
}

// Match is what Expect found.
type Match struct {
	Index  int      // of the pattern that matched
	Groups []string // the match and its submatches
	Before string   // the text since the last Expect and before the match
}

// Expect waits until one of the patterns matches a line, or the beginning of a line that is still being written, and
// goes on after the match. If several match, the one that begins first wins. A pattern sees one line at a time: ^ and $
// are the line's ends, \z too, and the last line may grow.
func (c *Console) Expect(ctx context.Context, patterns ...*regexp.Regexp) (Match, error) {
	return c.expect(ctx, false, patterns)
}

// expectLine is Expect for whole lines: a line is looked at when it is complete, or the console has ended.
func (c *Console) expectLine(ctx context.Context, patterns []*regexp.Regexp) (Match, error) {
	return c.expect(ctx, true, patterns)
}

func (c *Console) expect(ctx context.Context, whole bool, patterns []*regexp.Regexp) (Match, error) {
	c.mu.Lock()
	start := c.cursor
	c.mu.Unlock()
	scan := start // everything before is known not to match
	for {
		c.mu.Lock()
		if c.cursor < start { // old text was dropped meanwhile
			scan = max(c.cursor, scan-(start-c.cursor))
			start = c.cursor
		}
		m, end, next := findMatch(c.text, start, scan, whole && !c.ended, patterns)
		if end >= 0 {
			c.cursor = end
			c.mu.Unlock()
			return m, nil
		}
		scan = next
		changed := c.changed
		c.mu.Unlock()
		select {
		case <-changed:
		default:
			select {
			case <-changed:
			case <-c.closed:
				if c.grownSince(changed) {
					continue
				}
				return Match{}, c.failure(ErrConsoleClosed, patterns)
			case <-ctx.Done():
				return Match{}, c.failure(context.Cause(ctx), patterns)
			}
		}
	}
}

func (c *Console) grownSince(changed chan struct{}) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.changed != changed
}

// findMatch looks for the first match in text[scan:], line by line. It returns the match and its end, or -1 and where
// to go on: the beginning of the last, unfinished line, which is left out if whole lines are wanted.
func findMatch(text []byte, start, scan int, whole bool, patterns []*regexp.Regexp) (Match, int, int) {
	for scan <= len(text) {
		line, last := text[scan:], true
		if i := bytes.IndexByte(line, '\n'); i >= 0 {
			line, last = line[:i], false
		}
		if last && whole {
			return Match{}, -1, scan
		}
		best, index := []int(nil), 0
		for i, p := range patterns {
			if loc := p.FindSubmatchIndex(line); loc != nil && (best == nil || loc[0] < best[0]) {
				best, index = loc, i
			}
		}
		if best != nil {
			m := Match{Index: index, Before: string(text[start : scan+best[0]])}
			for i := 0; i < len(best); i += 2 {
				g := ""
				if best[i] >= 0 {
					g = string(line[best[i]:best[i+1]])
				}
				m.Groups = append(m.Groups, g)
			}
			return m, scan + best[1], 0
		}
		if last {
			return Match{}, -1, scan
		}
		scan += len(line) + 1
	}
	return Match{}, -1, scan
}

func (c *Console) failure(cause error, patterns []*regexp.Regexp) error {
	var want []string
	for _, p := range patterns {
		want = append(want, fmt.Sprintf("%q", p))
	}
	return fmt.Errorf("await %s on the console: %w; its last lines:\n%s", strings.Join(want, " or "), cause, c.Tail(15))
}

// Send types s.
func (c *Console) Send(s string) error {
	if _, err := io.WriteString(c.conn, s); err != nil {
		return fmt.Errorf("type on the console: %w", err)
	}
	return nil
}

// Write types b: the other direction of an interactive terminal.
func (c *Console) Write(b []byte) (int, error) { return c.conn.Write(b) }

// Text returns the text so far.
func (c *Console) Text() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return string(c.text)
}

// Tail returns the last n lines that are not empty.
func (c *Console) Tail(n int) string {
	var lines []string
	for l := range strings.Lines(c.Text()) {
		if l = strings.TrimRight(l, " \t\n"); l != "" {
			lines = append(lines, l)
		}
	}
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// Close ends the conversation. It says if the transcript could not be kept.
func (c *Console) Close() error {
	c.conn.Close()
	<-c.closed
	var err error
	c.mu.Lock()
	if c.err != nil {
		err = fmt.Errorf("keep console transcript: %w", c.err)
	}
	c.mu.Unlock()
	if c.file != nil {
		err = errors.Join(err, c.file.Close())
		c.file = nil
	}
	return err
}
