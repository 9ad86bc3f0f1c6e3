package blob

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"imgbuild/image"
	"imgbuild/image/imagetest"
	"imgbuild/installer/report"
	"imgbuild/installer/spill"
)

// shelf is a Store in memory that may break.
type shelf struct {
	mu     sync.Mutex
	chunks map[int][]byte
	limit  int             // Put fails for what is more
	spoil  func(i int) int // 1 for a chunk that comes back with other bytes, 2 for one that does not
	put    chan int        // takes what is put, if it is not nil
	hold   chan struct{}   // Put waits for it, if it is not nil
}

func (s *shelf) Put(i int, data []byte) error {
	if s.hold != nil {
		<-s.hold
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.chunks == nil {
		s.chunks = map[int][]byte{}
	}
	if s.limit > 0 && len(s.chunks) >= s.limit {
		return errors.New("the shelf is full")
	}
	s.chunks[i] = bytes.Clone(data)
	if s.put != nil {
		s.put <- i
	}
	return nil
}

func (s *shelf) Has(i int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.chunks[i] != nil
}

func (s *shelf) ReadChunk(i int, p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := copy(p, s.chunks[i])
	if s.spoil != nil {
		switch s.spoil(i) {
		case 1:
			p[n/2] ^= 1
		case 2:
			return 0, errors.New("the shelf broke")
		}
	}
	return n, nil
}

// view returns a copy of what View shows.
func view(ctx context.Context, b *Blob, i int, hold time.Duration) ([]byte, error) {
	var got []byte
	err := b.View(ctx, i, hold, func(data []byte) error { got = bytes.Clone(data); return nil })
	return got, err
}

func TestAViewWaitsForWhatIsToComeAndAsksForNothing(t *testing.T) {
	data, table := imagetest.Random(t, 6*image.ChunkSize+9, 1)
	stop := errors.New("stop")
	for name, c := range map[string]struct {
		before, meanwhile func(b *Blob)
		chunk             int
		after             time.Duration
		want              error
	}{
		"it is here": {before: func(b *Blob) { b.Put(6, imagetest.Chunk(data, 6)) }, chunk: 6},
		"it comes":   {meanwhile: func(b *Blob) { b.Put(3, imagetest.Chunk(data, 3)) }, chunk: 3, after: time.Second},
		"it comes after it was given back": {
			before:    func(b *Blob) { b.Claim(context.Background(), 2) },
			meanwhile: func(b *Blob) { b.Unclaim(0, 2); b.Put(1, imagetest.Chunk(data, 1)) }, chunk: 1, after: time.Second,
		},
		"it does not come": {chunk: 2, after: 3 * time.Second, want: ErrWaiting},
		"it was released":  {before: func(b *Blob) { b.Release(image.ChunkSize, image.ChunkSize) }, chunk: 1, want: ErrGone},
		"it was released and is wanted": {
			before: func(b *Blob) { b.Release(0, image.ChunkSize); b.Want(0, 1) }, after: 3 * time.Second, want: ErrWaiting,
		},
		"it is released while one waits":  {meanwhile: func(b *Blob) { b.Release(0, image.ChunkSize) }, after: time.Second, want: ErrGone},
		"it is released on its way":       {before: claimReleased, meanwhile: func(b *Blob) { b.Put(0, imagetest.Chunk(data, 0)) }, after: time.Second, want: ErrGone},
		"it is released and given back":   {before: claimReleased, meanwhile: func(b *Blob) { b.Unclaim(0, 1) }, after: time.Second, want: ErrGone},
		"the transfer fails":              {meanwhile: func(b *Blob) { b.Fail(stop) }, after: time.Second, want: stop},
		"the transfer has ended":          {before: func(b *Blob) { b.Close() }, want: ErrClosed},
		"the transfer ended with a chunk": {before: func(b *Blob) { b.Put(0, imagetest.Chunk(data, 0)); b.Close() }, want: ErrClosed},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b, _ := New(int64(len(data)), table, 4*image.ChunkSize)
				if c.before != nil {
					c.before(b)
				}
				before := b.Stats()
				begun := time.Now()
				if c.meanwhile != nil {
					time.AfterFunc(time.Second, func() { c.meanwhile(b) })
				}
				got, err := view(t.Context(), b, c.chunk, 3*time.Second)
				if !errors.Is(err, c.want) || time.Since(begun) != c.after {
					t.Errorf("%v after %s", err, time.Since(begun))
				}
				if err == nil && !bytes.Equal(got, imagetest.Chunk(data, c.chunk)) {
					t.Error("wrong bytes")
				}
				if s := b.Stats(); c.meanwhile == nil && s != before {
					t.Errorf("the view changed what is here: %+v", s)
				}
				if c.want == ErrWaiting && name == "it does not come" {
					if i, _, _ := b.Claim(t.Context(), 1); i != 0 {
						t.Errorf("the view made chunk %d be fetched first", i)
					}
				}
			})
		})
	}
}

