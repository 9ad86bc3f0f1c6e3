//go:build !notorrent

package torrent

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"strconv"
	"sync"
	"testing"
	"time"

	"imgbuild/image"
	"imgbuild/image/imagetest"
	metafile "imgbuild/image/torrent"
	"imgbuild/installer/blob"
	"imgbuild/installer/report"
	"imgbuild/installer/report/reporttest"
)

// content is a file, and what is signed of it.
type content struct {
	data  []byte
	table *image.ChunkTable
	meta  []byte // its metainfo
}

func random(t testing.TB, size int) content {
	t.Helper()
	data, table := imagetest.Random(t, size, byte(size)+3)
	return content{data, table, metainfoOf(t, data)}
}

func metainfoOf(t testing.TB, data []byte) []byte {
	t.Helper()
	h := metafile.NewHasher()
	h.Write(data)
	meta, err := h.Metainfo().Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return meta
}

func (c content) chunk(i int) []byte {
	off, n := image.Chunk(int64(len(c.data)), i)
	return c.data[off : off+n]
}

// node is a machine that installs.
type node struct {
	*Client
	b     *blob.Blob
	lines *reporttest.Lines
	ended chan error // what Run returned
}

// start runs a client with a blob of its own at a loopback address.
func start(t testing.TB, c content, memory int64, change func(*Options)) *node {
	t.Helper()
	b, err := blob.New(int64(len(c.data)), c.table, memory)
	if err != nil {
		t.Fatal(err)
	}
	n := &node{b: b, lines: &reporttest.Lines{}, ended: make(chan error, 1)}
	o := Options{Blob: b, Metainfo: c.meta, Report: report.New(n.lines), Listen: "127.0.0.1:0"}
	if change != nil {
		change(&o)
	}
	if n.Client, err = New(o); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() { n.ended <- n.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-n.ended
		n.Close()
		b.Close()
	})
	return n
}

// address is where the node takes connections.
func (n *node) address() string { return n.listener.Addr().String() }

// fill puts the whole file into the node's blob.
func (n *node) fill(t testing.TB, c content) {
	t.Helper()
	for i := range c.table.Digests {
		if err := n.b.Put(i, c.chunk(i)); err != nil {
			t.Fatal(err)
		}
	}
}

// readAll reads the blob's end first, as an unpacker does, and then the rest in order, and returns what is wrong.
func (n *node) readAll(c content) error {
	tail := min(len(c.data), 300_000)
	p := make([]byte, tail)
	if _, err := n.b.ReadAt(p, int64(len(c.data)-tail)); err != nil && err != io.EOF {
		return err
	}
	if !bytes.Equal(p, c.data[len(c.data)-tail:]) {
		return errors.New("the end has the wrong bytes")
	}
	got, err := io.ReadAll(io.NewSectionReader(n.b, 0, n.b.Size()))
	if err != nil {
		return err
	}
	if !bytes.Equal(got, c.data) {
		return errors.New("the bytes are wrong")
	}
	return nil
}

// within fails the test when f takes so long that it hangs.
func within(t testing.TB, d time.Duration, f func() error) {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- f() }()
	select {
	case err := <-done:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(d):
		t.Fatal("it hangs")
	}
}

const roomy = 256 << 20

func TestAMachineGetsTheFileFromTheOneItWasTold(t *testing.T) {
	c := random(t, 6*image.ChunkSize+12345)
	seed := start(t, c, roomy, nil)
	seed.fill(t, c)
	n := start(t, c, roomy, nil)
	n.SetPeers([]string{seed.address()})
	within(t, time.Minute, func() error { return n.readAll(c) })
	s := n.Sources()[0]
	if s.Got != int64(len(c.data)) || s.Bad != 0 || s.Down != "" || s.Stalls != 0 || s.ID != "torrent" {
		t.Errorf("%+v", s)
	}
	if _, port, _ := net.SplitHostPort(n.address()); strconv.Itoa(n.PeerPort()) != port || len(n.PeerID()) != 40 {
		t.Errorf("port %d, ID %s", n.PeerPort(), n.PeerID())
	}
}

func TestAChainOfMachinesPassesTheFileOn(t *testing.T) {
	c := random(t, 9*image.ChunkSize+777)
	seed := start(t, c, roomy, nil)
	seed.fill(t, c)
	before := seed
	var all sync.WaitGroup
	for range 3 {
		n := start(t, c, roomy, nil)
		n.SetPeers([]string{before.address()})
		before = n
		all.Go(func() {
			if err := n.readAll(c); err != nil {
				t.Error(err)
			}
		})
	}
	within(t, time.Minute, func() error { all.Wait(); return nil })
}
