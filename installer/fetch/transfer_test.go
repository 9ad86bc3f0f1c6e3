package fetch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"imgbuild/image"
	"imgbuild/image/imagetest"
	"imgbuild/installer/blob"
)

// static serves data with ranges, as a web server does.
func static(data []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "rootfs.squashfs", time.Time{}, bytes.NewReader(data))
	}
}

// install reads the file as an unpacker does, the end first and then from the start, releasing what it has read.
func install(t *testing.T, f *Fetcher, urls []string, data []byte, table *image.ChunkTable, memory int64) error {
	t.Helper()
	b, err := blob.New(int64(len(data)), table, memory)
	if err != nil {
		t.Fatal(err)
	}
	fetched := make(chan error, 1)
	go func() { fetched <- feed(t.Context(), f, urls, b) }()
	read := func(off, end int64) error {
		p := make([]byte, 200_000)
		for off < end {
			n, err := b.ReadAt(p[:min(int64(len(p)), end-off)], off)
			if err != nil && err != io.EOF {
				return err
			}
			if !bytes.Equal(p[:n], data[off:off+int64(n)]) {
				t.Errorf("wrong bytes at %d", off)
			}
			b.Release(off, int64(n))
			off += int64(n)
		}
		return nil
	}
	meta := int64(len(data)) * 9 / 10
	err = read(meta, int64(len(data)))
	if err == nil {
		err = read(0, meta)
	}
	b.Close()
	if ferr := <-fetched; !errors.Is(err, ferr) {
		t.Errorf("the reader got %v and the fetcher %v", err, ferr)
	}
	return err
}

const mib = 1 << 20

// TestTransferSurvives runs a whole transfer against each kind of server that is not as it should be.
func TestATransferSurvivesFaults(t *testing.T) {
	data, table := imagetest.Random(t, 30*mib+12345, 1)
	good := static(data)
	var mu sync.Mutex
	n := 0
	count := func() int { mu.Lock(); defer mu.Unlock(); n++; return n }
	for name, h := range map[string]http.HandlerFunc{
		"nothing wrong": good,
		"every other connection breaks somewhere": func(w http.ResponseWriter, r *http.Request) {
			if count()%2 == 0 {
				good(&breaking{ResponseWriter: w, left: rand.Int64N(3 * mib)}, r)
				panic(http.ErrAbortHandler)
			}
			good(w, r)
		},
		"some connections fall silent": func(w http.ResponseWriter, r *http.Request) {
			if count()%5 == 0 {
				good(&breaking{ResponseWriter: w, left: rand.Int64N(2 * mib), hang: r.Context()}, r)
				return
			}
			good(w, r)
		},
		"some answers are 503": func(w http.ResponseWriter, r *http.Request) {
			if count()%3 == 0 {
				http.Error(w, "busy", http.StatusServiceUnavailable)
				return
			}
			good(w, r)
		},
		"some chunks come wrong": func(w http.ResponseWriter, r *http.Request) {
			if count()%8 == 0 {
				good(&flipping{ResponseWriter: w}, r)
				return
			}
			good(w, r)
		},
		"ranges come shorter than asked": func(w http.ResponseWriter, r *http.Request) {
			var a, b int64
			fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &a, &b)
			r.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", a, min(b, a+700_000)))
			good(w, r)
		},
		"redirects": func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/real" {
				http.Redirect(w, r, "/real", http.StatusTemporaryRedirect)
				return
			}
			good(w, r)
		},
		"no ranges": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", strconv.Itoa(len(data)))
			w.Write(data)
		},
		"no ranges and no length": func(w http.ResponseWriter, r *http.Request) {
			w.(http.Flusher).Flush()
			w.Write(data)
		},
		"no ranges, and the stream breaks at times": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", strconv.Itoa(len(data)))
			left := int64(len(data))
			if count()%2 == 0 {
				left = rand.Int64N(left)
			}
			w.Write(data[:left])
		},
	} {
		t.Run(name, func(t *testing.T) {
			u := serve(t, h)
			for _, memory := range []int64{2 * mib, 16 * mib, 64 * mib} {
				f, l := impatient(Options{Patience: 20 * time.Second, BadLimit: 20})
				if err := install(t, f, []string{u + "/rootfs"}, data, table, memory); err != nil {
					t.Errorf("with %d MiB: %v\n%s", memory/mib, err, l)
				}
			}
		})
	}
}

// breaking lets a number of bytes through and then nothing.
type breaking struct {
	http.ResponseWriter
	left int64
	hang context.Context
}

