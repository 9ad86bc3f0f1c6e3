package releases

import (
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"sync"
	"testing"

	"imgbuild/image"
	"imgbuild/server/releases/releasetest"
)

// BenchmarkServe is one client after the other that reads a root file system of 64 MiB; B/op is what a whole file costs in
// memory on both sides.
func BenchmarkServe(b *testing.B) {
	url := serveLarge(b)
	b.SetBytes(64 << 20)
	b.ReportAllocs()
	for b.Loop() {
		if err := get(url); err != nil {
			b.Fatal(err)
		}
	}
}

func serveLarge(t testing.TB) string {
	dir := t.TempDir()
	releasetest.Write(t, dir, releasetest.Release{Name: "web", Version: "1", Key: releasetest.Key(t), RootfsBytes: 64 << 20})
	s := httptest.NewServer(open(t, dir))
	t.Cleanup(s.Close)
	return s.URL + "/images/web/1/" + image.RootfsFile
}

func get(url string) error {
	r, err := http.Get(url)
	if err != nil {
		return err
	}
	defer r.Body.Close()
	_, err = io.Copy(io.Discard, r.Body)
	return err
}

// What is served goes from the page cache to the sockets: fifty readers of 64 MiB make the server allocate next to nothing.
func TestManyReadersCostNoMemory(t *testing.T) {
	url := serveLarge(t)
	const readers = 50
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	var wg sync.WaitGroup
	for range readers {
		wg.Go(func() {
			if err := get(url); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	runtime.ReadMemStats(&after)
	if got := (after.TotalAlloc - before.TotalAlloc) / readers; got > 256<<10 {
		t.Errorf("a reader costs %d KiB on both sides, of a file of 64 MiB", got>>10)
	}
}