// claimReleased promises chunk 0 to a fetcher and releases it.
func claimReleased(b *Blob) {
	b.Claim(context.Background(), 1)
	b.Release(0, image.ChunkSize)
}

func TestAViewEndsWithItsContextAndReturnsWhatItsUserReturns(t *testing.T) {
	data, table := imagetest.Random(t, 2*image.ChunkSize, 1)
	b, _ := New(int64(len(data)), table, 2*image.ChunkSize)
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("stop")
	time.AfterFunc(time.Millisecond, func() { cancel(stop) })
	if _, err := view(ctx, b, 0, time.Hour); !errors.Is(err, stop) {
		t.Error(err)
	}
	b.Put(0, imagetest.Chunk(data, 0))
	if err := b.View(t.Context(), 0, 0, func([]byte) error { return stop }); !errors.Is(err, stop) {
		t.Error(err)
	}
	for _, i := range []int{-1, 2} {
		if err := b.View(t.Context(), i, time.Hour, nil); err == nil {
			t.Errorf("there is a chunk %d", i)
		}
	}
}

func TestWhatIsViewedGivesWayToAReaderOnlyAndStaysAsItIsForTheViewer(t *testing.T) {
	data, table := imagetest.Random(t, 6*image.ChunkSize, 1)
	b, _ := New(int64(len(data)), table, 2*image.ChunkSize)
	for i := range 2 {
		b.Put(i, imagetest.Chunk(data, i))
	}
	err := b.View(t.Context(), 0, 0, func(viewed []byte) error {
		return b.View(t.Context(), 1, 0, func([]byte) error {
			b.Release(0, 2*image.ChunkSize)
			for i := 2; i < 6; i++ {
				if b.ClaimOne(i) {
					t.Error("a chunk that is being viewed gave way to one that is fetched ahead")
				}
				done := make(chan error)
				go func() { _, err := b.ReadAt(make([]byte, 1), int64(i)*image.ChunkSize); done <- err }()
				if first, _, _ := b.Claim(t.Context(), 1); first != i {
					t.Errorf("claimed %d", first)
				}
				b.Put(i, imagetest.Chunk(data, i))
				if err := <-done; err != nil {
					t.Error(err)
				}
				if !bytes.Equal(viewed, imagetest.Chunk(data, 0)) {
					t.Error("the viewer's bytes changed")
				}
			}
			return nil
		})
	})
	if err != nil {
		t.Error(err)
	}
	for i := range 6 {
		if c := &b.chunks[i]; c.views != 0 || c.pins != 0 {
			t.Errorf("chunk %d is still held", i)
		}
	}
}

// stores are the kinds of stores that a transfer may have to do with.
func stores(t *testing.T, size int64, table *image.ChunkTable) map[string]Store {
	disk, err := spill.New(spill.Options{Dir: t.TempDir(), Size: size, Chunks: table, Report: report.New(nowhere{})})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { disk.Close() })
	return map[string]Store{
		"a file": disk, "memory": &shelf{}, "a full one": &shelf{limit: 5},
		"one that changes bytes": &shelf{spoil: func(i int) int { return i % 2 }},
		"one that breaks":        &shelf{limit: 9, spoil: func(i int) int { return i % 3 }},
	}
}

type nowhere struct{}

func (nowhere) Line(report.Class, string) {}

