package tftp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

func rrq(name, mode string, opts ...string) []byte {
	b := []byte{0, 1}
	for _, s := range append([]string{name, mode}, opts...) {
		b = append(append(b, s...), 0)
	}
	return b
}

func ack(n int) []byte { return binary.BigEndian.AppendUint16([]byte{0, 4}, uint16(n)) }

func TestRequests(t *testing.T) {
	for name, c := range map[string]struct {
		packet []byte
		want   string // the request, or the refusal's code and text
	}{
		"octet":                         {rrq("undionly.kpxe", "octet"), "undionly.kpxe []"},
		"the mode in capitals":          {rrq("a", "OCTET", "BLKSIZE", "1432", "tsize", "0"), "a [{blksize 1432} {tsize 0}]"},
		"an option without a value":     {rrq("a", "octet", "tsize"), "a []"},
		"bytes after the last field":    {append(rrq("a", "octet"), 'x', 'y'), "a []"},
		"mail":                          {rrq("a", "mail"), `4 there is no mode "mail", only octet and netascii`},
		"no name":                       {rrq("", "octet"), "4 the request has no file name or no mode"},
		"no mode":                       {[]byte("\x00\x01abc\x00"), "4 the request has no file name or no mode"},
		"writing":                       {[]byte("\x00\x02abc\x00octet\x00"), "2 files can be read only"},
		"an acknowledgement":            {ack(1), "5 there is no such transfer"},
		"an error, which has no answer": {errorPacket(0, "x"), "it is no request"},
		"nothing":                       {nil, "it is no request"},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := parseRequest(c.packet)
			got := ""
			var no *refusal
			switch {
			case errors.As(err, &no):
				got = fmt.Sprint(no.code, " ", no.text)
			case err != nil:
				got = err.Error()
			default:
				got = fmt.Sprint(r.name, " ", r.options)
			}
			if got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

func TestOptionsAreAnsweredWithWhatTheServerCanDo(t *testing.T) {
	for name, c := range map[string]struct {
		opts   []string
		oack   string
		block  int
		window int
	}{
		"none":                                    {nil, "", 512, 1},
		"a block that fits":                       {[]string{"blksize", "1024"}, "blksize=1024", 1024, 1},
		"a block that is too large":               {[]string{"blksize", "65464"}, "blksize=1468", 1468, 1},
		"a block that is too small is ignored":    {[]string{"blksize", "7"}, "", 512, 1},
		"the size":                                {[]string{"tsize", "0"}, "tsize=5000", 512, 1},
		"a window":                                {[]string{"windowsize", "4"}, "windowsize=4", 512, 4},
		"a window that is too large":              {[]string{"windowsize", "65535"}, "windowsize=64", 512, 64},
		"no window":                               {[]string{"windowsize", "0"}, "", 512, 1},
		"a timeout is taken as it is":             {[]string{"timeout", "3"}, "timeout=3", 512, 1},
		"a timeout that cannot be is ignored":     {[]string{"timeout", "0"}, "", 512, 1},
		"what is unknown or no number is ignored": {[]string{"multicast", "", "blksize", "x", "utimeout", "100", "tsize", "0"}, "tsize=5000", 512, 1},
		"what comes twice counts once":            {[]string{"blksize", "1024", "blksize", "8"}, "blksize=1024", 1024, 1},
		"all of UEFI's, in their order":           {[]string{"tsize", "0", "blksize", "1468", "windowsize", "4"}, "tsize=5000 blksize=1468 windowsize=4", 1468, 4},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := parseRequest(rrq("a", "octet", c.opts...))
			if err != nil {
				t.Fatal(err)
			}
			n := negotiate(r, 5000, maxBlock, maxWindow)
			var list []string
			for _, o := range n.accepted {
				list = append(list, o.name+"="+o.value)
			}
			if got := strings.Join(list, " "); got != c.oack || n.block != c.block || n.window != c.window {
				t.Errorf("got %q, block %d, window %d", got, n.block, n.window)
			}
		})
	}
}

// receiver is a client as RFC 7440 has it, on a line that loses and repeats what lose and repeat say.
type receiver struct {
	block, window int
	got           []byte
	last          int // block
	inWindow      int
	done          bool
}

// take gets a packet and gives the acknowledgement, if it is time for one.
func (r *receiver) take(b []byte) []byte {
	if b[1] == byte(opOAck) {
		return ack(0)
	}
	if n := binary.BigEndian.Uint16(b[2:]); n != uint16(r.last+1) {
		if r.window == 1 && n != uint16(r.last) {
			return nil
		}
		r.inWindow = 0
		return ack(r.last) // a gap, or a repetition
	}
	r.last++
	r.got = append(r.got, b[4:]...)
	r.done = len(b)-4 < r.block
	if r.inWindow++; r.inWindow == r.window || r.done {
		r.inWindow = 0
		return ack(r.last)
	}
	return nil
}

