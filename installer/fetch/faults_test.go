package fetch

import (
	"bytes"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// closing is a server that can be ended with all its connections, and begun again at the same address.
type closing struct {
	t       *testing.T
	address string
	s       *httptest.Server
	h       http.Handler
}

func newClosing(t *testing.T, h http.Handler) *closing {
	c := &closing{t: t, address: "127.0.0.1:0", h: h}
	c.open()
	t.Cleanup(func() { c.s.Close() })
	return c
}

func (c *closing) open() {
	var l net.Listener
	for end := time.Now().Add(10 * time.Second); ; {
		var err error
		if l, err = net.Listen("tcp", c.address); err == nil {
			break
		}
		if time.Now().After(end) {
			c.t.Fatal(err)
		}
	}
	c.address = l.Addr().String()
	c.s = &httptest.Server{Listener: l, Config: &http.Server{Handler: c.h}}
	c.s.Config.ErrorLog = log.New(io.Discard, "", 0)
	c.s.Start()
}

func (c *closing) close() {
	c.s.Listener.Close() // first, so that no connection comes after
	c.s.CloseClientConnections()
}

func TestATransferGoesOnWhenItsSourcesDie(t *testing.T) {
	for name, run := range map[string]func(s *swarm, origin, machine *closing){
		"the origin restarts": func(s *swarm, origin, _ *closing) {
			s.Use([]Source{originAt("http://" + origin.address)})
			s.start()
			s.read(0, 6*mib)
			origin.close()
			origin.open()
			s.finish()
			s.all("origin")
		},
		"the origin dies and a machine has all": func(s *swarm, origin, machine *closing) {
			o := originAt("http://" + origin.address)
			o.Tier = -1
			s.Use([]Source{o, relayAt("http://" + machine.address)})
			s.start()
			s.read(0, 6*mib)
			origin.close()
			s.finish()
			s.all("origin", "machine")
			if s.got("machine").Got == 0 || s.got("origin").Got < 6*mib || s.got("origin").Down == "" {
				s.t.Errorf("%+v", s.Sources())
			}
		},
		"the machine dies and the origin is there": func(s *swarm, origin, machine *closing) {
			s.Use([]Source{relayAt("http://" + machine.address), originAt("http://" + origin.address)})
			s.start()
			s.read(0, 6*mib)
			machine.close()
			s.finish()
			s.all("origin", "machine")
			if s.got("machine").Got < 6*mib || s.got("origin").Got == 0 {
				s.t.Errorf("%+v", s.Sources())
			}
		},
		"the machine dies and comes back": func(s *swarm, origin, machine *closing) {
			s.Use([]Source{relayAt("http://" + machine.address), originAt("http://" + origin.address)})
			s.start()
			s.read(0, 6*mib)
			before := s.got("machine").Got
			machine.close()
			s.read(6*mib, 20*mib) // more than was there: the origin has taken over
			machine.open()
			for s.got("machine").Down != "" {
				time.Sleep(time.Millisecond) // until it was probed
			}
			s.finish()
			s.all("origin", "machine")
			if s.got("machine").Got <= before {
				s.t.Errorf("the machine was asked no more: %+v", s.Sources())
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSwarm(t, 32*mib, Options{Stall: 10 * time.Second, Patience: time.Minute}, 4*mib)
			origin, machine := newClosing(t, static(s.data)), newClosing(t, static(s.data))
			run(s, origin, machine)
		})
	}
}

// slow lets a handler's answers through at a rate in bytes a second.
func slow(h http.HandlerFunc, rate int64) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		h(&slowWriter{w, newPace(rate), r}, r)
	}
}

type slowWriter struct {
	http.ResponseWriter
	pace *pace
	r    *http.Request
}

func (s *slowWriter) Write(p []byte) (n int, err error) {
	for n < len(p) {
		k, err := s.ResponseWriter.Write(p[n : n+int(s.pace.piece(int64(len(p)-n)))])
		n += k
		if err != nil {
			return n, err
		}
		if err := wait(s.r.Context(), int64(k), s.pace); err != nil {
			return n, err
		}
	}
	return n, nil
}

