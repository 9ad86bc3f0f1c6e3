package blob

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"imgbuild/image"
	"imgbuild/image/imagetest"
)

// fetch feeds the blob until it ends; it fails the test when more is claimed than memory allows.
func fetch(t *testing.T, b *Blob, data []byte, most int) {
	for {
		first, n, err := b.Claim(t.Context(), most)
		if err != nil {
			return
		}
		if s := b.Stats(); s.InMemory > s.Limit {
			t.Errorf("%d bytes are in memory and %d are allowed", s.InMemory, s.Limit)
		}
		for i := first; i < first+n; i++ {
			if err := b.Put(i, imagetest.Chunk(data, i)); err != nil && !errors.Is(err, ErrClosed) {
				t.Errorf("put %d: %v", i, err)
			}
		}
	}
}

func TestReadersInAnyOrderGetTheRightBytesWithinAnyMemory(t *testing.T) {
	data, table := imagetest.Random(t, 23*image.ChunkSize+777, 1)
	for _, memory := range []int64{0, 2, 3, 8, 64} {
		for _, release := range []bool{false, true} {
			b, err := New(int64(len(data)), table, memory*image.ChunkSize)
			if err != nil {
				t.Fatal(err)
			}
			var fetchers, readers sync.WaitGroup
			for k := range 3 {
				fetchers.Go(func() { fetch(t, b, data, 1+k*2) })
			}
			for k := range 6 {
				readers.Go(func() {
					rnd := rand.New(rand.NewPCG(uint64(k), uint64(memory)))
					for range 15 {
						off := rnd.Int64N(int64(len(data)))
						p := make([]byte, rnd.IntN(3*image.ChunkSize/(1+rnd.IntN(40))))
						n, err := b.ReadAt(p, off)
						if err != nil && err != io.EOF {
							t.Errorf("read: %v", err)
						}
						if want := min(int64(len(p)), int64(len(data))-off); int64(n) != want || !bytes.Equal(p[:n], data[off:off+want]) {
							t.Errorf("read %d bytes at %d: got %d wrong ones", len(p), off, n)
						}
						if release {
							b.Release(off, int64(n))
						}
					}
				})
			}
			readers.Wait()
			if err := b.Close(); err != nil {
				t.Error(err)
			}
			fetchers.Wait()
		}
	}
}

func TestASequentialReaderThatReleasesFetchesEverythingOnce(t *testing.T) {
	data, table := imagetest.Random(t, 40*image.ChunkSize+1, 1)
	b, _ := New(int64(len(data)), table, 6*image.ChunkSize)
	var fetchers sync.WaitGroup
	for range 2 {
		fetchers.Go(func() { fetch(t, b, data, 2) })
	}
	// The metadata at the end first, as an unpacker of squashfs does, then the data.
	meta := make([]byte, 2*image.ChunkSize)
	metaOff := int64(len(data) - len(meta))
	if _, err := b.ReadAt(meta, metaOff); err != nil || !bytes.Equal(meta, data[metaOff:]) {
		t.Fatal("metadata:", err)
	}
	b.Release(metaOff, int64(len(meta)))
	p := make([]byte, 300_000)
	for off := int64(0); off < metaOff; off += int64(len(p)) {
		n, _ := b.ReadAt(p[:min(int64(len(p)), metaOff-off)], off)
		b.Release(off, int64(n))
	}
	s := b.Stats()
	b.Close()
	fetchers.Wait()
	if s.Arrived != int64(len(data)) || s.Refetched > 3*image.ChunkSize { // what gave way to the three chunks of the metadata
		t.Errorf("%d of %d bytes arrived, %d of them again", s.Arrived, len(data), s.Refetched)
	}
}

