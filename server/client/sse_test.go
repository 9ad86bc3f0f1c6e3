package client

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

func messages(t testing.TB, r io.Reader) (got []string, s *eventStream) {
	t.Helper()
	s = newStream(r)
	for {
		m, err := s.next()
		if errors.Is(err, io.EOF) {
			return got, s
		}
		if err != nil {
			return append(got, "error: "+err.Error()), s
		}
		got = append(got, fmt.Sprintf("%s=%q", m.id, m.data))
	}
}

func TestStreamsAreTakenApartAsTheStandardSays(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"the standard's examples", "data: YHOO\ndata: +2\ndata: 10\n\n: test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n",
			`="YHOO\n+2\n10" 1="first event" ="second event" =" third event"`},
		{"data without text is a message of its own", "data\n\ndata\ndata\n\ndata:", `="" ="\n"`},
		{"a blank after the colon makes no difference", "data:test\n\ndata: test\n\n", `="test" ="test"`},
		{"all line ends", "data: a\r\n\r\ndata: b\r\rdata: c\n\n", `="a" ="b" ="c"`},
		{"a byte order mark", "\ufeffdata: a\n\n", `="a"`},
		{"what is cut off is no message", "data: a\n\nid: 2\ndata: b\n", `="a"`},
		{"unknown fields, comments and an ID with a null", "event: x\nfoo: bar\n:c\nid: 4\ndata: a\n\nid: 5\x00\ndata: b\n\n", `4="a" ="b"`},
		{"a line that is too long", "data: " + strings.Repeat("x", maxLine) + "\n\n", "error: a line has more than 1048576 bytes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			for how, r := range map[string]io.Reader{"whole": strings.NewReader(c.text), "byte by byte": iotest.OneByteReader(strings.NewReader(c.text))} {
				got, _ := messages(t, r)
				if s := strings.Join(got, " "); s != c.want {
					t.Errorf("%s: got %s, want %s", how, s, c.want)
				}
			}
		})
	}
	_, s := messages(t, strings.NewReader("retry: 1500\ndata: a\n\nretry: x\n\n"))
	if s.retry != 1500*time.Millisecond {
		t.Errorf("retry is %s", s.retry)
	}
}

func FuzzStream(f *testing.F) {
	f.Add([]byte("id: 1\ndata: {}\n\n"))
	f.Add([]byte("\ufeffdata\r\rretry: 5\r\n\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		whole, _ := messages(t, strings.NewReader(string(data)))
		bytewise, _ := messages(t, iotest.OneByteReader(strings.NewReader(string(data))))
		if strings.Join(whole, " ") != strings.Join(bytewise, " ") {
			t.Errorf("%q: %q at once, %q byte by byte", data, whole, bytewise)
		}
	})
}
