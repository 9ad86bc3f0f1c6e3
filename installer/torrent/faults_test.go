//go:build !notorrent

package torrent

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"imgbuild/image"
	metafile "imgbuild/image/torrent"
	"imgbuild/installer/blob"
)

// crook is a peer that says that it has everything (BEP 3).
type crook struct {
	address  string
	requests atomic.Int64
	// answer returns the block that was asked for, or nil to say nothing.
	answer func(off, n int) []byte
}

// startCrook takes connections at an address of its own: who is banned is banned by the address.
func startCrook(t *testing.T, c content, host string, answer func(off, n int) []byte) *crook {
	t.Helper()
	l, err := net.Listen("tcp", host+":0")
	if err != nil {
		t.Fatal(err)
	}
	k := &crook{address: l.Addr().String(), answer: answer}
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(func() { cancel(); l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			context.AfterFunc(ctx, func() { conn.Close() })
			go k.serve(conn, c)
		}
	}()
	return k
}

func (k *crook) serve(conn net.Conn, c content) {
	defer conn.Close()
	r := bufio.NewReader(conn)
	shake := make([]byte, 68)
	if _, err := io.ReadFull(r, shake); err != nil {
		return
	}
	copy(shake[20:28], make([]byte, 8)) // no extensions
	copy(shake[48:], "-XX0000-012345678901")
	pieces := (len(c.data) + metafile.PieceSize - 1) / metafile.PieceSize
	bits := make([]byte, (pieces+7)/8)
	for i := range pieces {
		bits[i/8] |= 0x80 >> (i % 8)
	}
	send := func(id byte, payload []byte) {
		b := binary.BigEndian.AppendUint32(nil, uint32(1+len(payload)))
		conn.Write(append(append(b, id), payload...))
	}
	conn.Write(shake)
	send(5, bits)
	send(1, nil) // unchoke
	for {
		var n uint32
		if binary.Read(r, binary.BigEndian, &n) != nil {
			return
		}
		m := make([]byte, n)
		if _, err := io.ReadFull(r, m); err != nil {
			return
		}
		if n != 13 || m[0] != 6 {
			continue
		}
		k.requests.Add(1)
		index, begin, length := binary.BigEndian.Uint32(m[1:]), binary.BigEndian.Uint32(m[5:]), binary.BigEndian.Uint32(m[9:])
		if block := k.answer(int(index)*metafile.PieceSize+int(begin), int(length)); block != nil {
			send(7, append(m[1:9:9], block...))
		}
	}
}

func TestAPeerThatSendsWrongBytesIsNotAskedAnyMore(t *testing.T) {
	c := random(t, 5*image.ChunkSize)
	bad := startCrook(t, c, "127.0.0.9", func(off, n int) []byte {
		b := append([]byte(nil), c.data[off:off+n]...)
		b[n/2] ^= 1
		return b
	})
	good := start(t, c, roomy, nil)
	good.fill(t, c)
	n := start(t, c, roomy, nil)
	n.SetPeers([]string{bad.address})
	within(t, time.Minute, func() error { // until the peer is found out
		for !strings.Contains(n.lines.String(), "127.0.0.9") {
			time.Sleep(time.Millisecond)
		}
		return nil
	})
	n.SetPeers([]string{bad.address, good.address()})
	within(t, time.Minute, func() error { return n.readAll(c) })
	if s := n.Sources()[0]; s.Bad != 0 || s.Down != "" || s.Got != int64(len(c.data)) {
		t.Errorf("%+v", s)
	}
}

func TestChunksThatNoPeerSendsAreGivenBack(t *testing.T) {
	c := random(t, 3*image.ChunkSize)
	mute := startCrook(t, c, "127.0.0.1", func(int, int) []byte { return nil })
	n := start(t, c, roomy, func(o *Options) { o.Silence = 300 * time.Millisecond })
	n.SetPeers([]string{mute.address})
	within(t, time.Minute, func() error {
		for mute.requests.Load() == 0 || n.Stats().Quiet == 0 {
			time.Sleep(time.Millisecond)
		}
		for got := 0; got < 3; { // somebody else fetches all of them
			first, k, err := n.b.Claim(t.Context(), 3)
			if err != nil {
				return err
			}
			for i := first; i < first+k; i++ {
				if err := n.b.Put(i, c.chunk(i)); err != nil {
					return err
				}
			}
			got += k
		}
		return nil
	})
	if s := n.Sources()[0]; s.Stalls == 0 || s.Got != 0 {
		t.Errorf("%+v", s)
	}
}

func TestNothingIsClaimedWithoutPeers(t *testing.T) {
	c := random(t, 2*image.ChunkSize)
	n := start(t, c, roomy, nil)
	n.SetPeers([]string{"127.0.0.1:1"})
	within(t, time.Minute, func() error {
		if first, k, err := n.b.Claim(t.Context(), 8); first != 0 || k != 2 || err != nil {
			t.Errorf("claimed %d+%d: %v", first, k, err)
		}
		return nil
	})
	if s := n.Stats(); s.Peers != 0 || s.Ready || s.Quiet != 0 {
		t.Errorf("%+v", s)
	}
}