func TestReadersAndViewersGetTheRightBytesWhateverTheStoreDoes(t *testing.T) {
	data, table := imagetest.Random(t, 17*image.ChunkSize+333, 1)
	for _, memory := range []int64{1, 4} {
		for name, store := range stores(t, int64(len(data)), table) {
			b, err := New(int64(len(data)), table, memory*image.ChunkSize)
			if err != nil {
				t.Fatal(err)
			}
			var fetchers, readers sync.WaitGroup
			for k := range 2 {
				fetchers.Go(func() { fetch(t, b, data, 1+k*2) })
			}
			for k := range 3 {
				readers.Go(func() {
					rnd := rand.New(rand.NewPCG(uint64(k), uint64(memory)))
					for n := range 8 {
						if k == 0 && n%4 == 1 {
							b.Keep([]Store{store, nil}[n/4%2])
						}
						off := rnd.Int64N(int64(len(data)))
						p := make([]byte, rnd.IntN(2*image.ChunkSize/(1+rnd.IntN(40))))
						n, err := b.ReadAt(p, off)
						if err != nil && err != io.EOF || !bytes.Equal(p[:n], data[off:off+int64(n)]) {
							t.Errorf("%s, %d chunks in memory: read %d bytes at %d: %d wrong ones, %v", name, memory, len(p), off, n, err)
						}
						if k == 2 {
							b.Release(off, int64(n))
						}
					}
				})
			}
			for k := range 2 {
				readers.Go(func() {
					rnd := rand.New(rand.NewPCG(uint64(k), 1000+uint64(memory)))
					for range 20 {
						i := rnd.IntN(len(table.Digests))
						got, err := view(t.Context(), b, i, time.Duration(rnd.IntN(2))*time.Millisecond)
						if err == nil && !bytes.Equal(got, imagetest.Chunk(data, i)) {
							t.Errorf("%s, %d chunks in memory: viewed wrong bytes of chunk %d", name, memory, i)
						}
						if err != nil && err != ErrWaiting && err != ErrGone {
							t.Errorf("%s: view: %v", name, err)
						}
					}
				})
			}
			readers.Wait()
			checkCounts(t, b)
			if err := b.Close(); err != nil {
				t.Error(err)
			}
			fetchers.Wait()
		}
	}
}

// checkCounts compares the running counts of a blob with what it holds.
func checkCounts(t *testing.T, b *Blob) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	var reserve, bare, here int
	var held int64
	for i := range b.chunks {
		c := &b.chunks[i]
		if c.state != missing {
			reserve++
		}
		if _, ok := b.here[i]; ok != (c.state == present) {
			t.Errorf("chunk %d: state %d, here %v", i, c.state, ok)
		}
		if c.state == present {
			here++
			if !c.stored {
				bare++
			}
		}
		if c.state == present || c.stored {
			held += b.length(i)
		}
		class := b.class(i)
		if b.spare(i, class) && (c.offered&(1<<class) == 0 || !slices.Contains(b.spares[class].chunks, i)) {
			t.Errorf("chunk %d is spare and not listed", i)
		}
	}
	if reserve != b.reserve || bare != b.bare || held != b.stats.Held || here+len(b.free) > b.limit {
		t.Errorf("%d reserved, %d bare, %d held and not %d, %d, %d; %d buffers", reserve, bare, held,
			b.reserve, b.bare, b.stats.Held, here+len(b.free))
	}
}

func TestAMachineThatKeepsFetchesEverythingOnceAndServesItToTheEnd(t *testing.T) {
	data, table := imagetest.Random(t, 24*image.ChunkSize+5, 1)
	for _, ahead := range []bool{false, true} {
		for _, name := range []string{"a file", "memory"} {
			store := stores(t, int64(len(data)), table)[name]
			synctest.Test(t, func(t *testing.T) { keepAll(t, data, table, store, ahead) })
		}
	}
}

// keepAll reads a file while another machine does. Readers that wait would make chunks go that have not been stored yet, so
// it lets the keeper come to rest first.
func keepAll(t *testing.T, data []byte, table *image.ChunkTable, store Store, ahead bool) {
	b, _ := New(int64(len(data)), table, 6*image.ChunkSize)
	b.Keep(store)
	go fetch(t, b, data, 2)
	viewAll := func() {
		for i := range table.Digests {
			if got, err := view(t.Context(), b, i, time.Minute); err != nil || !bytes.Equal(got, imagetest.Chunk(data, i)) {
				t.Errorf("view %d: %v", i, err)
			}
		}
	}
	if ahead { // the network is faster than the reader
		viewAll()
	}
	p := make([]byte, 300_000)
	for off := int64(0); off < int64(len(data)); off += int64(len(p)) {
		synctest.Wait()
		n, err := b.ReadAt(p, off)
		if err != nil && err != io.EOF || !bytes.Equal(p[:n], data[off:off+int64(n)]) {
			t.Fatalf("read at %d: %v", off, err)
		}
		b.Release(off, int64(n))
	}
	viewAll()
	s := b.Stats()
	if s.Arrived != int64(len(data)) || s.Held != int64(len(data)) || s.Refetched != 0 || s.Full {
		t.Errorf("%+v", s)
	}
	b.Close()
}