func TestASlowMirrorDoesNotHoldUpAFastOne(t *testing.T) {
	s := newSwarm(t, 48*mib, Options{Stall: 250 * time.Millisecond, Patience: 20 * time.Second}, 8*mib)
	s.Use([]Source{
		{ID: "fast", URL: serve(t, slow(static(s.data), 40*mib))},
		{ID: "slow", URL: serve(t, slow(static(s.data), 400_000))},
	})
	s.start()
	s.finish()
	s.all("fast", "slow")
	if x := s.got("slow"); x.Got > 12*mib || x.Stalls == 0 {
		t.Errorf("%+v\n%s", s.Sources(), s.said)
	}
}

func TestTwoMirrorsAreUsedTogether(t *testing.T) {
	s := newSwarm(t, 32*mib, Options{Stall: 10 * time.Second}, 16*mib)
	s.Use([]Source{{ID: "a", URL: serve(t, slow(static(s.data), 30*mib))}, {ID: "b", URL: serve(t, slow(static(s.data), 30*mib))}})
	s.start()
	s.finish()
	s.all("a", "b")
	if s.got("a").Got < 6*mib || s.got("b").Got < 6*mib {
		t.Errorf("%+v", s.Sources())
	}
}

func TestAConnectionThatFallsSilentIsReplacedBeforeItFails(t *testing.T) {
	s := newSwarm(t, 24*mib, Options{Stall: 2 * time.Second, Patience: time.Minute}, 64*mib)
	var n atomic.Int64
	s.Use([]Source{originAt(serve(t, func(w http.ResponseWriter, r *http.Request) {
		if n.Add(1) == 3 {
			static(s.data)(&breaking{ResponseWriter: w, left: 100_000, hang: r.Context()}, r)
			return
		}
		static(s.data)(w, r)
	}))})
	s.start()
	s.finish()
	s.all("origin")
	if !strings.Contains(s.said.String(), "asked for once more") {
		t.Errorf("nobody took over:\n%s", s.said)
	}
}

func TestAMirrorWithAnotherFileIsDropped(t *testing.T) {
	for name, c := range map[string]struct {
		h    func(data []byte) http.HandlerFunc
		said string
	}{
		"a truncated one": {func(data []byte) http.HandlerFunc { return static(data[:10*mib]) }, "and 16777216 in the signed manifest"},
		"a longer one":    {func(data []byte) http.HandlerFunc { return static(append(bytes.Clone(data), 1)) }, "has 16777217 bytes there"},
		"one of that size": {func(data []byte) http.HandlerFunc {
			data = bytes.Clone(data)
			for i := range 16 {
				data[i*mib] ^= 1
			}
			return static(data)
		}, "of its chunks were wrong"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSwarm(t, 16*mib, Options{Patience: 20 * time.Second}, 16*mib)
			s.Use([]Source{{ID: "bad", URL: serve(t, c.h(s.data))}, {ID: "good", URL: serve(t, slow(static(s.data), 30*mib))}})
			s.start()
			s.finish()
			s.all("bad", "good")
			if x := s.got("bad"); x.Down == "" || x.Got != 0 || !strings.Contains(s.said.String(), c.said) {
				t.Errorf("%+v\n%s", x, s.said)
			}
		})
	}
}

func TestAWrongContentLengthIsSurvived(t *testing.T) {
	for _, add := range []int64{-700_000, -1, 1, 700_000} {
		s := newSwarm(t, 12*mib, Options{Patience: 20 * time.Second}, 16*mib)
		var n atomic.Int64
		s.Use([]Source{originAt(serve(t, func(w http.ResponseWriter, r *http.Request) {
			var first, last int64
			fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &first, &last)
			if n.Add(1)%3 != 0 {
				static(s.data)(w, r)
				return
			}
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", first, last, len(s.data)))
			w.Header().Set("Content-Length", strconv.FormatInt(max(last-first+1+add, 0), 10))
			w.WriteHeader(http.StatusPartialContent)
			w.Write(s.data[first : last+1])
		}))})
		s.start()
		s.finish()
		s.all("origin")
	}
}