func TestAReaderThatNeverReleasesStillGetsToTheEnd(t *testing.T) {
	data, table := imagetest.Random(t, 30*image.ChunkSize, 1)
	b, _ := New(int64(len(data)), table, 4*image.ChunkSize)
	var fetchers sync.WaitGroup
	fetchers.Go(func() { fetch(t, b, data, 3) })
	got, err := io.ReadAll(io.NewSectionReader(b, 0, b.Size()))
	if err != nil || !bytes.Equal(got, data) {
		t.Fatal("wrong bytes:", err)
	}
	if s := b.Stats(); s.Refetched > 2*image.ChunkSize {
		t.Errorf("%d bytes came again", s.Refetched)
	}
	b.Close()
	fetchers.Wait()
}

func TestAChunkThatAReaderWaitsForComesBeforeWhatIsFetchedAhead(t *testing.T) {
	data, table := imagetest.Random(t, 20*image.ChunkSize, 1)
	b, _ := New(int64(len(data)), table, 4*image.ChunkSize)
	claim := func(most int) (int, int) {
		t.Helper()
		first, n, err := b.Claim(t.Context(), most)
		if err != nil {
			t.Fatal(err)
		}
		return first, n
	}
	if first, n := claim(8); first != 0 || n != 4 {
		t.Fatalf("at first: chunks %d+%d and not the 4 that memory allows", first, n)
	}
	for i := range 4 {
		if err := b.Put(i, imagetest.Chunk(data, i)); err != nil {
			t.Fatal(err)
		}
	}
	done := make(chan error)
	go func() {
		p := make([]byte, 10)
		_, err := b.ReadAt(p, 17*image.ChunkSize)
		done <- err
	}()
	// Memory is full of chunks 0 to 3; the one that is furthest ahead gives way.
	if first, n := claim(1); first != 17 || n != 1 {
		t.Fatalf("then: chunks %d+%d and not the one a reader waits for", first, n)
	}
	if err := b.Put(17, imagetest.Chunk(data, 17)); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	b.Release(0, 2*image.ChunkSize)
	if first, n := claim(8); first != 3 || n != 2 {
		t.Errorf("after the release of two chunks: chunks %d+%d and not 3, which had given way, and the next", first, n)
	}
}