func TestOnlyWhatHalfOfTheMemoryCannotHoldIsStored(t *testing.T) {
	data, table := imagetest.Random(t, 12*image.ChunkSize, 1)
	for memory, want := range map[int64][]int{12: nil, 100: nil, 8: {0, 1, 2, 3}, 1: {0, 1, 2, 3, 4, 5, 6, 7}} {
		synctest.Test(t, func(t *testing.T) {
			b, _ := New(int64(len(data)), table, memory*image.ChunkSize)
			s := &shelf{put: make(chan int, 100)}
			b.Put(0, imagetest.Chunk(data, 0))
			b.Keep(s)
			for i := range 8 {
				for !b.ClaimOne(i) && i > 0 {
					synctest.Wait() // until the chunk before has been stored
				}
				b.Put(i, imagetest.Chunk(data, i))
				synctest.Wait()
			}
			b.Keep(nil)
			b.Close()
			close(s.put)
			var got []int
			for i := range s.put {
				got = append(got, i)
			}
			if !slices.Equal(got, want) {
				t.Errorf("with %d chunks in memory: stored %v", memory, got)
			}
		})
	}
}

func TestAStoreThatFailsIsGivenUpAndTheTransferGoesOn(t *testing.T) {
	data, table := imagetest.Random(t, 10*image.ChunkSize, 1)
	synctest.Test(t, func(t *testing.T) {
		b, _ := New(int64(len(data)), table, 2*image.ChunkSize)
		b.Keep(&shelf{limit: 3})
		go fetch(t, b, data, 1)
		for i := range table.Digests {
			synctest.Wait()
			if _, err := b.ReadAt(make([]byte, image.ChunkSize), int64(i)*image.ChunkSize); err != nil {
				t.Fatal(err)
			}
		}
		for i := range table.Digests {
			_, err := view(t.Context(), b, i, 0)
			if here := i < 3 || i >= 8; here && err != nil || !here && err != ErrGone {
				t.Errorf("chunk %d: %v", i, err)
			}
		}
		if s := b.Stats(); s.Held != 5*image.ChunkSize {
			t.Errorf("%+v", s)
		}
		b.Keep(&shelf{}) // another is not taken
		if b.keeping {
			t.Error("it is kept again")
		}
		b.Close()
		b.Keep(&shelf{})
	})
}

func TestATransferThatWaitsForItsReadersIsFull(t *testing.T) {
	data, table := imagetest.Random(t, 10*image.ChunkSize, 1)
	b, _ := New(int64(len(data)), table, 4*image.ChunkSize)
	full := func(want bool, when string) {
		t.Helper()
		if b.Stats().Full != want {
			t.Errorf("%s: full is %v", when, !want)
		}
	}
	full(false, "at first")
	first, n, _ := b.Claim(t.Context(), 4)
	full(false, "with all on its way")
	for i := first; i < first+n; i++ {
		b.Put(i, imagetest.Chunk(data, i))
	}
	full(true, "with all here and nothing read")
	b.Release(0, image.ChunkSize)
	full(false, "with one that nobody needs")
	b.ClaimOne(4)
	b.Put(4, imagetest.Chunk(data, 4))
	full(true, "with another in its place")
	b.Release(5*image.ChunkSize, 5*image.ChunkSize)
	full(false, "with nothing to come")
	b.Close()
	full(false, "at the end")
}

func TestCloseWaitsForWhatIsBeingStored(t *testing.T) {
	data, table := imagetest.Random(t, 3*image.ChunkSize, 1)
	synctest.Test(t, func(t *testing.T) {
		b, _ := New(int64(len(data)), table, image.ChunkSize)
		s := &shelf{hold: make(chan struct{})}
		b.Keep(s)
		b.Put(0, imagetest.Chunk(data, 0))
		synctest.Wait()
		closed := false
		go func() { b.Close(); closed = true }()
		synctest.Wait()
		if closed {
			t.Error("closed while a chunk is being stored")
		}
		close(s.hold)
		synctest.Wait()
		if !closed || !s.Has(0) {
			t.Error("it does not end")
		}
	})
}
