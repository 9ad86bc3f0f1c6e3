package relay

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"testing"
	"time"

	"imgbuild/image"
	"imgbuild/image/imagetest"
	"imgbuild/installer/blob"
	"imgbuild/installer/report"
	"imgbuild/installer/report/reporttest"
	"imgbuild/installer/spill"
)

// follow fetches for b from upstream, and from origin what is gone there, until b ends.
func follow(t *testing.T, b *blob.Blob, upstream, origin *Server) {
	c := client(t)
	buf := make([]byte, image.ChunkSize)
	for {
		first, n, err := b.Claim(t.Context(), 8)
		if err != nil {
			return
		}
		from := upstream
		for i := first; i < first+n && b.Err() == nil; {
			came, err := part(t.Context(), c, from, b, i, first+n, buf)
			i += came
			from = upstream
			if errors.Is(err, errGone) {
				from = origin
			} else if err != nil && b.Err() == nil {
				t.Errorf("chunks %d to %d: %v", i, first+n, err)
				b.Fail(err)
			}
		}
	}
}

var errGone = errors.New("gone")

// part asks for the chunks from i to end and returns how many came.
func part(ctx context.Context, c *http.Client, s *Server, b *blob.Blob, i, end int, buf []byte) (int, error) {
	r, err := c.Do(request(ctx, s, "GET", fmt.Sprintf("bytes=%d-%d", i*image.ChunkSize, min(int64(end)*image.ChunkSize, b.Size())-1)))
	if err != nil {
		return 0, err
	}
	defer r.Body.Close()
	switch why := r.Header.Get(Header); {
	case r.StatusCode == 503 && why == Waiting:
		return 0, nil
	case r.StatusCode == 503 && why == Gone:
		return 0, errGone
	case r.StatusCode != 206:
		return 0, fmt.Errorf("%s, %s", r.Status, why)
	}
	for n := 0; ; n++ {
		if i+n == end {
			return n, nil
		}
		_, length := image.Chunk(b.Size(), i+n)
		if _, err := io.ReadFull(r.Body, buf[:length]); errors.Is(err, io.ErrUnexpectedEOF) || err == io.EOF {
			return n, nil // the rest later
		} else if err != nil {
			return n, err
		}
		if err := b.Put(i+n, buf[:length]); err != nil {
			return n, err
		}
	}
}

// readAll reads as an unpacker does, what is at the end first, and forgets what it has read.
func readAll(b *blob.Blob, data []byte) error {
	meta := int64(len(data)) - 2*image.ChunkSize - 7
	p := make([]byte, 300_000)
	for _, part := range [][2]int64{{meta, int64(len(data))}, {0, meta}} {
		for off := part[0]; off < part[1]; off += int64(len(p)) {
			q := p[:min(int64(len(p)), part[1]-off)]
			if _, err := b.ReadAt(q, off); err != nil && err != io.EOF {
				return err
			}
			if !bytes.Equal(q, data[off:off+int64(len(q))]) {
				return fmt.Errorf("wrong bytes at %d", off)
			}
			b.Release(off, int64(len(q)))
		}
	}
	return nil
}

func TestAChainOfMachinesPassesOneCopyOn(t *testing.T) {
	data, table := imagetest.Random(t, 14*image.ChunkSize+12345, 1)
	for name, c := range map[string]struct {
		memory int64
		store  bool
	}{
		"with memory for all":          {int64(len(data)), false},
		"with little memory":           {4 * image.ChunkSize, false},
		"with little memory and disks": {4 * image.ChunkSize, true},
	} {
		t.Run(name, func(t *testing.T) {
			origin, b0, _ := start(t, len(data), table, int64(len(data)))
			for i := range table.Digests {
				if err := b0.Put(i, imagetest.Chunk(data, i)); err != nil {
					t.Fatal(err)
				}
			}
			var machines []*Server
			var readers, fetchers sync.WaitGroup
			upstream := origin
			for k := range 5 {
				s, b, _ := start(t, len(data), table, c.memory)
				if c.store {
					store, err := spill.New(spill.Options{Dir: t.TempDir(), Size: b.Size(), Chunks: table, Report: report.New(&reporttest.Lines{})})
					if err != nil {
						t.Fatal(err)
					}
					t.Cleanup(func() { b.Close(); store.Close() })
					b.Keep(store)
				}
				up := upstream
				fetchers.Go(func() { follow(t, b, up, origin) })
				readers.Go(func() {
					if err := readAll(b, data); err != nil {
						t.Errorf("machine %d: %v", k, err)
					}
				})
				machines = append(machines, s)
				upstream = s
			}
			readers.Wait()
			all := append([]*Server{origin}, machines[:len(machines)-1]...)
			for _, s := range all { // which count what they sent a moment later
				for c.memory >= int64(len(data)) && s.Stats().Sent < int64(len(data)) {
					time.Sleep(time.Millisecond)
				}
			}
			for k, s := range machines {
				if st := s.o.Blob.Stats(); st.Arrived != int64(len(data)) || st.Bad != 0 {
					t.Errorf("machine %d: %+v", k, st)
				}
			}
			for k, s := range all {
				if sent := s.Stats().Sent; c.memory >= int64(len(data)) && sent != int64(len(data)) {
					t.Errorf("%d: sent %d of %d bytes", k, sent, len(data))
				}
			}
			for _, s := range machines {
				s.o.Blob.Close()
			}
			b0.Close()
			fetchers.Wait()
		})
	}
}

// BenchmarkOneReader is how fast one reader gets chunks over loopback: from memory, and from a file.
func BenchmarkOneReader(b *testing.B) {
	data, table := imagetest.Random(b, 128*image.ChunkSize, 1)
	for name, memory := range map[string]int64{"memory": int64(len(data)), "file": image.ChunkSize} {
		b.Run(name, func(b *testing.B) {
			s, source, _ := start(b, len(data), table, memory)
			if name == "file" {
				store, err := spill.New(spill.Options{Dir: b.TempDir(), Size: source.Size(), Chunks: table, Report: report.New(&reporttest.Lines{})})
				if err != nil {
					b.Fatal(err)
				}
				b.Cleanup(func() { source.Close(); store.Close() })
				source.Keep(store)
			}
			for i := range table.Digests {
				for !source.ClaimOne(i) {
					time.Sleep(100 * time.Microsecond) // until the chunk before is in the file
				}
				if err := source.Put(i, imagetest.Chunk(data, i)); err != nil {
					b.Fatal(err)
				}
			}
			c := client(b)
			buf := make([]byte, image.ChunkSize)
			b.SetBytes(16 * image.ChunkSize)
			for n := 0; b.Loop(); n = (n + 1) % 8 {
				r, err := c.Do(request(b.Context(), s, "GET", fmt.Sprintf("bytes=%d-%d", n*16*image.ChunkSize, (n+1)*16*image.ChunkSize-1)))
				if err != nil {
					b.Fatal(err)
				}
				for range 16 {
					if _, err := io.ReadFull(r.Body, buf); err != nil {
						b.Fatal(err)
					}
				}
				io.Copy(io.Discard, r.Body)
				r.Body.Close()
			}
		})
	}
}