func TestBadBytesAreNeverKept(t *testing.T) {
	data, table := imagetest.Random(t, 2*image.ChunkSize+5, 1)
	b, _ := New(int64(len(data)), table, 8*image.ChunkSize)
	bad := bytes.Clone(imagetest.Chunk(data, 1))
	bad[77] ^= 1
	for name, p := range map[string][]byte{"one bit": bad, "short": bad[:9], "long": append(bad, 0), "nothing": nil} {
		if err := b.Put(1, p); !errors.Is(err, image.ErrChunk) || !strings.Contains(err.Error(), "chunk 1") {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, i := range []int{-1, 3} {
		if err := b.Put(i, nil); err == nil {
			t.Errorf("chunk %d was taken", i)
		}
	}
	if s := b.Stats(); s.Bad != 4 || s.Held != 0 || s.Arrived != 0 {
		t.Errorf("%+v", s)
	}
	if err := b.Put(1, imagetest.Chunk(data, 1)); err != nil {
		t.Fatal(err)
	}
	p := make([]byte, 100)
	if n, err := b.ReadAt(p, image.ChunkSize+50); n != 100 || err != nil || !bytes.Equal(p, data[image.ChunkSize+50:image.ChunkSize+150]) {
		t.Errorf("read: %d, %v", n, err)
	}
}

func TestAGivenChunkIsNotCopiedAndAnotherBufferComesBackForIt(t *testing.T) {
	data, table := imagetest.Random(t, 3*image.ChunkSize, 1)
	b, _ := New(int64(len(data)), table, 2*image.ChunkSize)
	buffer := func(i int) []byte { return append(make([]byte, 0, image.ChunkSize), imagetest.Chunk(data, i)...) }
	bad, first := buffer(1), buffer(0)
	if spare, err := b.Give(0, bad); !errors.Is(err, image.ErrChunk) || &spare[0] != &bad[0] {
		t.Errorf("a wrong chunk: its buffer did not come back, or %v", err)
	}
	if spare, err := b.Give(0, first); err != nil || spare != nil {
		t.Errorf("the first: %v, and a buffer came back: %v", err, spare != nil)
	}
	again := buffer(0)
	if spare, err := b.Give(0, again); err != nil || &spare[0] != &again[0] {
		t.Errorf("one that is here: its buffer did not come back, or %v", err)
	}
	if err := b.View(t.Context(), 0, 0, func(held []byte) error {
		if &held[0] != &first[0] {
			t.Error("the chunk was copied")
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	b.Release(0, image.ChunkSize)
	if _, err := b.Give(1, buffer(1)); err != nil {
		t.Error(err)
	}
	if spare, err := b.Give(2, buffer(2)); err != nil || cap(spare) < image.ChunkSize || &spare[:1][0] != &first[0] {
		t.Errorf("the buffer of the chunk that gave way did not come back: %v", err)
	}
}

func TestALentChunkStaysUntilItIsGivenBack(t *testing.T) {
	data, table := imagetest.Random(t, 2*image.ChunkSize+9, 1)
	b, _ := New(int64(len(data)), table, image.ChunkSize)
	var fetchers sync.WaitGroup
	fetchers.Go(func() { fetch(t, b, data, 1) })
	lent, give, err := b.Lend(image.ChunkSize-5, 100)
	if err != nil || !bytes.Equal(lent, data[image.ChunkSize-5:image.ChunkSize]) {
		t.Fatalf("lent %d bytes to the chunk's end, %v", len(lent), err)
	}
	next := make(chan []byte)
	go func() {
		more, give, err := b.Lend(2*image.ChunkSize, 1<<20)
		if err != nil {
			t.Error(err)
		} else {
			defer give(len(more))
		}
		next <- bytes.Clone(more)
	}()
	for range 1000 { // there is no room but that of what is lent
		select {
		case <-next:
			t.Fatal("two chunks came into the memory of one")
		default:
			runtime.Gosched()
		}
	}
	if !bytes.Equal(lent, data[image.ChunkSize-5:image.ChunkSize]) {
		t.Error("what is lent has changed")
	}
	give(len(lent))
	if more := <-next; !bytes.Equal(more, data[2*image.ChunkSize:]) {
		t.Errorf("lent %d bytes of the last chunk", len(more))
	}
	for off, most := range map[int64]int64{-1: 5, int64(len(data)): 5, 0: 0} {
		if _, _, err := b.Lend(off, most); err == nil {
			t.Errorf("%d bytes at %d were lent", most, off)
		}
	}
	b.Close()
	fetchers.Wait()
	if _, _, err := b.Lend(0, 1); !errors.Is(err, ErrClosed) {
		t.Errorf("after the end: %v", err)
	}
}

func TestAClaimGivenBackIsClaimedAgainAndBeforeOthersIfAReaderWaits(t *testing.T) {
	data, table := imagetest.Random(t, 8*image.ChunkSize, 1)
	b, _ := New(int64(len(data)), table, 8*image.ChunkSize)
	first, n, _ := b.Claim(t.Context(), 2)
	done := make(chan error)
	go func() {
		_, err := b.ReadAt(make([]byte, 1), image.ChunkSize)
		done <- err
	}()
	for { // until the reader waits
		b.mu.Lock()
		waits := b.chunks[1].pins > 0
		b.mu.Unlock()
		if waits {
			break
		}
		time.Sleep(time.Millisecond)
	}
	b.Unclaim(first, n)
	if i, _, _ := b.Claim(t.Context(), 1); i != 1 {
		t.Errorf("claimed %d and not the chunk that a reader waits for", i)
	}
	if i, _, _ := b.Claim(t.Context(), 1); i != 0 {
		t.Errorf("claimed %d and not the other that was given back", i)
	}
	b.Put(1, imagetest.Chunk(data, 1))
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestTheEndOfATransferWakesEverybody(t *testing.T) {
	data, table := imagetest.Random(t, 3*image.ChunkSize, 1)
	broken := errors.New("the server is gone")
	for name, c := range map[string]struct {
		end  func(b *Blob)
		want error
	}{
		"failed": {func(b *Blob) { b.Fail(broken); b.Fail(errors.New("later")) }, broken},
		"closed": {func(b *Blob) { b.Close() }, ErrClosed},
	} {
		b, _ := New(int64(len(data)), table, image.ChunkSize)
		b.Claim(t.Context(), 1)
		errs := make(chan error, 2)
		go func() { _, err := b.ReadAt(make([]byte, 4), 0); errs <- err }()
		go func() { _, _, err := b.Claim(context.Background(), 1); errs <- err }()
		c.end(b)
		for range 2 {
			if err := <-errs; !errors.Is(err, c.want) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if err := b.Put(0, imagetest.Chunk(data, 0)); !errors.Is(err, c.want) {
			t.Errorf("%s: put: %v", name, err)
		}
		if _, err := b.ReadAt(make([]byte, 4), 0); !errors.Is(err, c.want) {
			t.Errorf("%s: read: %v", name, err)
		}
	}
	b, _ := New(int64(len(data)), table, image.ChunkSize)
	b.Fail(broken)
	if err := b.Close(); !errors.Is(err, broken) {
		t.Errorf("close after a failure: %v", err)
	}
}

func TestClaimEndsWithItsContext(t *testing.T) {
	data, table := imagetest.Random(t, image.ChunkSize, 1)
	b, _ := New(int64(len(data)), table, image.ChunkSize)
	b.Claim(t.Context(), 1)
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("stop")
	cancel(stop)
	if _, _, err := b.Claim(ctx, 1); !errors.Is(err, stop) {
		t.Error(err)
	}
}

func TestReadAtKeepsTheRulesOfReaderAt(t *testing.T) {
	data, table := imagetest.Random(t, image.ChunkSize+10, 1)
	b, _ := New(int64(len(data)), table, 2*image.ChunkSize)
	b.Put(0, imagetest.Chunk(data, 0))
	b.Put(1, imagetest.Chunk(data, 1))
	p := make([]byte, 20)
	for _, c := range []struct {
		off int64
		n   int
		err error
	}{{int64(len(data)) - 10, 10, io.EOF}, {int64(len(data)) - 20, 20, nil}, {int64(len(data)), 0, io.EOF}, {1 << 40, 0, io.EOF}} {
		if n, err := b.ReadAt(p, c.off); n != c.n || err != c.err {
			t.Errorf("at %d: %d, %v", c.off, n, err)
		}
	}
	if _, err := b.ReadAt(p, -1); err == nil {
		t.Error("a negative offset was taken")
	}
	if n, err := b.ReadAt(nil, 5); n != 0 || err != nil {
		t.Error("nothing:", n, err)
	}
}

func TestATableThatDoesNotFitIsRefused(t *testing.T) {
	_, table := imagetest.Random(t, 3*image.ChunkSize, 1)
	for _, size := range []int64{0, -1, 2 * image.ChunkSize, 3*image.ChunkSize + 1, image.MaxFileSize + 1} {
		if _, err := New(size, table, 0); err == nil {
			t.Errorf("size %d was taken", size)
		}
	}
	if _, err := New(1, nil, 0); err == nil {
		t.Error("no table was taken")
	}
}

func TestChunksReleasedBeforeTheyCameAreNotFetched(t *testing.T) {
	data, table := imagetest.Random(t, 4*image.ChunkSize, 1)
	b, _ := New(int64(len(data)), table, 4*image.ChunkSize)
	b.Release(0, 2*image.ChunkSize+100)
	if first, n, _ := b.Claim(t.Context(), 8); first != 2 || n != 2 {
		t.Errorf("claimed %d+%d", first, n)
	}
	go b.Want(10, 1)
	if first, n, _ := b.Claim(t.Context(), 1); first != 0 || n != 1 {
		t.Errorf("wanted again: claimed %d+%d", first, n)
	}
	if err := b.Put(0, imagetest.Chunk(data, 0)); err != nil {
		t.Fatal(err)
	}
	if n, err := b.ReadAt(make([]byte, 5), 10); n != 5 || err != nil {
		t.Error(n, err)
	}
}