func (b *breaking) Write(p []byte) (int, error) {
	n, _ := b.ResponseWriter.Write(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	if b.left == 0 {
		b.ResponseWriter.(http.Flusher).Flush()
		if b.hang != nil {
			<-b.hang.Done()
		}
		return n, io.ErrClosedPipe
	}
	return n, nil
}

// flipping changes a bit in everything.
type flipping struct{ http.ResponseWriter }

func (f *flipping) Write(p []byte) (int, error) {
	p = bytes.Clone(p)
	p[len(p)/2] ^= 4
	return f.ResponseWriter.Write(p)
}

func TestATransferThatCannotSucceedEndsInOneSentence(t *testing.T) {
	data, table := imagetest.Random(t, 5*mib+99, 1)
	bad := bytes.Clone(data)
	bad[3*mib+7] ^= 1
	for name, c := range map[string]struct {
		h    http.HandlerFunc
		want string
	}{
		"truncated":              {static(data[:4*mib]), "bytes there and 5242979 in the signed manifest: publish the release again"},
		"longer":                 {static(append(bytes.Clone(data), 0)), "has 5242980 bytes there"},
		"truncated, no ranges":   {func(w http.ResponseWriter, r *http.Request) { w.Write(data[:mib]) }, "too often: the connection ended too early: check that the file is complete there"},
		"one chunk is wrong":     {static(bad), "chunk 3 came wrong 4 times"},
		"not there":              {http.NotFound, "404 Not Found"},
		"always busy":            {func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(500) }, "500 Internal Server Error; gave up after "},
		"always silent":          {func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, "no byte came for 1 s; gave up after "},
		"always breaks":          {func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) }, "EOF; gave up"},
		"nonsense as a range":    {partial("bytes 7-8/9x"), "makes no sense"},
		"another range":          {partial("bytes 1-100/5242979"), "sends those from 1 on"},
		"a file of another size": {partial("bytes 0-99/100"), "has 100 bytes there"},
		"no such range":          {func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(416) }, "the server says that the file has no byte"},
	} {
		t.Run(name, func(t *testing.T) {
			u := serve(t, c.h)
			f, _ := impatient(Options{Patience: 700 * time.Millisecond, Stall: 100 * time.Millisecond, Connections: 2})
			err := install(t, f, []string{strings.Replace(u, "//", "//user:secret@", 1) + "/rootfs"}, data, table, 64*mib)
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), u+"/rootfs") {
				t.Errorf("got %v", err)
			}
			if err != nil && (strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "\n")) {
				t.Errorf("secret or several lines: %v", err)
			}
		})
	}
}

func partial(contentRange string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Range", contentRange)
		w.WriteHeader(http.StatusPartialContent)
		w.Write(make([]byte, 100))
	}
}

func TestAnotherSourceTakesOver(t *testing.T) {
	data, table := imagetest.Random(t, 12*mib, 1)
	bad := bytes.Clone(data)
	for i := range 12 {
		bad[i*mib] ^= 1
	}
	var served atomic.Int64
	good := serve(t, func(w http.ResponseWriter, r *http.Request) { served.Add(1); static(data)(w, r) })
	for name, first := range map[string]string{
		"of one that is not there":      serve(t, http.NotFound),
		"of one with wrong bytes":       serve(t, static(bad)),
		"of one that sends no ranges":   serve(t, func(w http.ResponseWriter, r *http.Request) { w.Write(data) }),
		"of one that breaks every time": serve(t, func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) }),
	} {
		f, l := impatient(Options{Patience: 5 * time.Second})
		served.Store(0)
		if err := install(t, f, []string{first, good}, data, table, 8*mib); err != nil || served.Load() == 0 {
			t.Errorf("%s: %v\n%s", name, err, l)
		}
	}
	f, _ := impatient(Options{})
	err := install(t, f, []string{serve(t, http.NotFound) + "/a", serve(t, http.NotFound) + "/b"}, data, table, 8*mib)
	if err == nil || !strings.Contains(err.Error(), "none of its 2 addresses works") {
		t.Errorf("two that are not there: %v", err)
	}
	if err := install(t, f, nil, data, table, 8*mib); err == nil {
		t.Error("no address was taken")
	}
}

func TestTheContextEndsATransferAndWakesItsReaders(t *testing.T) {
	data, table := imagetest.Random(t, 2*mib, 1)
	b, _ := blob.New(int64(len(data)), table, 4*mib)
	began := make(chan struct{}, 16)
	u := serve(t, func(w http.ResponseWriter, r *http.Request) { began <- struct{}{}; <-r.Context().Done() })
	f, _ := impatient(Options{Stall: time.Hour})
	ctx, cancel := context.WithCancelCause(t.Context())
	go func() { <-began; cancel(errors.New("ctrl-alt-del")) }()
	if err := feed(ctx, f, []string{u}, b); err == nil || err.Error() != "ctrl-alt-del" {
		t.Errorf("fetcher: %v", err)
	}
	if _, err := b.ReadAt(make([]byte, 1), 0); err == nil || err.Error() != "ctrl-alt-del" {
		t.Errorf("reader: %v", err)
	}
}

func FuzzContentRange(f *testing.F) {
	for _, s := range []string{"bytes 0-1/2", "bytes 5-9/*", "bytes */7", "bytes 9-5/10", "bytes +1-2/3", "bytes 0-18446744073709551615/*"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		c, err := parseContentRange(s)
		if err == nil && (c.first < 0 || c.last < c.first || c.total >= 0 && c.total <= c.last) {
			t.Errorf("%q became %+v", s, c)
		}
	})
}