// run does a whole transfer and counts the data packets that were sent. lose says of each packet whether it is lost.
func run(t *testing.T, size int, terms terms, lose func() bool) int {
	t.Helper()
	data := make([]byte, size)
	for i := range data {
		data[i] = byte(i * 7 / 3)
	}
	s := newTransfer(data, terms)
	r := &receiver{block: terms.block, window: terms.window}
	sent := 0
	var line [][]byte
	send := func(b []byte) error {
		if b[1] == byte(opData) {
			sent++
		}
		if !lose() {
			line = append(line, bytes.Clone(b))
		}
		return nil
	}
	for silence := 0; silence < 50; {
		if err := s.due(send); err != nil {
			t.Fatal(err)
		}
		var replies [][]byte
		for _, p := range line {
			if a := r.take(p); a != nil {
				if !lose() {
					replies = append(replies, a)
				}
			}
		}
		line = nil
		if r.done && len(replies) == 0 {
			break // the last acknowledgement was lost: the client has all of it and has gone
		}
		useful := false
		for _, a := range replies {
			switch o, _, _ := s.take(a); o {
			case finished:
				if !bytes.Equal(r.got, data) {
					t.Fatalf("%d bytes arrived, not the %d that were sent", len(r.got), len(data))
				}
				return sent
			case progress, resend:
				useful = true
			}
		}
		if silence++; useful {
			silence = 0
		} else { // time passes
			s.rewind()
		}
	}
	if !r.done || !bytes.Equal(r.got, data) {
		t.Fatalf("the transfer stalled at block %d of %d", r.last, s.total)
	}
	return sent
}

func TestTransfersOverLinesThatLose(t *testing.T) {
	for _, size := range []int{0, 1, 511, 512, 513, 5 * 512, 70000, 8 * 70000} {
		for _, block := range []int{8, 512, 1468} {
			for _, window := range []int{1, 4, 64} {
				for _, percent := range []int{0, 5, 30} {
					if percent > 0 && size > 100000 {
						continue
					}
					line := rand.New(rand.NewPCG(uint64(size), uint64(block+window)))
					lose := func() bool { return line.IntN(100) < percent }
					terms := terms{block: block, window: window, accepted: []option{{"blksize", fmt.Sprint(block)}}}
					sent := run(t, size, terms, lose)
					if least := size/block + 1; percent == 0 && sent != least {
						t.Errorf("%d bytes in blocks of %d, window %d: %d packets instead of %d", size, block, window, sent, least)
					}
				}
			}
		}
	}
}

func TestARepeatedAcknowledgementDoesNotDoubleTheTraffic(t *testing.T) {
	s := newTransfer(make([]byte, 5000), terms{block: 512, window: 1})
	sent := 0
	count := func([]byte) error { sent++; return nil }
	_ = s.due(count)
	if o, _, _ := s.take(ack(1)); o != progress {
		t.Fatal(o)
	}
	_ = s.due(count)
	for range 5 {
		if o, _, _ := s.take(ack(1)); o != ignored {
			t.Fatalf("the repeated acknowledgement of block 1 is answered: %v", o)
		}
		_ = s.due(count)
	}
	if sent != 2 {
		t.Errorf("%d packets were sent", sent)
	}
	for _, n := range []int{0, 3, 60000, 65535} {
		if o, _, _ := s.take(ack(n)); o != ignored {
			t.Errorf("an acknowledgement of block %d is taken: %v", n, o)
		}
	}
}

func TestAClientThatLosesTheSameBlockAgainAndAgainDoesNotFloodTheLine(t *testing.T) {
	s := newTransfer(make([]byte, 50000), terms{block: 512, window: 8})
	sent := 0
	for range 100 {
		_ = s.due(func([]byte) error { sent++; return nil })
		s.take(ack(0))
	}
	if sent > 4*8 {
		t.Errorf("%d packets were sent for one window", sent)
	}
}

func TestNetasciiIsAsTelnetHasIt(t *testing.T) {
	for in, want := range map[string]string{"a\nb\n": "a\r\nb\r\n", "a\r\nb": "a\r\x00\r\nb", "a\rb\r": "a\r\x00b\r\x00", "": ""} {
		if got := string(netascii([]byte(in))); got != want {
			t.Errorf("%q becomes %q, want %q", in, got, want)
		}
	}
}

func FuzzRequest(f *testing.F) {
	f.Add(rrq("undionly.kpxe", "octet", "blksize", "1432", "tsize", "0", "windowsize", "4", "timeout", "2"), ack(0), ack(3))
	f.Add(rrq("a", "netascii"), ack(1), errorPacket(8, "no"))
	f.Fuzz(func(t *testing.T, b, first, second []byte) {
		r, err := parseRequest(b)
		if err != nil {
			return
		}
		if n := Clean(r.name); strings.HasPrefix(n, "/") || strings.HasPrefix(n, "../") || n == ".." {
			t.Fatalf("%q becomes %q", r.name, n)
		}
		s := newTransfer(make([]byte, 70000), negotiate(r, 70000, maxBlock, maxWindow))
		sent := 0
		for _, p := range [][]byte{first, second, first} {
			if err := s.due(func(p []byte) error {
				if sent++; len(p) > 4+maxBlock && !s.oack {
					t.Fatalf("a packet of %d bytes", len(p))
				}
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			if o, _, _ := s.take(p); o == finished && s.total > 3*maxWindow {
				t.Fatal("finished after three acknowledgements")
			}
		}
		if sent > 3*maxWindow {
			t.Fatalf("%d packets were sent for three", sent)
		}
	})
}