func TestMetainfoOfAnotherFileIsRefused(t *testing.T) {
	c := random(t, 2*image.ChunkSize)
	b, err := blob.New(int64(len(c.data)), c.table, roomy)
	if err != nil {
		t.Fatal(err)
	}
	for name, o := range map[string]Options{
		"its size is another one": {Metainfo: metainfoOf(t, c.data[1:])},
		"it is no metainfo":       {Metainfo: []byte("d4:infod")},
		"there is none":           {},
		"a tracker makes no sense": {
			Metainfo: c.meta, Trackers: []string{"ws://10.1.0.1/announce"},
		},
		"the port is not ours to take": {Metainfo: c.meta, Listen: "192.0.2.1:6881"},
	} {
		o.Blob = b
		if _, err := New(o); err == nil || !strings.HasPrefix(err.Error(), "start BitTorrent: ") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestPiecesThatAreNotThoseOfTheManifestEndBitTorrentAndNotTheTransfer(t *testing.T) {
	c, other := random(t, 2*image.ChunkSize), random(t, 2*image.ChunkSize+1)
	other.data = other.data[:len(c.data)]
	f, err := image.Describe(strings.NewReader(string(other.data)), true)
	if err != nil {
		t.Fatal(err)
	}
	other.table, other.meta = f.Chunks, metainfoOf(t, other.data)
	seed := start(t, other, roomy, nil)
	seed.fill(t, other)
	n := start(t, content{c.data, c.table, other.meta}, roomy, nil)
	n.SetPeers([]string{seed.address()})
	within(t, time.Minute, func() error {
		for n.Sources()[0].Down == "" {
			time.Sleep(time.Millisecond)
		}
		first, k, err := n.b.Claim(t.Context(), 2)
		if err != nil || first != 0 || k != 2 {
			t.Errorf("claimed %d+%d: %v", first, k, err)
		}
		return nil
	})
	if s := n.Sources()[0]; s.Bad == 0 || s.Got != 0 || !strings.Contains(n.lines.String(), "publish the release again") {
		t.Errorf("%+v\n%s", s, n.lines)
	}
}

func TestAMachineWithLittleMemoryServesWhatItHasAndRefusesTheRest(t *testing.T) {
	c := random(t, 12*image.ChunkSize)
	seed := start(t, c, roomy, nil)
	seed.fill(t, c)
	small := start(t, c, 4<<20, nil)
	small.SetPeers([]string{seed.address()})
	within(t, time.Minute, func() error { return small.readAll(c) })
	// Most of what it says that it has is gone by now. Those who ask for it get the rest elsewhere.
	n := start(t, c, roomy, nil)
	n.SetPeers([]string{small.address()})
	within(t, time.Minute, func() error {
		for n.Stats().Peers == 0 {
			time.Sleep(time.Millisecond)
		}
		n.SetPeers([]string{small.address(), seed.address()})
		return n.readAll(c)
	})
}

func TestAnotherPlannedPeerTakesThePlaceOfTheFirst(t *testing.T) {
	c := random(t, 4*image.ChunkSize)
	seeds := []*node{start(t, c, roomy, nil), start(t, c, roomy, nil)}
	for _, s := range seeds {
		s.fill(t, c)
	}
	seeds[0].SetRates(0, 1) // it gives almost nothing
	n := start(t, c, roomy, nil)
	n.SetPeers([]string{seeds[0].address()})
	within(t, time.Minute, func() error {
		for n.Stats().Peers == 0 {
			time.Sleep(time.Millisecond)
		}
		n.SetPeers([]string{seeds[1].address()})
		if err := n.readAll(c); err != nil {
			return err
		}
		for seeds[0].Stats().Peers > 0 {
			time.Sleep(time.Millisecond)
		}
		return nil
	})
}

func TestReadsKeepToTheirRate(t *testing.T) {
	c := random(t, image.ChunkSize)
	seed := start(t, c, roomy, nil)
	seed.fill(t, c)
	n := start(t, c, roomy, nil)
	n.SetRates(2<<20, 0)
	n.SetPeers([]string{seed.address()})
	begun := time.Now()
	within(t, time.Minute, func() error { return n.readAll(c) })
	if took, least := time.Since(begun), time.Duration(float64(image.ChunkSize-burst)/(2<<20)*float64(time.Second)); took < least {
		t.Errorf("it took %s, and at its rate it takes %s", took, least)
	}
}

func TestRunEndsWithWhatEndsFirst(t *testing.T) {
	c := random(t, image.ChunkSize)
	stop, broken := errors.New("stop"), errors.New("broken")
	for name, test := range map[string]struct {
		end  func(*Client, *blob.Blob, context.CancelCauseFunc)
		want error
	}{
		"its context": {func(_ *Client, _ *blob.Blob, cancel context.CancelCauseFunc) { cancel(stop) }, stop},
		"the blob":    {func(_ *Client, b *blob.Blob, _ context.CancelCauseFunc) { b.Fail(broken) }, broken},
		"the client":  {func(c *Client, _ *blob.Blob, _ context.CancelCauseFunc) { c.Close(); c.Close() }, errClosed},
	} {
		b, err := blob.New(int64(len(c.data)), c.table, roomy)
		if err != nil {
			t.Fatal(err)
		}
		client, err := New(Options{Blob: b, Metainfo: c.meta})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		test.end(client, b, cancel)
		within(t, time.Minute, func() error {
			if err := client.Run(ctx); !errors.Is(err, test.want) {
				t.Errorf("%s: %v", name, err)
			}
			return nil
		})
		cancel(nil)
		client.Close()
		b.Close()
	}
}
